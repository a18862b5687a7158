//! What an engine does, whoever does it.

use std::{pin::Pin, time::Duration};

use jm_tasks::{ChatMessage, Purpose, SpeakerTurn, TranscriptSegment};

use crate::{audio::Audio, call::Call, error::EngineError};

/// What an engine's methods return: a boxed future, so that engines can be chosen by configuration.
pub type EngineFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// Continues conversations.
pub trait ChatEngine: Send + Sync {
    /// Answers a conversation.
    fn complete<'a>(&'a self, request: &'a ChatRequest, call: &'a Call) -> EngineFuture<'a, Completion>;

    /// The model's name, as the configuration has it.
    fn model(&self) -> &str;

    /// How many tokens the model can read and write in one call.
    fn context_tokens(&self) -> usize;

    /// The most tokens it may write in one call.
    fn max_output_tokens(&self) -> usize;

    /// How many tokens a text takes: counted, or estimated on the safe side.
    fn count_tokens(&self, text: &str) -> usize;

    /// The languages it writes, as primary tags (`zh`). None: any, as far as is known.
    fn languages(&self) -> &[String];

    /// How it is asked for a summary, if it was trained with certain words; they replace the usual prompt.
    fn summary_prompt(&self) -> Option<&str> {
        None
    }
}

/// A conversation to be answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    /// The oldest message first.
    pub messages: Vec<ChatMessage>,
    /// The longest answer in tokens; at most the engine's own limit.
    pub max_tokens: Option<u32>,
    /// From 0 to 2; `None` is the model's own.
    pub temperature: Option<f32>,
}

/// A chat engine's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// Whether it was cut off: by the limit of tokens, or where the model went round in circles.
    pub truncated: bool,
    /// The model that answered.
    pub model: String,
    /// Tokens read, where the engine tells.
    pub prompt_tokens: Option<u64>,
    /// Tokens written, where the engine tells.
    pub completion_tokens: Option<u64>,
}

/// Writes down speech.
pub trait TranscriptionEngine: Send + Sync {
    /// Transcribes a recording that is no longer than [`max_piece`](Self::max_piece).
    fn transcribe<'a>(
        &'a self,
        audio: &'a Audio,
        hints: &'a TranscriptionHints,
        call: &'a Call,
    ) -> EngineFuture<'a, Transcription>;

    /// The longest recording it takes in one call.
    fn max_piece(&self) -> Duration;
}

/// What is known of a recording beforehand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TranscriptionHints {
    /// The language as a BCP 47 tag.
    pub language: Option<String>,
    /// Words that are likely to occur, or the text that came before.
    pub prompt: Option<String>,
}

/// A transcription engine's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcription {
    /// The whole text.
    pub text: String,
    /// The language, as the engine names it.
    pub language: Option<String>,
    /// The text in stretches, with times from the beginning of the recording that was given; without speakers.
    pub segments: Vec<TranscriptSegment>,
    /// The model that transcribed it.
    pub model: String,
}

/// Tells speakers apart.
pub trait DiarizationEngine: Send + Sync {
    /// Finds out who speaks when; `speakers` is their number, where it is known.
    fn diarize<'a>(&'a self, audio: &'a Audio, speakers: Option<u32>, call: &'a Call) -> EngineFuture<'a, Diarization>;
}

/// A diarization engine's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diarization {
    /// The turns, in order of their beginning.
    pub turns: Vec<SpeakerTurn>,
    /// The model that told them apart.
    pub model: String,
}

/// Turns texts into vectors.
pub trait EmbeddingEngine: Send + Sync {
    /// One vector for each text, in their order, all of the same length. An error about one of the texts names it.
    fn embed<'a>(&'a self, texts: &'a [String], purpose: Purpose, call: &'a Call) -> EngineFuture<'a, Embeddings>;
}

/// An embedding engine's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// As many as there were texts.
    pub vectors: Vec<Vec<f32>>,
    /// The model that made them.
    pub model: String,
    /// Texts that were too long for the model, by their place, and in how many pieces each was embedded. The vector is
    /// then the pieces' mean.
    pub pieces: Vec<(usize, usize)>,
}

impl Embeddings {
    /// Adds those of the texts that follow.
    pub(crate) fn append(&mut self, next: Self) {
        let first = self.vectors.len();
        if self.model.is_empty() {
            self.model = next.model;
        }
        self.vectors.extend(next.vectors);
        self.pieces.extend(next.pieces.into_iter().map(|(place, pieces)| (first + place, pieces)));
    }
}
