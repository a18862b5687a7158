//! No secret in anything that comes out of the worker, whatever goes wrong.

use jm_testkit::{FaultCourse, Subject};
use serde_json::json;

use crate::{EVENTS, QUEUE};

fn subject() -> Subject {
    Subject {
        program: env!("CARGO_BIN_EXE_asr-worker").into(),
        queue: QUEUE,
        kind: "asr.transcribe",
        task: json!({ "audio": { "url": "s3://notes/a.wav" } }),
        answers: EVENTS,
        engine: Some("/v1/audio/transcriptions"),
        fetches: true,
        settings: Vec::new(),
        secrets: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_broker_engine_or_store_brings_a_secret_to_light() {
    let search = FaultCourse::of(subject()).await.unwrap().run().await.unwrap();
    assert_eq!(search.leaks(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mistake_in_the_configuration_brings_a_secret_to_light() {
    let search = subject().mistakes().await.unwrap();
    assert_eq!(search.leaks(), []);
}
