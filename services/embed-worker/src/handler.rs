//! The work of `jm.embed`: texts become vectors, in their order.

use std::sync::Arc;

use jm_engines::{Call, EmbeddingEngine};
use jm_mq_core::{Answers, Context, Handler, HandlerError};
use jm_tasks::{Embed, Embedded, answer};

/// Texts in one task: as many as OpenAI's server takes in one call.
const MAX_TEXTS: usize = 2048;
/// The largest answer: RabbitMQ 4 takes messages of up to 16 MiB.
const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// Turns texts into vectors. A text that cannot be embedded fails its task, permanently and by name: an answer with a
/// vector missing would look complete.
pub(crate) struct Embedder {
    pub(crate) engine: Arc<dyn EmbeddingEngine>,
}

impl Handler<Embed> for Embedder {
    async fn handle(&self, task: Embed, context: &Context) -> Result<Answers, HandlerError> {
        if !(1..=MAX_TEXTS).contains(&task.texts.len()) {
            let text = format!("texts: {}; there have to be 1 to {MAX_TEXTS}", task.texts.len());
            return Err(HandlerError::permanent(text));
        }
        let embeddings = self.engine.embed(&task.texts, task.purpose, &Call::from(context)).await?;
        let dimensions = embeddings.vectors.first().map_or(0, Vec::len);
        let event = Embedded {
            record_id: task.record_id,
            revision: task.revision,
            dimensions: u32::try_from(dimensions).unwrap_or(u32::MAX),
            vectors: embeddings.vectors,
            model: embeddings.model,
        };
        let answers = answer(context, event.record_id.as_ref(), &event)?;
        let bytes = answers.messages().iter().map(|outgoing| outgoing.message().body().len()).max().unwrap_or_default();
        if bytes > MAX_EVENT_BYTES {
            let count = event.vectors.len();
            let text = format!(
                "texts: the vectors of {count} make {bytes} bytes, more than the {MAX_EVENT_BYTES} of a message"
            );
            return Err(HandlerError::permanent(text));
        }
        Ok(answers)
    }
}
