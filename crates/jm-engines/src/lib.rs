//! The engines that do the slow work: one trait each for chat, transcription, diarization and embedding.
//!
//! ```text
//! AudioFetcher ──> Audio (16 kHz, mono) ──> TranscriptionEngine, DiarizationEngine
//!        text ──> ChatEngine, EmbeddingEngine
//! ```
//!
//! The implementations in [`http`] speak the OpenAI API's shapes to any server that does: vLLM, Ollama, `LocalAI`,
//! a cloud. Each call has a deadline and a limit for the answer's size; [`EngineError`] says whether another try makes
//! sense. No error and no log line contains a body, a key, or the signed part of an address.

pub mod audio;
mod call;
#[cfg(feature = "embedded")]
pub mod embedded;
mod engine;
mod error;
mod finished;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
mod options;
mod reasoning;

pub use call::Call;
pub use engine::{
    ChatEngine, ChatRequest, Completion, Diarization, DiarizationEngine, EmbeddingEngine, Embeddings, EngineFuture,
    Transcription, TranscriptionEngine, TranscriptionHints,
};
pub use error::{EngineError, ErrorClass};
pub use finished::Finished;
pub use options::{EngineKind, EngineOptions, RequestOptions};
