//! No secret in anything that comes out of the worker, whatever goes wrong.

use jm_testkit::{FaultCourse, Subject};
use serde_json::json;

use crate::{EVENTS, QUEUE};

fn subject() -> Subject {
    Subject {
        program: env!("CARGO_BIN_EXE_embed-worker").into(),
        queue: QUEUE,
        kind: "embed.text",
        task: json!({ "texts": ["one", "two"] }),
        answers: EVENTS,
        engine: Some("/v1/embeddings"),
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
