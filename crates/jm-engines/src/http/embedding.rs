//! Vectors: `/embeddings`.

use async_openai::types::embeddings::{CreateEmbeddingRequest, EmbeddingInput};
use jm_mq_core::OptionsError;
use jm_tasks::Purpose;
use serde::Deserialize;

use super::client::{Client, Failure};
use crate::{
    call::Call,
    engine::{EmbeddingEngine, Embeddings, EngineFuture},
    error::{EngineError, ErrorClass},
    options::EngineOptions,
};

const PATH: &str = "embeddings";

/// An embedding model behind the `OpenAI` API.
///
/// Texts are sent in batches, one after the other. If a batch is refused, its texts are sent one by one: either one of
/// them is at fault, and the error names it (`texts[5]: …`), or the batch was too large, and all is well.
pub struct HttpEmbedding {
    client: Client,
    model: String,
    batch_size: usize,
    passage_prefix: String,
    query_prefix: String,
}

impl HttpEmbedding {
    /// Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// An option that is out of range.
    pub fn new(options: &EngineOptions) -> Result<Self, OptionsError> {
        Ok(Self {
            client: Client::new(options)?,
            model: options.model.clone(),
            batch_size: options.batch_size,
            passage_prefix: options.passage_prefix.clone(),
            query_prefix: options.query_prefix.clone(),
        })
    }

    async fn embed(&self, texts: &[String], purpose: Purpose, call: &Call) -> Result<Embeddings, EngineError> {
        if let Some(empty) = texts.iter().position(|text| text.trim().is_empty()) {
            return Err(EngineError::permanent("empty").of(format_args!("texts[{empty}]")));
        }
        let prefix = match purpose {
            Purpose::Passage => &self.passage_prefix,
            Purpose::Query => &self.query_prefix,
        };
        let mut all = Embeddings::default();
        for (number, batch) in texts.chunks(self.batch_size).enumerate() {
            let answer = match self.request(batch, prefix, call).await {
                Ok(answer) => answer,
                Err(Failure { status: Some(400 | 413 | 422), .. }) if batch.len() > 1 => {
                    self.one_by_one(batch, number * self.batch_size, prefix, call).await?
                }
                Err(failure) if batch.len() == 1 => return Err(named(failure.error, number * self.batch_size)),
                Err(failure) => return Err(failure.error),
            };
            if all.model.is_empty() {
                all.model = answer.model;
            }
            all.vectors.extend(answer.vectors);
        }
        let length = all.vectors.first().map_or(0, Vec::len);
        if let Some(other) = all.vectors.iter().find(|vector| vector.len() != length) {
            let lengths = format_args!("vectors of {length} and of {} numbers", other.len());
            return Err(self.client.unusable(PATH, lengths));
        }
        Ok(all)
    }

    async fn one_by_one(
        &self,
        texts: &[String],
        first: usize,
        prefix: &str,
        call: &Call,
    ) -> Result<Embeddings, EngineError> {
        let mut all = Embeddings::default();
        for (index, text) in texts.iter().enumerate() {
            let answer = self.request(std::slice::from_ref(text), prefix, call).await;
            let answer = answer.map_err(|failure| named(failure.error, first + index))?;
            all.model = answer.model;
            all.vectors.extend(answer.vectors);
        }
        Ok(all)
    }

    async fn request(&self, texts: &[String], prefix: &str, call: &Call) -> Result<Embeddings, Failure> {
        let request = CreateEmbeddingRequest {
            model: self.model.clone(),
            input: EmbeddingInput::StringArray(texts.iter().map(|text| format!("{prefix}{text}")).collect()),
            ..CreateEmbeddingRequest::default()
        };
        let secrets: Vec<&str> = texts.iter().map(String::as_str).collect();
        let answer: Answer = self.client.post_json(PATH, &request, &secrets, call).await?;
        let vectors = in_order(answer.data, texts.len())
            .map_err(|what| Failure { error: self.client.unusable(PATH, what), status: None })?;
        Ok(Embeddings {
            vectors,
            model: answer.model.filter(|model| !model.is_empty()).unwrap_or_else(|| self.model.clone()),
        })
    }
}

impl EmbeddingEngine for HttpEmbedding {
    fn embed<'a>(&'a self, texts: &'a [String], purpose: Purpose, call: &'a Call) -> EngineFuture<'a, Embeddings> {
        Box::pin(self.embed(texts, purpose, call))
    }
}

/// Names the text, if it is the text's fault.
fn named(error: EngineError, index: usize) -> EngineError {
    if error.class() == ErrorClass::Permanent { error.of(format_args!("texts[{index}]")) } else { error }
}

/// The vectors in the order of their texts, which is not always the answer's.
fn in_order(data: Vec<Item>, count: usize) -> Result<Vec<Vec<f32>>, String> {
    if data.len() != count {
        return Err(format!("{} vectors for {count} texts", data.len()));
    }
    // Servers that leave out the index answer in order.
    let counted = data.iter().all(|item| item.index.is_none());
    let mut vectors = vec![Vec::new(); count];
    for (position, item) in data.into_iter().enumerate() {
        let index = if counted { Some(position) } else { item.index };
        let index = index.ok_or("a vector without an index")?;
        if item.embedding.is_empty() {
            return Err(format!("an empty vector at index {index}"));
        }
        if !item.embedding.iter().all(|number| number.is_finite()) {
            return Err(format!("a vector at index {index} with a number that is not finite"));
        }
        let place = vectors.get_mut(index).ok_or_else(|| format!("index {index} for {count} texts"))?;
        if !place.is_empty() {
            return Err(format!("two vectors with index {index}"));
        }
        *place = item.embedding;
    }
    Ok(vectors)
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Vec<Item>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    index: Option<usize>,
    embedding: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(index: impl Into<Option<usize>>, embedding: &[f32]) -> Item {
        Item { index: index.into(), embedding: embedding.to_vec() }
    }

    #[test]
    fn vectors_come_in_the_order_of_their_texts_with_or_without_indexes() {
        let sorted = in_order(vec![item(1, &[2.0]), item(0, &[1.0])], 2).unwrap();
        assert_eq!(sorted, [[1.0], [2.0]]);
        assert_eq!(in_order(vec![item(None, &[2.0]), item(None, &[1.0])], 2).unwrap(), [[2.0], [1.0]]);
    }

    #[test]
    fn vectors_that_do_not_fit_their_texts_are_errors() {
        for (data, count, error) in [
            (vec![item(0, &[1.0])], 2, "1 vectors for 2 texts"),
            (vec![item(0, &[1.0]), item(0, &[1.0])], 2, "two vectors with index 0"),
            (vec![item(0, &[1.0]), item(2, &[1.0])], 2, "index 2 for 2 texts"),
            (vec![item(0, &[1.0]), item(None, &[1.0])], 2, "a vector without an index"),
            (vec![item(0, &[])], 1, "an empty vector at index 0"),
            (vec![item(0, &[f32::INFINITY])], 1, "a vector at index 0 with a number that is not finite"),
        ] {
            assert_eq!(in_order(data, count).unwrap_err(), error);
        }
    }
}
