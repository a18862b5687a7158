//! No secret in anything that comes out of the worker, whatever goes wrong.

use jm_testkit::{FaultCourse, Subject};
use serde_json::json;

use crate::{EVENTS, QUEUE};

fn subject() -> Subject {
    Subject {
        program: env!("CARGO_BIN_EXE_llm-worker").into(),
        queue: QUEUE,
        kind: "llm.chat",
        task: json!({ "messages": [{ "role": "user", "content": "What is AMQP?" }] }),
        answers: EVENTS,
        engine: Some("/v1/chat/completions"),
        fetches: false,
        settings: Vec::new(),
        secrets: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_broker_or_engine_brings_a_secret_to_light() {
    let search = FaultCourse::of(subject()).await.unwrap().run().await.unwrap();
    assert_eq!(search.leaks(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mistake_in_the_configuration_brings_a_secret_to_light() {
    let search = subject().mistakes().await.unwrap();
    assert_eq!(search.leaks(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_failure_of_tls_brings_the_password_or_a_private_key_to_light() {
    let search = subject().tls_failures().await.unwrap();
    assert_eq!(search.leaks(), []);
}
