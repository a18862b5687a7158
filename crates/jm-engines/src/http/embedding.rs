//! Vectors: `/embeddings`.

use std::time::Duration;

use jm_mq_core::OptionsError;
use jm_tasks::Purpose;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    client::{self, Body, Client, Failure, Request},
    dialect::{json, profile::Known, refusal::Refusal},
    tokens,
};
use crate::{
    call::Call,
    engine::{EmbeddingEngine, Embeddings, EngineFuture},
    error::{EngineError, ErrorClass},
    finished::Finished,
    options::EngineOptions,
};

const PATH: &str = "embeddings";
/// A text is halved this often at most: into 64 pieces.
const MAX_HALVINGS: u32 = 6;
/// Shorter texts are not cut: it is not their length that is refused.
const LEAST_CUT_BYTES: usize = 64;
/// Batches whose vectors are kept for the next attempt at the same task: 8 MB of 32 vectors of 1024 numbers.
const KEPT_BATCHES: usize = 64;
/// How long they are kept: longer than the retries of a task take.
const KEPT_FOR: Duration = Duration::from_mins(10);

/// An embedding model behind the `OpenAI` API.
///
/// Texts are sent in batches, one after the other; the vectors of a finished batch are kept for a while, so that a task
/// that is run again does not pay for them twice. A batch that is refused is halved until it is known whether the server
/// takes fewer texts at once, which is remembered, or which text is at fault, and the error names it (`texts[5]: …`). A
/// text that is too long for the model is cut between words; its vector is the mean of its pieces', weighted by their
/// length, and [`Embeddings::pieces`] says so.
pub struct HttpEmbedding {
    client: Client,
    model: String,
    batch_size: usize,
    passage_prefix: String,
    query_prefix: String,
    finished: Finished<Embeddings>,
}

/// Texts of one task, ready to be sent.
#[derive(Clone, Copy)]
struct Batch<'a> {
    texts: &'a [String],
    /// The place of the first one in the task.
    first: usize,
    call: &'a Call,
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
            finished: Finished::new(KEPT_BATCHES, KEPT_FOR),
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
        while all.vectors.len() < texts.len() {
            let first = all.vectors.len();
            let size = self.client.profile().known().batch.map_or(self.batch_size, |batch| batch.min(self.batch_size));
            let batch = Batch { texts: &texts[first..texts.len().min(first + size)], first, call };
            // What is one batch has nothing that is done before the rest.
            let in_parts = texts.len() > size;
            all.append(if in_parts { self.kept_or_new(batch, prefix).await? } else { self.all(batch, prefix).await? });
        }
        let length = all.vectors.first().map_or(0, Vec::len);
        if let Some(other) = all.vectors.iter().find(|vector| vector.len() != length) {
            let lengths = format_args!("vectors of {length} and of {} numbers", other.len());
            return Err(self.client.unusable(PATH, lengths).error);
        }
        Ok(all)
    }

    async fn kept_or_new(&self, batch: Batch<'_>, prefix: &str) -> Result<Embeddings, EngineError> {
        let key = self.finished.key(&(prefix, batch.texts));
        if let Some(kept) = self.finished.get(key) {
            return Ok(kept);
        }
        let new = self.all(batch, prefix).await?;
        self.finished.keep(key, new.clone());
        Ok(new)
    }

    /// The vectors of a batch, whatever it takes: with places counted from its first text.
    async fn all(&self, batch: Batch<'_>, prefix: &str) -> Result<Embeddings, EngineError> {
        let failure = match self.request(batch, prefix).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        match failure.status {
            Some(400 | 413 | 422) if failure.error.class() == ErrorClass::Permanent => {
                self.in_smaller_ones(batch, prefix, failure).await
            }
            Some(500) => self.without_the_one_at_fault(batch, prefix, failure, false).await,
            _ => Err(failure.error),
        }
    }

    /// After a refusal: as many texts at once as the server's words allow, or half of them.
    async fn in_smaller_ones(
        &self,
        batch: Batch<'_>,
        prefix: &str,
        failure: Failure,
    ) -> Result<Embeddings, EngineError> {
        let count = batch.texts.len();
        if count == 1 {
            return self.in_pieces(batch, prefix, failure).await;
        }
        let told = failure.refusal.as_deref().and_then(Refusal::batch_limit).filter(|&limit| limit < count);
        let size = told.unwrap_or(count.div_ceil(2));
        let mut all = Embeddings::default();
        for (number, texts) in batch.texts.chunks(size).enumerate() {
            let chunk = Batch { texts, first: batch.first + number * size, ..batch };
            all.append(Box::pin(self.all(chunk, prefix)).await?);
        }
        // Every text is fine by itself, so it was their number.
        self.client.profile().takes_at_once(size, &self.client.server());
        Ok(all)
    }

    /// After a failure of the server: it may be one text's fault, such as one whose vector is not a number. If one half
    /// fails and the other does not, that is so, and the text is looked for. If both fail, nothing says so, unless it is known
    /// (`works`) that the server answers for other texts.
    async fn without_the_one_at_fault(
        &self,
        batch: Batch<'_>,
        prefix: &str,
        failure: Failure,
        works: bool,
    ) -> Result<Embeddings, EngineError> {
        let count = batch.texts.len();
        if count == 1 {
            if !works {
                return Err(failure.error);
            }
            return self.request(batch, prefix).await.map_err(|again| match again.status {
                Some(500) => {
                    EngineError::permanent(format!("{again}; it answers for other texts", again = again.error))
                        .of(format_args!("texts[{}]", batch.first))
                }
                _ => again.error,
            });
        }
        let (left, right) = batch.texts.split_at(count / 2);
        let halves = [Batch { texts: left, ..batch }, Batch { texts: right, first: batch.first + left.len(), ..batch }];
        let mut answers = Vec::with_capacity(halves.len());
        for half in halves {
            answers.push(self.request(half, prefix).await);
        }
        if !works && answers.iter().all(Result::is_err) {
            return Err(failure.error);
        }
        let mut all = Embeddings::default();
        for (half, answer) in halves.into_iter().zip(answers) {
            all.append(match answer {
                Ok(answer) => answer,
                Err(failure) if failure.status == Some(500) => {
                    Box::pin(self.without_the_one_at_fault(half, prefix, failure, true)).await?
                }
                Err(failure) => return Err(named(failure.error, half.first)),
            });
        }
        Ok(all)
    }

    /// One text that was refused: in pieces, if it may be too long.
    async fn in_pieces(&self, batch: Batch<'_>, prefix: &str, failure: Failure) -> Result<Embeddings, EngineError> {
        let error = named(failure.error.clone(), batch.first);
        if !failure.error.may_be_too_long() {
            return Err(error);
        }
        // A refusal without a word that is known is worth one try.
        let halvings = if failure.error.is_too_long() { MAX_HALVINGS } else { 1 };
        let mut pieces = Vec::new();
        match self.pieces(&batch.texts[0], prefix, halvings, batch, &mut pieces).await {
            Ok(model) => Ok(Embeddings {
                pieces: vec![(0, pieces.len())],
                vectors: vec![mean(&pieces).ok_or_else(|| error.clone())?],
                model,
            }),
            Err(other) if other.class() == ErrorClass::Permanent => Err(error),
            Err(other) => Err(other),
        }
    }

    /// The vectors of a text's pieces with their weights, and the model's name.
    async fn pieces(
        &self,
        text: &str,
        prefix: &str,
        halvings: u32,
        batch: Batch<'_>,
        into: &mut Vec<(f64, Vec<f32>)>,
    ) -> Result<String, EngineError> {
        let Some(middle) = middle(text).filter(|_| text.len() >= LEAST_CUT_BYTES && halvings > 0) else {
            return Err(EngineError::permanent("no piece of it is short enough"));
        };
        let mut model = String::new();
        for half in [&text[..middle], &text[middle..]] {
            let texts = [half.to_owned()];
            match self.request(Batch { texts: &texts, ..batch }, prefix).await {
                Ok(answer) => {
                    model = answer.model;
                    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 tokens")]
                    into.extend(answer.vectors.into_iter().map(|vector| (tokens::estimate(half) as f64, vector)));
                }
                Err(failure) if failure.error.is_too_long() => {
                    model = Box::pin(self.pieces(half, prefix, halvings - 1, batch, into)).await?;
                }
                Err(failure) => return Err(failure.error),
            }
        }
        Ok(model)
    }

    async fn request(&self, batch: Batch<'_>, prefix: &str) -> Result<Embeddings, Failure> {
        let input: Vec<String> = batch.texts.iter().map(|text| format!("{prefix}{text}")).collect();
        let texts: Vec<&str> = batch.texts.iter().map(String::as_str).collect();
        let sending = Request { path: PATH, optional: &[], texts: &texts, call: batch.call };
        let build = |_: &Known| {
            let fields = [("model", Value::from(self.model.clone())), ("input", json!(input))];
            let fields: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            Ok(Body::Json(fields))
        };
        let read = |answer: client::Answer| {
            let answer: Answer = self.client.parse(PATH, &answer.body)?;
            if answer.data.is_none()
                && let Some(failure) = self.client.error_inside(&sending, &json!({ "error": answer.error }))
            {
                return Err(failure);
            }
            let vectors = in_order(answer.data.unwrap_or_default(), texts.len())
                .map_err(|what| self.client.unusable(PATH, what))?;
            let model = json::text(Some(&answer.model)).unwrap_or_else(|| self.model.clone());
            Ok(Embeddings { vectors, model, pieces: Vec::new() })
        };
        self.client.post(&sending, build, read).await
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

/// The middle of a text, between words if there is a place within a quarter of it.
fn middle(text: &str) -> Option<usize> {
    let middle = text.floor_char_boundary(text.len() / 2);
    let from = text.floor_char_boundary(middle / 2);
    let between = text[from..middle].rfind(|c: char| c.is_whitespace() || "。！？，；、".contains(c));
    let cut =
        between.map_or(middle, |place| from + place + text[from + place..].chars().next().map_or(0, char::len_utf8));
    (!text[..cut].trim().is_empty() && !text[cut..].trim().is_empty()).then_some(cut)
}

/// The mean of vectors by their weights; of length 1 if they are. `None` if they differ in length.
fn mean(pieces: &[(f64, Vec<f32>)]) -> Option<Vec<f32>> {
    let length = pieces.first()?.1.len();
    if pieces.iter().any(|(_, vector)| vector.len() != length) {
        return None;
    }
    let total: f64 = pieces.iter().map(|(weight, _)| weight).sum();
    let mut mean = vec![0.0_f64; length];
    for (weight, vector) in pieces {
        for (sum, &number) in mean.iter_mut().zip(vector) {
            *sum += weight / total * f64::from(number);
        }
    }
    let norm = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|number| number * number).sum::<f64>().sqrt();
    let of_unit_length =
        pieces.iter().all(|(_, vector)| (norm(&mut vector.iter().map(|&number| f64::from(number))) - 1.0).abs() < 0.01);
    let scale = if of_unit_length { norm(&mut mean.iter().copied()).max(f64::MIN_POSITIVE) } else { 1.0 };
    #[expect(clippy::cast_possible_truncation, reason = "the numbers came as 32 bits")]
    Some(mean.into_iter().map(|number| (number / scale) as f32).collect())
}

/// The vectors in the order of their texts, which is not always the answer's. Indexes that count from another number, or are
/// missing, leave the answer's own order.
fn in_order(data: Vec<Item>, count: usize) -> Result<Vec<Vec<f32>>, String> {
    if data.len() != count {
        return Err(format!("{} vectors for {count} texts", data.len()));
    }
    for (index, item) in data.iter().enumerate() {
        if item.embedding.is_empty() {
            return Err(format!("an empty vector at index {index}"));
        }
        if !item.embedding.iter().all(|number| number.is_finite()) {
            return Err(format!("a vector at index {index} with a number that is not finite"));
        }
    }
    let given: Vec<Option<usize>> =
        data.iter().map(|item| json::count(Some(&item.index)).and_then(|index| usize::try_from(index).ok())).collect();
    let mut vectors: Vec<Vec<f32>> = data.into_iter().map(|item| item.embedding).collect();
    if let Some(places) = places(&given)? {
        let mut sorted = vec![Vec::new(); count];
        for (place, vector) in places.into_iter().zip(vectors) {
            sorted[place] = vector;
        }
        vectors = sorted;
    }
    Ok(vectors)
}

/// The place of each item; `None` if the items are in order already, as far as their indexes say anything.
fn places(given: &[Option<usize>]) -> Result<Option<Vec<usize>>, String> {
    let Some(all) = given.iter().copied().collect::<Option<Vec<usize>>>() else {
        // Those that are there have to agree with the order, or nobody knows where the others belong.
        let least = given.iter().enumerate().find_map(|(place, index)| (*index)?.checked_sub(place));
        let in_order =
            given.iter().enumerate().all(|(place, index)| index.is_none_or(|index| index.checked_sub(place) == least));
        return if in_order { Ok(None) } else { Err("a vector without an index, and others out of order".into()) };
    };
    let offset = all.iter().copied().min().unwrap_or_default();
    let mut seen = vec![false; all.len()];
    for index in &all {
        let place = index - offset;
        match seen.get_mut(place) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(format!("two vectors with index {index}")),
            None => return Err(format!("index {index} for {} texts", all.len())),
        }
    }
    Ok(Some(all.into_iter().map(|index| index - offset).collect()))
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Option<Vec<Item>>,
    #[serde(default)]
    model: Value,
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    index: Value,
    embedding: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(index: impl Into<Value>, embedding: &[f32]) -> Item {
        Item { index: index.into(), embedding: embedding.to_vec() }
    }

    #[test]
    fn vectors_come_in_the_order_of_their_texts_with_or_without_indexes() {
        let none = || Value::Null;
        for (data, order) in [
            (vec![item(1, &[2.0]), item(0, &[1.0])], [[1.0], [2.0]]),
            (vec![item(none(), &[2.0]), item(none(), &[1.0])], [[2.0], [1.0]]),
            (vec![item(0, &[1.0]), item(none(), &[2.0])], [[1.0], [2.0]]),
            (vec![item(none(), &[1.0]), item(1, &[2.0])], [[1.0], [2.0]]),
            (vec![item(8, &[2.0]), item(7, &[1.0])], [[1.0], [2.0]]),
            (vec![item("1", &[2.0]), item(0.0, &[1.0])], [[1.0], [2.0]]),
        ] {
            assert_eq!(in_order(data, 2).unwrap(), order);
        }
    }

    #[test]
    fn vectors_that_do_not_fit_their_texts_are_errors() {
        for (data, count, error) in [
            (vec![item(0, &[1.0])], 2, "1 vectors for 2 texts"),
            (vec![item(0, &[1.0]), item(0, &[1.0])], 2, "two vectors with index 0"),
            (vec![item(0, &[1.0]), item(2, &[1.0])], 2, "index 2 for 2 texts"),
            (
                vec![item(1, &[1.0]), item(0, &[1.0]), item(Value::Null, &[1.0])],
                3,
                "a vector without an index, and others out of order",
            ),
            (vec![item(0, &[])], 1, "an empty vector at index 0"),
            (vec![item(0, &[f32::INFINITY])], 1, "a vector at index 0 with a number that is not finite"),
        ] {
            assert_eq!(in_order(data, count).unwrap_err(), error);
        }
    }

    #[test]
    fn a_text_is_cut_between_words_or_where_there_are_none_between_characters() {
        assert_eq!(middle("one two three four"), Some(8));
        assert_eq!(middle("一二三四，五六七八九"), Some(15));
        assert_eq!(middle("一二三四"), Some(6));
        assert_eq!(middle("a"), None);
    }

    #[test]
    fn the_vector_of_a_text_in_pieces_is_their_mean_by_length_and_of_length_1_if_they_are() {
        assert_eq!(mean(&[(3.0, vec![4.0, 0.0]), (1.0, vec![0.0, 8.0])]).unwrap(), [3.0, 2.0]);
        let unit = mean(&[(1.0, vec![1.0, 0.0]), (1.0, vec![0.0, 1.0])]).unwrap();
        assert!(unit.iter().all(|number| (number - 0.5_f32.sqrt()).abs() < 1e-6), "{unit:?}");
        assert_eq!(mean(&[(1.0, vec![1.0]), (1.0, vec![1.0, 2.0])]), None);
    }
}
