//! Transcription.
use std::time::Duration;

use jm_mq_core::OptionsError;

use crate::{
    audio::Audio,
    call::Call,
    engine::{EngineFuture, Transcription, TranscriptionEngine, TranscriptionHints},
    options::EngineOptions,
};

/// To be written.
pub struct EmbeddedTranscription {}
impl EmbeddedTranscription {
    /// To be written.
    pub fn load(_options: &EngineOptions) -> Result<Self, OptionsError> {
        todo!()
    }
}
impl TranscriptionEngine for EmbeddedTranscription {
    fn transcribe<'a>(
        &'a self,
        _audio: &'a Audio,
        _hints: &'a TranscriptionHints,
        _call: &'a Call,
    ) -> EngineFuture<'a, Transcription> {
        todo!()
    }
    fn max_piece(&self) -> Duration {
        todo!()
    }
}
