//! Embedding.
use jm_mq_core::OptionsError;
use jm_tasks::Purpose;

use crate::{
    call::Call,
    engine::{EmbeddingEngine, Embeddings, EngineFuture},
    options::EngineOptions,
};

/// To be written.
pub struct EmbeddedEmbedding {}
impl EmbeddedEmbedding {
    /// To be written.
    pub fn load(_options: &EngineOptions) -> Result<Self, OptionsError> {
        todo!()
    }
}
impl EmbeddingEngine for EmbeddedEmbedding {
    fn embed<'a>(&'a self, _texts: &'a [String], _purpose: Purpose, _call: &'a Call) -> EngineFuture<'a, Embeddings> {
        todo!()
    }
}
