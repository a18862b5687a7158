use std::time::Duration;

use jm_testkit::{HttpResponse, OpenAiServer};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::http::client;

async fn post(server: &OpenAiServer, path: &str, body: Value) -> (u16, Value) {
    let request = client().post(format!("{}{path}", server.base_url())).json(&body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A WAV file with 16 bits, mono, 8 kHz, of `length`.
fn wav(length: Duration) -> Vec<u8> {
    let samples = u32::try_from(length.as_millis() * 8).unwrap();
    let mut file = b"RIFF".to_vec();
    file.extend((36 + samples * 2).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(8_000_u32.to_le_bytes());
    file.extend(16_000_u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend((samples * 2).to_le_bytes());
    file.resize(44 + samples as usize * 2, 0);
    file
}

async fn transcribe(server: &OpenAiServer, sound: Vec<u8>, format: &str) -> (u16, Value) {
    let form = Form::new().text("model", "whisper-1").text("response_format", format.to_owned());
    let form = form.part("file", Part::bytes(sound).file_name("note.wav"));
    let request = client().post(format!("{}/audio/transcriptions", server.base_url())).multipart(form);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_chat_is_answered_with_what_its_last_user_message_was() {
    let server = OpenAiServer::start().await.unwrap();
    let long = format!("Grüße aus dem {}", "x".repeat(60));
    let messages = json!([
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "one two three"},
        {"role": "assistant", "content": "four"},
        {"role": "user", "content": [{"type": "text", "text": long}]},
        {"role": "assistant", "content": "five"},
    ]);
    let asked = json!({"model": "some-model", "messages": messages, "max_tokens": 8});
    let (status, answer) = post(&server, "/chat/completions", asked.clone()).await;
    assert_eq!(status, 200);
    let content = format!("summary of 74 characters: Grüße aus dem {}", "x".repeat(26));
    assert_eq!(
        answer["choices"][0]["message"],
        json!({
            "role": "assistant", "content": content, "refusal": null, "annotations": [],
        })
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("some-model")));
    assert_eq!(answer["choices"][0]["index"], 0);
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-") && answer["created"].is_u64());
    let usage = &answer["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(11), &json!(8)));
    assert_eq!(usage["total_tokens"], 19);
    // The same again, byte for byte.
    assert_eq!(post(&server, "/chat/completions", asked).await.1, answer);
}

#[tokio::test]
async fn a_chat_with_fewer_tokens_than_words_is_cut_and_says_so() {
    let server = OpenAiServer::start().await.unwrap();
    for limit in ["max_tokens", "max_completion_tokens"] {
        let messages = json!([{"role": "user", "content": "one two"}]);
        let (_, answer) =
            post(&server, "/chat/completions", json!({"model": "m", "messages": messages, limit: 5})).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "summary of 7 characters: one");
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["usage"]["completion_tokens"], 5);
    }
}

#[tokio::test]
async fn vectors_are_of_length_one_told_apart_and_in_reversed_order() {
    let server = OpenAiServer::start().await.unwrap();
    let asked = json!({"model": "e", "input": ["one", "two words", "one"], "encoding_format": "float"});
    let (status, answer) = post(&server, "/embeddings", asked).await;
    assert_eq!((status, &answer["object"], &answer["model"]), (200, &json!("list"), &json!("e")));
    assert_eq!(answer["usage"], json!({"prompt_tokens": 4, "total_tokens": 4}));
    let data = answer["data"].as_array().unwrap();
    let order: Vec<_> = data.iter().map(|vector| vector["index"].as_u64().unwrap()).collect();
    assert_eq!(order, [2, 1, 0]);
    let read = |at: usize| serde_json::from_value::<Vec<f32>>(data[at]["embedding"].clone()).unwrap();
    assert_eq!((read(0), read(1)), (OpenAiServer::vector("one"), OpenAiServer::vector("two words")));
    assert_eq!(read(0), read(2));
    assert_ne!(read(0), read(1));
    for vector in [read(0), read(1)] {
        assert_eq!(vector.len(), 8);
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    let (_, answer) = post(&server, "/embeddings", json!({"model": "e", "input": "one", "dimensions": 3})).await;
    assert_eq!(answer["data"][0]["embedding"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_recording_has_a_segment_for_each_started_ten_seconds() {
    let server = OpenAiServer::start().await.unwrap();
    let (status, answer) = transcribe(&server, wav(Duration::from_millis(20_500)), "verbose_json").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["language"], &answer["duration"]), (&json!("english"), &json!(20.5)));
    assert_eq!((&answer["task"], &answer["text"]), (&json!("transcribe"), &json!("second 0 second 10 second 20")));
    let segments = answer["segments"].as_array().unwrap();
    let told: Vec<_> = segments.iter().map(|s| json!([s["id"], s["start"], s["end"], s["text"]])).collect();
    let wanted =
        [json!([0, 0.0, 10.0, "second 0"]), json!([1, 10.0, 20.0, "second 10"]), json!([2, 20.0, 20.5, "second 20"])];
    assert_eq!(told, wanted);
    for field in ["seek", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob"] {
        assert!(!segments[0][field].is_null(), "{field}");
    }
    // Ten seconds are one segment, none are none.
    let (_, answer) = transcribe(&server, wav(Duration::from_secs(10)), "verbose_json").await;
    assert_eq!(answer["segments"].as_array().unwrap().len(), 1);
    let (_, answer) = transcribe(&server, wav(Duration::ZERO), "verbose_json").await;
    assert_eq!((&answer["segments"], &answer["text"]), (&json!([]), &json!("")));
    let (_, answer) = transcribe(&server, wav(Duration::from_secs(11)), "json").await;
    assert_eq!(answer["text"], "second 0 second 10");
}

#[tokio::test]
async fn two_speakers_take_turns_every_five_seconds() {
    let server = OpenAiServer::start().await.unwrap();
    let (status, answer) = transcribe(&server, wav(Duration::from_secs(12)), "diarized_json").await;
    assert_eq!((status, &answer["duration"]), (200, &json!(12.0)));
    let segments = answer["segments"].as_array().unwrap();
    let told: Vec<_> = segments.iter().map(|s| json!([s["speaker"], s["start"], s["end"], s["text"]])).collect();
    let wanted = [
        json!(["A", 0.0, 5.0, "second 0"]),
        json!(["B", 5.0, 10.0, "second 5"]),
        json!(["A", 10.0, 12.0, "second 10"]),
    ];
    assert_eq!(told, wanted);
    assert_eq!((&segments[1]["id"], &segments[1]["type"]), (&json!("seg_001"), &json!("transcript.text.segment")));
}

#[tokio::test]
async fn a_request_that_is_wrong_gets_an_error_that_names_the_parameter_and_quotes_nothing() {
    let server = OpenAiServer::start().await.unwrap();
    let user = json!([{"role": "user", "content": "canary"}]);
    for (path, body, param) in [
        ("/chat/completions", json!("canary"), json!(null)),
        ("/chat/completions", json!({"messages": user}), json!("model")),
        ("/chat/completions", json!({"model": "m", "messages": []}), json!("messages")),
        ("/chat/completions", json!({"model": "m", "messages": [{"role": "user"}]}), json!("messages")),
        ("/chat/completions", json!({"model": "m", "messages": user, "stream": true}), json!("stream")),
        ("/embeddings", json!({"input": "canary"}), json!("model")),
        ("/embeddings", json!({"model": "m"}), json!("input")),
        ("/embeddings", json!({"model": "m", "input": []}), json!("input")),
        ("/embeddings", json!({"model": "m", "input": ["canary", ""]}), json!("input")),
        ("/embeddings", json!({"model": "m", "input": vec!["canary"; 2049]}), json!("input")),
        (
            "/embeddings",
            json!({"model": "m", "input": "canary", "encoding_format": "base64"}),
            json!("encoding_format"),
        ),
        ("/embeddings", json!({"model": "m", "input": "canary", "dimensions": 0}), json!("dimensions")),
    ] {
        let (status, answer) = post(&server, path, body.clone()).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &param), "{body}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
        assert!(answer["error"]["message"].is_string() && !answer.to_string().contains("canary"), "{answer}");
    }
    let mut headless = wav(Duration::from_secs(1));
    headless[8] = b'w';
    for sound in [b"canary".to_vec(), Vec::new(), headless] {
        let (status, answer) = transcribe(&server, sound, "verbose_json").await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("file")));
    }
    let (status, answer) = transcribe(&server, wav(Duration::from_secs(1)), "srt").await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("response_format")));
}

#[tokio::test]
async fn a_header_that_announces_more_than_follows_is_not_believed() {
    let server = OpenAiServer::start().await.unwrap();
    let mut sound = wav(Duration::from_secs(3));
    sound[40..44].copy_from_slice(&0x7fff_fff0_u32.to_le_bytes());
    let (_, answer) = transcribe(&server, sound, "verbose_json").await;
    assert_eq!(answer["duration"], 3.0);
}

#[tokio::test]
async fn a_key_is_demanded_and_a_route_can_be_replaced() {
    let server = OpenAiServer::start_with_key("sk-right").await.unwrap();
    let url = format!("{}/embeddings", server.base_url());
    let body = json!({"model": "m", "input": "one"});
    let client = client();
    let send = async |key: Option<&str>| {
        let request = client.post(&url).json(&body);
        let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for key in [None, Some("sk-wrong"), Some("")] {
        let (status, text) = send(key).await;
        assert_eq!(status, 401);
        assert!(text.contains("invalid_api_key") && !text.contains("sk-"), "{text}");
    }
    assert_eq!(send(Some("sk-right")).await.0, 200);
    server.http().on("POST", "/v1/embeddings", |_| HttpResponse::status(503));
    assert_eq!(send(None).await.0, 503);
    assert_eq!(server.http().requests().len(), 5);
    assert!(!format!("{server:?}").contains("sk-"));
}
