//! Engines behind the `OpenAI` API: vLLM, Ollama, `LocalAI`, a cloud.
//!
//! | engine | request |
//! |---|---|
//! | [`HttpChat`] | `POST {base_url}/chat/completions` |
//! | [`HttpEmbedding`] | `POST {base_url}/embeddings` |
//! | [`HttpTranscription`] | `POST {base_url}/audio/transcriptions`, `response_format=verbose_json` |
//! | [`HttpDiarization`] | `POST {base_url}/audio/transcriptions`, `response_format=diarized_json` |
//!
//! Answers are read by what is used of them, and none of it is needed if it can be done without.
//!
//! `dialect` knows in which words servers refuse, and what they really send.

pub(crate) mod base_url;
mod chat;
pub(crate) mod client;
pub(crate) mod dialect;
mod diarization;
mod embedding;
mod speech;
mod tokens;
mod transcription;

pub use chat::HttpChat;
pub use diarization::HttpDiarization;
pub use embedding::HttpEmbedding;
pub use transcription::HttpTranscription;
