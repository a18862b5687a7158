//! Engines behind the `OpenAI` API: vLLM, Ollama, `LocalAI`, a cloud.
//!
//! | engine | request |
//! |---|---|
//! | [`HttpChat`] | `POST {base_url}/chat/completions` |
//! | [`HttpEmbedding`] | `POST {base_url}/embeddings` |
//! | [`HttpTranscription`] | `POST {base_url}/audio/transcriptions`, `response_format=verbose_json` |
//! | [`HttpDiarization`] | `POST {base_url}/audio/transcriptions`, `response_format=diarized_json` |
//!
//! Requests are made of `async-openai`'s types. Answers are read by types of our own, with only the fields that are
//! used, none of which is needed if it can be done without: `async-openai`'s refuse answers without `usage`, `object`
//! or `created`, which some servers leave out.
//!
//! [`status::classify`] has the meaning of each status.

pub(crate) mod base_url;
mod chat;
pub(crate) mod client;
mod diarization;
mod embedding;
mod failure;
mod speech;
pub mod status;
mod tokens;
mod transcription;

pub use chat::HttpChat;
pub use diarization::HttpDiarization;
pub use embedding::HttpEmbedding;
pub use transcription::HttpTranscription;
