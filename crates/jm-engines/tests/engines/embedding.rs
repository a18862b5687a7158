use jm_engines::{Embeddings, EngineError, EngineOptions, ErrorClass};
use jm_tasks::Purpose;
use jm_testkit::{HttpRequest, HttpResponse, HttpServer};
use serde_json::{Value, json};

use crate::{call, options};

const PATH: &str = "/v1/embeddings";

/// A vector for each text, the last text's first: its length and a constant.
fn vectors(request: &HttpRequest) -> Value {
    let texts: Vec<String> = serde_json::from_value(request.json()["input"].clone()).unwrap();
    let data = texts.iter().enumerate().rev();
    let data: Vec<Value> = data.map(|(index, text)| json!({"index": index, "embedding": [text.len(), 1]})).collect();
    json!({"object": "list", "data": data, "model": "the-model-v2"})
}

fn texts(count: usize) -> Vec<String> {
    (1..=count).map(|length| "x".repeat(length)).collect()
}

async fn embed(options: &EngineOptions, texts: &[String]) -> Result<Embeddings, EngineError> {
    options.embedding().unwrap().embed(texts, Purpose::Passage, &call()).await
}

#[tokio::test]
async fn texts_are_sent_in_batches_and_their_vectors_come_in_their_order() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |request| HttpResponse::json(200, vectors(request)));
    let options = EngineOptions { batch_size: 3, ..options(&server) };
    let answer = embed(&options, &texts(7)).await.unwrap();
    assert_eq!(answer.model, "the-model-v2");
    let lengths: Vec<f32> = answer.vectors.iter().map(|vector| vector[0]).collect();
    assert_eq!(lengths, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    let requests = server.requests();
    assert_eq!(requests.iter().map(|one| one.json()["input"].as_array().unwrap().len()).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(requests[0].json()["model"], "the-model");

    assert!(embed(&options, &[]).await.unwrap().vectors.is_empty());
    assert_eq!(server.requests().len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_prefix_is_chosen_by_purpose() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |request| HttpResponse::json(200, vectors(request)));
    let options =
        EngineOptions { passage_prefix: "passage: ".into(), query_prefix: "query: ".into(), ..options(&server) };
    let engine = options.embedding()?;
    engine.embed(&["a".into()], Purpose::Passage, &call()).await.unwrap();
    engine.embed(&["a".into()], Purpose::Query, &call()).await.unwrap();
    let inputs: Vec<Value> = server.requests().iter().map(|request| request.json()["input"].clone()).collect();
    assert_eq!(inputs, [json!(["passage: a"]), json!(["query: a"])]);
    Ok(())
}

#[tokio::test]
async fn an_empty_text_is_named_before_anything_is_sent() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let texts = ["a", "b", "c", " \n\t"].map(str::to_owned);
    let error = embed(&options(&server), &texts).await.unwrap_err();
    assert_eq!((error.class(), error.to_string().as_str()), (ErrorClass::Permanent, "texts[3]: empty"));
    assert_eq!(server.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn the_text_that_the_server_refuses_is_found_and_named() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    for status in [400, 413, 422] {
        server.on("POST", PATH, move |request| {
            let refused = request.json()["input"].as_array().unwrap().contains(&json!("xxxxxx"));
            let error = json!({"error": {"code": "bad_input", "message": "xxxxxx"}});
            if refused { HttpResponse::json(status, error) } else { HttpResponse::json(200, vectors(request)) }
        });
        for batch_size in [1, 4, 32] {
            let options = EngineOptions { batch_size, ..options(&server) };
            let error = embed(&options, &texts(9)).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Permanent);
            let named = format!("texts[5]: POST {}: {status} ", server.url(PATH));
            assert!(error.to_string().starts_with(&named), "{error}");
            assert!(error.to_string().contains("(bad_input)"), "{error}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_batch_too_large_for_the_server_is_halved() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |request| match request.json()["input"].as_array().unwrap().len() {
        1 => HttpResponse::json(200, vectors(request)),
        _ => HttpResponse::status(413),
    });
    let answer = embed(&options(&server), &texts(3)).await.unwrap();
    assert_eq!(answer.vectors, [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]);
    // The whole, two and one of them, and the two.
    assert_eq!(server.requests().len(), 5);

    // What is no text's fault names none, and is tried in halves once.
    server.on("POST", PATH, |_| HttpResponse::status(500));
    let error = embed(&options(&server), &texts(3)).await.unwrap_err();
    assert!(error.class() == ErrorClass::Retryable && error.to_string().starts_with("POST"), "{error}");
    assert_eq!(server.requests().len(), 5 + 3);
    Ok(())
}

#[tokio::test]
async fn vectors_that_do_not_fit_their_texts_are_retried() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    for data in [
        json!([]),
        json!([{"index": 0, "embedding": [1]}]),
        json!([{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]),
        json!([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]),
        json!([{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]),
        json!([{"index": 0, "embedding": [1e39]}, {"index": 1, "embedding": [1]}]),
        json!([{"index": 0, "embedding": [null]}, {"index": 1, "embedding": [1]}]),
        json!([{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}]),
    ] {
        let sent = data.clone();
        server.on("POST", PATH, move |_| HttpResponse::json(200, json!({ "data": sent })));
        let error = embed(&options(&server), &texts(2)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Retryable, "{data}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn vectors_of_different_lengths_in_different_batches_are_retried() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |request| {
        let length = request.json()["input"][0].as_str().unwrap().len();
        HttpResponse::json(200, json!({"data": [{"index": 0, "embedding": vec![1.0; length]}]}))
    });
    let error = embed(&EngineOptions { batch_size: 1, ..options(&server) }, &texts(2)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retryable);
    assert!(error.to_string().ends_with("vectors of 1 and of 2 numbers"), "{error}");
    Ok(())
}

#[tokio::test]
async fn the_text_for_which_the_server_always_fails_is_found_among_many_and_named() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |request| {
        let fails = request.json()["input"].as_array().unwrap().contains(&json!("xxxxxx"));
        if fails { HttpResponse::status(500) } else { HttpResponse::json(200, vectors(request)) }
    });
    let error = embed(&options(&server), &texts(20)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Permanent);
    let named = format!("texts[5]: POST {}: 500 Internal Server Error; it answers for other texts", server.url(PATH));
    assert_eq!(error.to_string(), named);
    Ok(())
}

#[tokio::test]
async fn batches_that_are_done_are_not_paid_for_again() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |request| {
        let last = request.json()["input"].as_array().unwrap().contains(&json!("x".repeat(9)));
        if last {
            HttpResponse::status(429).header("retry-after", "1")
        } else {
            HttpResponse::json(200, vectors(request))
        }
    });
    let engine = EngineOptions { batch_size: 3, ..options(&server) }.embedding()?;
    let texts = texts(9);
    let wait = ErrorClass::RetryAfter(std::time::Duration::from_secs(1));
    let error = engine.embed(&texts, Purpose::Passage, &call()).await.unwrap_err();
    assert_eq!((error.class(), server.requests().len()), (wait, 3));
    server.on("POST", PATH, |request| HttpResponse::json(200, vectors(request)));
    let answer = engine.embed(&texts, Purpose::Passage, &call()).await.unwrap();
    assert_eq!((answer.vectors.len(), server.requests().len()), (9, 4));
    Ok(())
}

#[tokio::test]
async fn a_text_that_is_too_long_is_embedded_in_pieces_and_that_is_told() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |request| {
        let texts: Vec<String> = serde_json::from_value(request.json()["input"].clone()).unwrap();
        let too_long = texts.iter().any(|text| text.len() > 100);
        let error = json!({"error": "the input length exceeds the context length"});
        if too_long { HttpResponse::json(400, error) } else { HttpResponse::json(200, vectors(request)) }
    });
    let texts = ["short".to_owned(), "word ".repeat(60), "short too".to_owned()];
    let answer = embed(&options(&server), &texts).await.unwrap();
    assert_eq!((answer.vectors.len(), answer.pieces), (3, vec![(1, 4)]));
    assert_eq!(answer.vectors[0][0].to_bits(), 5.0_f32.to_bits());
    Ok(())
}
