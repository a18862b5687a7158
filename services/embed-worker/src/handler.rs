//! The work of `jm.embed`: texts become vectors, in their order.

use std::sync::Arc;

use jm_engines::{Call, EmbeddingEngine};
use jm_mq_core::{Answers, Context, Handler, HandlerError};
use jm_tasks::{Embed, Embedded, SplitText, answer};

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
        let mut answers = answer(context, event.record_id.as_ref(), &event)?;
        if largest(&answers) > MAX_EVENT_BYTES {
            event.vectors.iter_mut().flatten().for_each(|number| *number = rounded(*number));
            answers = answer(context, event.record_id.as_ref(), &event)?;
        }
        let bytes = largest(&answers);
        if bytes > MAX_EVENT_BYTES {
            let count = event.vectors.len();
            let text = format!(
                "texts: the vectors of {count} make {bytes} bytes, more than the {MAX_EVENT_BYTES} of a message; send fewer \
                 texts, or set engine.request.body.dimensions"
            );
            return Err(HandlerError::permanent(text));
        }
        Ok(answers)
    }
}

/// The bytes of the largest message.
fn largest(answers: &Answers) -> usize {
    answers.messages().iter().map(|outgoing| outgoing.message().body().len()).max().unwrap_or_default()
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
