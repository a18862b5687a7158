//! What a child process is told, and what it answers.

use serde::{Deserialize, Serialize};

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Core,
    Plain,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// Takes `messages` from the queue, `workers` × `prefetch`.
    Consume,
    /// Publishes `messages`, each confirmed, many under way.
    Publish,
    /// Publishes `messages`, each confirmed before the next.
    PublishOne,
    /// Publishes `messages`, each on a channel of its own, unconfirmed. Plain only: what the product's services do.
    PublishChannelEach,
    /// Publishes `messages` at `rate` and consumes them.
    Latency,
    /// Consumes until its input ends, and tells each message. Core only: the plain loop does not reconnect.
    Reconnect,
}

/// One run of one side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) side: Side,
    pub(crate) work: Work,
    pub(crate) uri: String,
    pub(crate) queue: String,
    pub(crate) messages: u64,
    pub(crate) body_size: u32,
    pub(crate) workers: u16,
    pub(crate) prefetch: u16,
    /// Message types with a handler each, whose bodies are read as JSON; with 0 bodies are taken as they are.
    pub(crate) types: u16,
    /// Messages a second, for latency.
    pub(crate) rate: u32,
    /// The plain side's messages carry no id, no time and no application.
    pub(crate) bare: bool,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// From the first message to the last.
    pub(crate) seconds: f64,
    /// User and system time from before the work's connection to after its end.
    pub(crate) cpu_seconds: f64,
    /// The process's peak resident memory.
    pub(crate) peak_kib: u64,
    /// Latencies only.
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
}

/// The `type` property of the nth message type.
pub(crate) fn type_name(n: u16) -> String {
    format!("bench.{n}")
}
