//! The work of `jm.embed`: texts become vectors, in their order.

use std::sync::Arc;

use jm_engines::{Call, EmbeddingEngine};
use jm_mq_core::{Answers, Context, Handler, HandlerError};
use jm_tasks::{Embed, Embedded, SplitText, answer};

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
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let split =
            embeddings.pieces.iter().map(|&(index, pieces)| SplitText { index: number(index), pieces: number(pieces) });
        let mut event = Embedded {
            record_id: task.record_id,
            revision: task.revision,
            dimensions: number(dimensions),
            split: split.collect(),
            vectors: embeddings.vectors,
            model: embeddings.model,
        };
        if let Ok(answers) = answer(context, event.record_id.as_ref(), &event) {
            return Ok(answers);
        }
        // Many long vectors, with all their digits, are more than a message holds.
        event.vectors.iter_mut().flatten().for_each(|number| *number = rounded(*number));
        answer(context, event.record_id.as_ref(), &event).map_err(|error| {
            let texts = event.vectors.len();
            HandlerError::permanent(format!(
                "the vectors of {texts} texts are too many for one event ({error}); send fewer texts, or set \
                 engine.request.body.dimensions"
            ))
        })
    }
}

/// The number with as many digits as vectors need: four change no ranking, and take two thirds of the room of all.
fn rounded(number: f32) -> f32 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_digits_of_a_number_are_kept() {
        for (number, kept) in [(0.012_345_678, 0.012_35), (-1.234_567, -1.235), (0.0, 0.0), (1e-9, 1e-9)] {
            assert_eq!(rounded(number).to_bits(), f32::to_bits(kept), "{number}");
        }
    }
}
