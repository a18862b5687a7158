//! The work of `jm.embed`: texts become vectors, in their order.

use std::sync::Arc;

use jm_engines::{Call, EmbeddingEngine};
use jm_mq_core::{Answers, Context, Handler, HandlerError};
use jm_tasks::{Embed, Embedded, answer};

/// Turns texts into vectors. A text that cannot be embedded fails its task, permanently and by name: an answer with a
/// vector missing would look complete.
pub(crate) struct Embedder {
    pub(crate) engine: Arc<dyn EmbeddingEngine>,
}

impl Handler<Embed> for Embedder {
    async fn handle(&self, task: Embed, context: &Context) -> Result<Answers, HandlerError> {
        if task.texts.is_empty() {
            let text = format!("texts: 0; there have to be 1 to {}", Embed::MAX_TEXTS);
            return Err(HandlerError::permanent(text));
        }
        let embeddings = self.engine.embed(&task.texts, task.purpose, &Call::from(context)).await?;
        let dimensions = embeddings.vectors.first().map_or(0, Vec::len);
        if dimensions > Embedded::MAX_DIMENSIONS {
            let text = format!("vectors of {dimensions} numbers; at most {} are kept", Embedded::MAX_DIMENSIONS);
            return Err(HandlerError::permanent(text));
        }
        let event = Embedded {
            record_id: task.record_id,
            revision: task.revision,
            dimensions: u32::try_from(dimensions).unwrap_or(u32::MAX),
            vectors: embeddings.vectors,
            model: embeddings.model,
        };
        answer(context, event.record_id.as_ref(), &event)
    }
}
