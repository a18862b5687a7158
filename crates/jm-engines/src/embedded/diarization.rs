//! Diarization.
use jm_mq_core::OptionsError;

use crate::{
    audio::Audio,
    call::Call,
    engine::{Diarization, DiarizationEngine, EngineFuture},
    options::EngineOptions,
};

/// To be written.
pub struct EmbeddedDiarization {}
impl EmbeddedDiarization {
    /// To be written.
    pub fn load(_options: &EngineOptions) -> Result<Self, OptionsError> {
        todo!()
    }
}
impl DiarizationEngine for EmbeddedDiarization {
    fn diarize<'a>(
        &'a self,
        _audio: &'a Audio,
        _speakers: Option<u32>,
        _call: &'a Call,
    ) -> EngineFuture<'a, Diarization> {
        todo!()
    }
}
