//! Engines in this process, by candle: no server, no key, no GPU. Behind the feature `embedded`.
//!
//! | engine | model |
//! |---|---|
//! | [`EmbeddedChat`] | a GGUF file of the llama, qwen2 or qwen3 families |
//! | [`EmbeddedTranscription`] | Whisper, as `CTranslate2` writes it |
//! | [`EmbeddedDiarization`] | pyannote's segmentation, CAM++ voices, clustering |
//! | [`EmbeddedEmbedding`] | multilingual-e5-small in 4 bits |
//!
//! They compute on threads of their own, never on the async ones, `parallelism` calls at a time, and stop when nobody
//! waits for the answer any more.

mod chat;
mod compute;
mod diarization;
mod embedding;
mod model;
mod transcription;

pub use chat::EmbeddedChat;
pub use diarization::EmbeddedDiarization;
pub use embedding::EmbeddedEmbedding;
pub use transcription::EmbeddedTranscription;
