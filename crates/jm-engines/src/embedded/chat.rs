//! Chat.
use jm_mq_core::OptionsError;

use crate::{
    call::Call,
    engine::{ChatEngine, ChatRequest, Completion, EngineFuture},
    options::EngineOptions,
};

/// To be written.
pub struct EmbeddedChat {}
impl EmbeddedChat {
    /// To be written.
    pub fn load(_options: &EngineOptions) -> Result<Self, OptionsError> {
        todo!()
    }
}
impl ChatEngine for EmbeddedChat {
    fn complete<'a>(&'a self, _request: &'a ChatRequest, _call: &'a Call) -> EngineFuture<'a, Completion> {
        todo!()
    }
    fn context_tokens(&self) -> usize {
        todo!()
    }
    fn max_output_tokens(&self) -> usize {
        todo!()
    }
    fn count_tokens(&self, _text: &str) -> usize {
        todo!()
    }
    fn languages(&self) -> &[String] {
        todo!()
    }
}
