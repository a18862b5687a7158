//! The engines and the fetching of recordings, against servers that answer what a test tells them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say so at once")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod chat;
mod child;
mod corpus;
mod decoding;
mod embedding;
mod hostile;
mod recorded_answers;
mod refused;
mod sandbox;
mod sources;
mod speech;
mod transport;

use std::time::Duration;

use jm_engines::{Call, EngineOptions};
use jm_testkit::HttpServer;

/// The limit of a test's every wait.
const LIMIT: Duration = Duration::from_secs(20);

/// Options for a server of the test.
fn options(server: &HttpServer) -> EngineOptions {
    EngineOptions { base_url: server.url(""), model: "the-model".into(), timeout: LIMIT, ..EngineOptions::default() }
}

fn call() -> Call {
    Call::default()
}
