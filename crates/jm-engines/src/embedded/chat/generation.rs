//! Writing an answer, token by token.

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};

use super::{
    repetition::{PENALTY, Repetition},
    transformer::{Hidden, Memory, Transformer},
    vocabulary::Vocabulary,
};
use crate::{embedded::compute::Stop, error::EngineError};

/// Tokens read at once. More are not read faster, and keep a cancelled call at work for longer.
const CHUNK: usize = 128;
/// The same request is answered the same way.
const SEED: u64 = 0x6a6d_2d6d_7100_0001;
/// Of how many tokens one is chosen where chance has a say, and how likely these have to be together: as llama.cpp has
/// it. What is less likely makes no sense in a small model.
const TOP_TOKENS: usize = 40;
const TOP_SHARE: f64 = 0.95;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) tokens: usize,
    /// Whether it was cut off by the limit.
    pub(crate) truncated: bool,
}

/// Writes answers.
pub(crate) struct Writer<'a> {
    pub(crate) transformer: &'a Transformer,
    pub(crate) vocabulary: &'a Vocabulary,
    /// From 0, the likeliest token, to 2; `None` is 0.
    pub(crate) temperature: Option<f32>,
    /// The most tokens.
    pub(crate) limit: usize,
}

impl Writer<'_> {
    /// The answer to a prompt. It ends with a token that ends it, at the limit, or where it goes round in circles.
    pub(crate) fn write(&self, prompt: &[u32], stop: &Stop) -> Result<Answer, EngineError> {
        let mut memory = self.transformer.memory();
        let mut last = self.read(prompt, &mut memory, stop)?;
        let mut chooser = LogitsProcessor::from_sampling(SEED, self.sampling());
        let mut written = Repetition::new();
        let mut blank = true;
        while written.tokens().len() < self.limit {
            stop.check()?;
            let logits = self.logits(&last, &written, blank)?;
            let token = chooser.sample(&logits)?;
            if self.vocabulary.ends().contains(&token) {
                return Ok(self.answer(written.tokens(), false));
            }
            if let Some(end) = written.push(token) {
                tracing::debug!(tokens = written.tokens().len(), end, "the model went round in circles");
                let mut answer = self.answer(&written.tokens()[..end], true);
                answer.text.truncate(whole_sentences(&answer.text).len());
                answer.tokens = written.tokens().len();
                return Ok(answer);
            }
            blank = blank && self.vocabulary.decode(written.tokens()).trim().is_empty();
            last = self.transformer.read(&[token], &mut memory, stop)?;
        }
        Ok(self.answer(written.tokens(), true))
    }

    fn read(&self, prompt: &[u32], memory: &mut Memory, stop: &Stop) -> Result<Hidden, EngineError> {
        let mut last = None;
        for tokens in prompt.chunks(CHUNK) {
            last = Some(self.transformer.read(tokens, memory, stop)?);
        }
        last.ok_or_else(|| EngineError::permanent("messages: nothing in them is a token"))
    }

    /// How likely each token is: less so if it was written just now, and not the end as long as there is no answer.
    pub(crate) fn logits(&self, last: &Hidden, written: &Repetition, blank: bool) -> Result<Tensor, EngineError> {
        let mut logits = self.transformer.logits(last)?.to_vec1::<f32>()?;
        let mut lower = |token: u32, change: fn(f32) -> f32| {
            if let Some(logit) = usize::try_from(token).ok().and_then(|index| logits.get_mut(index)) {
                *logit = change(*logit);
            }
        };
        for token in written.penalised() {
            lower(token, |logit| if logit > 0.0 { logit / PENALTY } else { logit * PENALTY });
        }
        if blank {
            self.vocabulary.ends().iter().for_each(|&token| lower(token, |_| f32::NEG_INFINITY));
        }
        Ok(Tensor::new(logits, &Device::Cpu)?)
    }

    fn sampling(&self) -> Sampling {
        match self.temperature.map(f64::from) {
            Some(temperature) if temperature > f64::EPSILON => {
                Sampling::TopKThenTopP { k: TOP_TOKENS, p: TOP_SHARE, temperature }
            }
            _ => Sampling::ArgMax,
        }
    }

    fn answer(&self, tokens: &[u32], truncated: bool) -> Answer {
        Answer { text: self.vocabulary.decode(tokens), tokens: tokens.len(), truncated }
    }
}

/// A text up to the end of its last sentence or line; all of it if none of them ends in it.
fn whole_sentences(text: &str) -> &str {
    let ends = |(index, letter): (usize, char)| {
        let end = index + letter.len_utf8();
        // A full stop in the midst of a word or a number is none.
        let full_stop = || text[end..].chars().next().is_none_or(char::is_whitespace);
        (matches!(letter, '。' | '！' | '？' | '\n') || (matches!(letter, '.' | '!' | '?') && full_stop()))
            .then_some(end)
    };
    text.char_indices().rev().find_map(ends).map_or(text, |end| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_went_round_in_circles_ends_with_a_sentence() {
        for (text, whole) in [
            ("We met. Ada tells the customers. We", "We met. Ada tells the customers."),
            ("Pi is 3.14 and a little", "Pi is 3.14 and a little"),
            ("我们开会。我们", "我们开会。"),
            ("- one\n- two\n- o", "- one\n- two\n"),
            ("la la", "la la"),
            ("Done!", "Done!"),
            ("", ""),
        ] {
            assert_eq!(whole_sentences(text), whole);
        }
    }
}
