use jm_engines::{ChatRequest, EngineOptions, ErrorClass};
use jm_tasks::{ChatMessage, Role};
use jm_testkit::{HttpResponse, HttpServer};
use serde_json::json;

use crate::{call, options};

const PATH: &str = "/v1/chat/completions";

pub(crate) fn request(text: &str) -> ChatRequest {
    let message = |role, content: &str| ChatMessage { role, content: content.into() };
    ChatRequest {
        messages: vec![message(Role::System, "be brief"), message(Role::User, text), message(Role::Assistant, "so")],
        ..ChatRequest::default()
    }
}

#[tokio::test]
async fn a_conversation_is_sent_as_every_server_understands_it_and_the_answer_is_read() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |_| {
        HttpResponse::json(
            200,
            json!({
                "id": "x", "object": "chat.completion", "created": 1, "model": "the-model-0613",
                "choices": [{"index": 0, "finish_reason": "length",
                    "message": {"role": "assistant", "content": "<think>\nhm\n</think>\n\nThe answer. "}}],
                "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
            }),
        )
    });
    let options = EngineOptions { api_key: Some("sk-1".into()), max_output_tokens: 100, ..options(&server) };
    let request = ChatRequest { max_tokens: Some(500), temperature: Some(0.2), ..request("hello") };
    let answer = options.chat()?.complete(&request, &call()).await.unwrap();
    assert_eq!(
        (answer.text.as_str(), answer.truncated, answer.model.as_str()),
        ("The answer.", true, "the-model-0613")
    );
    assert_eq!((answer.prompt_tokens, answer.completion_tokens), (Some(12), Some(3)));

    let sent = &server.requests()[0];
    assert_eq!(sent.header("authorization"), Some("Bearer sk-1"));
    assert_eq!(sent.header("content-type"), Some("application/json"));
    assert!(sent.header("user-agent").unwrap().starts_with("jm-mq/"));
    let messages = json!([
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "so"}
    ]);
    assert_eq!(sent.json()["messages"], messages);
    assert_eq!((&sent.json()["model"], &sent.json()["max_tokens"]), (&json!("the-model"), &json!(100)));
    assert!(String::from_utf8_lossy(&sent.body).contains(r#""temperature":0.2"#));
    assert_eq!(sent.json().as_object().unwrap().len(), 4, "nothing else is sent: some server would refuse it");
    Ok(())
}

#[tokio::test]
async fn an_answer_with_the_text_and_nothing_else_is_enough() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |_| HttpResponse::json(200, json!({"choices": [{"message": {"content": "yes"}}]})));
    let answer = options(&server).chat()?.complete(&request("q"), &call()).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.truncated, answer.model.as_str()), ("yes", false, "the-model"));
    assert_eq!(answer.prompt_tokens, None);
    assert_eq!(server.requests()[0].header("authorization"), None);
    Ok(())
}

#[tokio::test]
async fn answers_without_a_text_are_retried() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    for answer in [
        json!({}),
        json!({"choices": []}),
        json!({"choices": [{"message": {"content": null}, "finish_reason": "length"}]}),
        json!({"choices": [{"message": {"content": " \n"}}]}),
        json!({"choices": [{"message": {"content": "<think>for ever"}}]}),
        json!([1, 2]),
    ] {
        let sent = answer.clone();
        server.on("POST", PATH, move |_| HttpResponse::json(200, sent.clone()));
        let error = options(&server).chat()?.complete(&request("q"), &call()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Retryable, "{answer}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_model_that_is_cut_off_while_it_thinks_is_the_operators_to_mend() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let chat = options(&server).chat()?;
    for message in [
        json!({"content": "<think>canary, for ever"}),
        json!({"content": "", "reasoning_content": "canary"}),
        json!({"content": null, "reasoning": "canary"}),
    ] {
        let sent = message.clone();
        server.on("POST", PATH, move |_| {
            HttpResponse::json(200, json!({"choices": [{"message": sent.clone(), "finish_reason": "length"}]}))
        });
        let error = chat.complete(&request("q"), &call()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Operator, "{message}: {error}");
        assert_eq!(
            error.to_string(),
            "the model was cut off while it was thinking; raise engine.max_output_tokens",
            "{message}"
        );
        // The request's own limit is nothing an operator could raise.
        let error = chat.complete(&ChatRequest { max_tokens: Some(50), ..request("q") }, &call()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Retryable, "{message}: {error}");
        assert!(error.to_string().ends_with("the model was cut off at 50 tokens while it was thinking"), "{error}");
    }
    let choice = json!({"message": {"content": "hm</think>cut o", "reasoning": null}, "finish_reason": "length"});
    server.on("POST", PATH, move |_| HttpResponse::json(200, json!({"choices": [choice.clone()]})));
    let answer = chat.complete(&request("q"), &call()).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.truncated), ("cut o", true));
    Ok(())
}

#[tokio::test]
async fn a_text_too_long_for_the_model_is_told_from_other_permanent_errors() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    for (body, too_long) in [
        (json!({"error": {"code": "context_length_exceeded", "type": "invalid_request_error"}}), true),
        (json!({"error": {"message": "This model's maximum context length is 8192 tokens.", "code": 400}}), true),
        (json!({"error": {"code": "invalid_value"}}), false),
    ] {
        server.on("POST", PATH, move |_| HttpResponse::json(400, body.clone()));
        let error = options(&server).chat()?.complete(&request("q"), &call()).await.unwrap_err();
        assert_eq!((error.class(), error.is_too_long()), (ErrorClass::Permanent, too_long), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_conversation_without_messages_is_not_sent() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let error = options(&server).chat()?.complete(&ChatRequest::default(), &call()).await.unwrap_err();
    assert_eq!((error.class(), server.connections()), (ErrorClass::Permanent, 0));
    Ok(())
}
