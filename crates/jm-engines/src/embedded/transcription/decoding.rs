//! The text of one window: the likeliest token after the other, and if that goes wrong, another try with more chance.

use std::collections::HashSet;

use miniz_oxide::deflate::compress_to_vec_zlib;

use super::{
    constraints::{constrain, log_sum_exp},
    decoder::{Context, MAX_TOKENS},
    vocabulary::Vocabulary,
};
use crate::{embedded::compute::Stop, error::EngineError};

/// How much chance the tries have that follow the first one, in which the likeliest token is taken.
const TEMPERATURES: [f32; 5] = [0.2, 0.4, 0.6, 0.8, 1.0];
/// A text that zlib makes smaller than by this factor repeats itself: Whisper is in a loop.
const MAX_COMPRESSION: f64 = 2.4;
/// zlib's own default, for which the factor was found.
const COMPRESSION_LEVEL: u8 = 6;
/// Tokens of a stretch that is hardly said twice in half a minute: six words or so.
const SENTENCE: usize = 8;
/// With more chance than this, a text without an echo is worse than one with it.
const MAX_ECHO_TEMPERATURE: f32 = 0.4;
/// A text whose tokens have a lower mean logarithm of their likelihood is guessed.
const MIN_LOG_LIKELIHOOD: f32 = -1.0;
/// The same for a brief text where nobody may be speaking: `you` and `Thank you.` are what Whisper makes of noise.
const MIN_LOG_LIKELIHOOD_BRIEF: f32 = -0.5;
/// Tokens of a brief text, with its times.
const BRIEF: usize = 10;
/// From this likelihood of no speech on, a guessed text is taken for none.
const MAX_NO_SPEECH: f32 = 0.6;
/// The prompt and its sign have at most half of the tokens, and so has the text.
const HALF: usize = MAX_TOKENS / 2;

/// What was made of one window.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decoded {
    /// Text and times, without the end.
    pub(super) tokens: Vec<u32>,
    /// The mean over the tokens and the end.
    pub(super) log_likelihood: f32,
    /// How likely it is that nobody speaks in the window.
    pub(super) no_speech: f32,
    /// The chance it took.
    pub(super) temperature: f32,
    pub(super) flaw: Flaw,
}

/// What is wrong with a text, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flaw {
    Nothing,
    /// A sentence is in it twice. Whisper tends to that where it is unsure of the times; people do it, too.
    Echo,
    /// It is guessed.
    Guess,
    /// It goes round in a circle.
    Loop,
}

impl Decoded {
    /// Whether the text is only what Whisper writes when nobody speaks.
    pub(super) fn is_silence(&self) -> bool {
        let brief = self.tokens.len() <= BRIEF;
        let least = if brief { MIN_LOG_LIKELIHOOD_BRIEF } else { MIN_LOG_LIKELIHOOD };
        self.no_speech > MAX_NO_SPEECH && self.log_likelihood < least
    }
}

/// What Whisper was told before the text, and what it made of it.
pub(super) struct Beginning {
    /// In tokens.
    length: usize,
    /// Of the first token.
    logits: Vec<f32>,
    no_speech: f32,
}

/// Decodes the windows of one recording.
pub(super) struct Decoding<'a> {
    pub(super) vocabulary: &'a Vocabulary,
    /// Seeded alike for every recording, so that a recording has the same text each time.
    pub(super) random: fastrand::Rng,
    pub(super) stop: &'a Stop,
}

impl Decoding<'_> {
    /// The language that is spoken, as its token, and how likely it is among all languages.
    pub(super) fn language(&self, context: &mut Context<'_>) -> Result<(u32, f32), EngineError> {
        context.forget_from(0);
        let features = context.write(&[self.vocabulary.start])?;
        let logits = context.logits(&features, 0)?;
        let languages = &self.vocabulary.languages;
        let of_languages: Vec<f32> = languages.iter().map(|&(_, id)| logits[id as usize]).collect();
        let best = likeliest(&of_languages) as usize;
        Ok((languages[best].1, (of_languages[best] - log_sum_exp(&of_languages)).exp()))
    }

    /// The window's text in this language; the prompt's end is what Whisper is told of the text before.
    pub(super) fn window(
        &mut self,
        context: &mut Context<'_>,
        language: u32,
        prompt: &[u32],
    ) -> Result<Decoded, EngineError> {
        let beginning = self.begin(context, language, prompt)?;
        let mut best = self.attempt(context, &beginning, 0.0)?;
        for temperature in TEMPERATURES {
            let heard_twice = best.flaw == Flaw::Echo && temperature > MAX_ECHO_TEMPERATURE;
            if best.is_silence() || best.flaw == Flaw::Nothing || heard_twice {
                return Ok(best);
            }
            let next = self.attempt(context, &beginning, temperature)?;
            if next.is_silence() || (next.flaw, -next.log_likelihood) < (best.flaw, -best.log_likelihood) {
                best = next;
            }
        }
        // The best of a bad lot: the next window should not lean on it.
        let [.., last] = TEMPERATURES;
        Ok(Decoded { temperature: last, ..best })
    }

    /// Writes what comes before the text.
    pub(super) fn begin(
        &self,
        context: &mut Context<'_>,
        language: u32,
        prompt: &[u32],
    ) -> Result<Beginning, EngineError> {
        context.forget_from(0);
        let vocabulary = self.vocabulary;
        let mut told = Vec::new();
        if !prompt.is_empty() {
            told.push(vocabulary.previous);
            told.extend(&prompt[prompt.len().saturating_sub(HALF - 1)..]);
        }
        let start = told.len();
        told.extend([vocabulary.start, language, vocabulary.transcribe]);
        let features = context.write(&told)?;
        self.stop.check()?;
        let at_start = context.logits(&features, start)?;
        Ok(Beginning {
            length: told.len(),
            logits: context.logits(&features, told.len() - 1)?,
            no_speech: (at_start[vocabulary.no_speech as usize] - log_sum_exp(&at_start)).exp(),
        })
    }

    /// One try.
    pub(super) fn attempt(
        &mut self,
        context: &mut Context<'_>,
        beginning: &Beginning,
        temperature: f32,
    ) -> Result<Decoded, EngineError> {
        context.forget_from(beginning.length);
        let most = HALF.min(MAX_TOKENS - beginning.length);
        let mut logits = beginning.logits.clone();
        let mut tokens = Vec::new();
        let mut sum = 0.0;
        loop {
            constrain(&mut logits, &tokens, self.vocabulary);
            let token = self.choose(&logits, temperature);
            sum += logits[token as usize] - log_sum_exp(&logits);
            if token == self.vocabulary.end {
                break;
            }
            tokens.push(token);
            if tokens.len() >= most {
                break;
            }
            self.stop.check()?;
            let features = context.write(&[token])?;
            logits = context.logits(&features, 0)?;
        }
        let log_likelihood = sum / count(tokens.len() + 1);
        let flaw = self.flaw(&tokens, log_likelihood)?;
        Ok(Decoded { tokens, log_likelihood, no_speech: beginning.no_speech, temperature, flaw })
    }

    fn flaw(&self, tokens: &[u32], log_likelihood: f32) -> Result<Flaw, EngineError> {
        if compression(self.vocabulary.decode(tokens)?.trim()) > MAX_COMPRESSION {
            return Ok(Flaw::Loop);
        }
        if log_likelihood < MIN_LOG_LIKELIHOOD {
            return Ok(Flaw::Guess);
        }
        let mut said = HashSet::new();
        let mut sentences =
            tokens.split(|&token| self.vocabulary.time(token).is_some()).filter(|stretch| stretch.len() >= SENTENCE);
        Ok(if sentences.all(|sentence| said.insert(sentence)) { Flaw::Nothing } else { Flaw::Echo })
    }

    /// The likeliest token, or, with some chance, one of the likelier ones.
    fn choose(&mut self, logits: &[f32], temperature: f32) -> u32 {
        if temperature == 0.0 {
            return likeliest(logits);
        }
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shares: Vec<f32> = logits.iter().map(|logit| ((logit - most) / temperature).exp()).collect();
        let mut left = self.random.f32() * shares.iter().sum::<f32>();
        let chosen = (0..).zip(&shares).find(|(_, share)| {
            left -= **share;
            left < 0.0
        });
        chosen.map_or_else(|| likeliest(logits), |(token, _)| token)
    }
}

fn likeliest(logits: &[f32]) -> u32 {
    let best = (0..).zip(logits).max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(0, |(token, _)| token)
}

/// How many times smaller zlib makes a text.
#[expect(clippy::cast_precision_loss, reason = "a text has some hundred bytes")]
fn compression(text: &str) -> f64 {
    text.len() as f64 / compress_to_vec_zlib(text.as_bytes(), COMPRESSION_LEVEL).len() as f64
}

#[expect(clippy::cast_precision_loss, reason = "there are at most 448 tokens")]
fn count(tokens: usize) -> f32 {
    tokens as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::transcription::vocabulary::small::{TIME, vocabulary};

    #[test]
    fn a_text_in_a_loop_is_told_from_one_that_is_not() {
        let once = "Well, there is not much difference between the two, at least not down here.";
        assert!(compression(once) < 1.3);
        assert!(compression(&[once; 6].join(" ")) > MAX_COMPRESSION);
        assert!(compression("") < 1.0);
    }

    fn decoded(tokens: usize, log_likelihood: f32, no_speech: f32) -> Decoded {
        let tokens = vec![3; tokens];
        Decoded { tokens, log_likelihood, no_speech, temperature: 0.0, flaw: Flaw::Nothing }
    }

    #[test]
    fn only_a_guess_where_nobody_seems_to_speak_is_silence() {
        assert!(decoded(30, -1.5, 0.9).is_silence());
        assert!(!decoded(30, -0.7, 0.9).is_silence());
        assert!(!decoded(30, -1.5, 0.3).is_silence());
        assert!(decoded(3, -0.7, 0.9).is_silence() && !decoded(3, -0.3, 0.9).is_silence());
    }

    #[test]
    fn a_text_in_a_circle_is_worse_than_a_guess_and_a_guess_than_an_echo() {
        let (vocabulary, stop) = (vocabulary(), Stop::never());
        let decoding = Decoding { vocabulary: &vocabulary, random: fastrand::Rng::with_seed(1), stop: &stop };
        let sentence = [2, 3, 4, 2, 3, 3, 4, 4, 2];
        let said = |times: usize| [&[TIME][..], &sentence, &[TIME + 9]].concat().repeat(times);
        assert_eq!(decoding.flaw(&said(1), -0.5), Ok(Flaw::Nothing));
        assert_eq!(decoding.flaw(&said(2), -0.5), Ok(Flaw::Echo));
        assert_eq!(decoding.flaw(&said(2), -1.5), Ok(Flaw::Guess));
        // A word or two may well be said twice.
        assert_eq!(decoding.flaw(&[TIME, 2, TIME + 1].repeat(3), -0.5), Ok(Flaw::Nothing));
        assert!(Flaw::Nothing < Flaw::Echo && Flaw::Echo < Flaw::Guess && Flaw::Guess < Flaw::Loop);
    }

    #[test]
    fn chance_takes_likelier_tokens_more_often_and_never_one_that_is_ruled_out() {
        let (vocabulary, stop) = (vocabulary(), Stop::never());
        let mut decoding = Decoding { vocabulary: &vocabulary, random: fastrand::Rng::with_seed(1), stop: &stop };
        let logits = [0.0, 2.0, f32::NEG_INFINITY, 1.0];
        let mut times = [0; 4];
        for _ in 0..1000 {
            times[decoding.choose(&logits, 1.0) as usize] += 1;
        }
        assert!(times[1] > times[3] && times[3] > times[0] && times[0] > 0 && times[2] == 0, "{times:?}");
        assert!((0..100).all(|_| decoding.choose(&logits, 0.0) == 1));
    }
}
