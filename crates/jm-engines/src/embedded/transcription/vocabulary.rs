//! Whisper's tokens: pieces of words, languages, times, and signs that steer it.

use std::{fmt, fs, path::Path};

use jm_mq_core::OptionsError;
use serde::Deserialize;
use tokenizers::Tokenizer;

use super::encoder::ROWS;
use crate::{embedded::model::unusable, error::EngineError};

/// Seconds between a time and the next one.
pub(super) const TIME_STEP: f64 = 0.02;
/// The longest file of settings that is read; it is 2 KB.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;
/// Characters of a text that are looked at, from its end: more than the tokens that are used ever have.
const MAX_PROMPT_CHARS: usize = 4000;
/// Tags whose language Whisper knows by another name, or only together with another one.
const ALIASES: [(&str, &str); 6] =
    [("cmn", "zh"), ("yue", "zh"), ("nb", "no"), ("fil", "tl"), ("jv", "jw"), ("iw", "he")];

/// The tokens and what they are for.
pub(super) struct Vocabulary {
    tokenizer: Tokenizer,
    /// Ends a window's text. The tokens before it are text, those after it are not.
    pub(super) end: u32,
    /// Begins it, after the prompt.
    pub(super) start: u32,
    /// Says that it shall be written in the language that is spoken.
    pub(super) transcribe: u32,
    /// Begins the prompt.
    pub(super) previous: u32,
    /// Stands where a window has no speech.
    pub(super) no_speech: u32,
    /// Time 0; the tokens after it are times, to the last one.
    pub(super) first_time: u32,
    /// Each with its code.
    pub(super) languages: Vec<(String, u32)>,
    /// Never written: signs, and names of sounds.
    pub(super) suppressed: Vec<u32>,
    /// Not written as the first token.
    pub(super) suppressed_first: Vec<u32>,
}

/// `CTranslate2`'s `config.json`, as far as it matters.
#[derive(Deserialize)]
struct Config {
    lang_ids: Vec<u32>,
    suppress_ids: Vec<u32>,
    suppress_ids_begin: Vec<u32>,
}

impl Config {
    fn read(path: &Path) -> Result<Self, String> {
        let length = path.metadata().map_err(|error| error.to_string())?.len();
        if length > MAX_CONFIG_BYTES {
            return Err(format!("{length} bytes are too many"));
        }
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }
}

impl Vocabulary {
    /// `size` is how many tokens the model has.
    pub(super) fn load(tokenizer: &Path, config: &Path, size: usize) -> Result<Self, OptionsError> {
        let unusable_tokens = |error: &dyn fmt::Display| unusable(tokenizer, "Whisper's tokenizer.json", error);
        let mut tokens = Tokenizer::from_file(tokenizer).map_err(|error| unusable_tokens(&error))?;
        // What looks like a sign in a prompt is text.
        tokens.set_encode_special_tokens(true);
        let named =
            |name: &str| tokens.token_to_id(name).ok_or_else(|| unusable_tokens(&format_args!("it has no `{name}`")));
        let (end, first_time) = (named("<|endoftext|>")?, named("<|0.00|>")?);
        if first_time as usize + ROWS + 1 != size {
            let error = format_args!("its last time is not the last of the model's {size} tokens");
            return Err(unusable_tokens(&error));
        }
        let sign = |name: &str| match named(name)? {
            sign if (end + 1..first_time).contains(&sign) => Ok(sign),
            sign => Err(unusable_tokens(&format_args!("`{name}`, {sign}, is not between text and times"))),
        };

        let unusable_config =
            |error: &dyn fmt::Display| unusable(config, "Whisper's config.json, as CTranslate2 writes it", error);
        let settings = Config::read(config).map_err(|error| unusable_config(&error))?;
        let all = [&settings.lang_ids, &settings.suppress_ids, &settings.suppress_ids_begin];
        if let Some(id) = all.into_iter().flatten().find(|id| **id as usize >= size) {
            return Err(unusable_config(&format_args!("there is no token {id} among the model's {size}")));
        }
        let with_code = |&id: &u32| {
            let sign = tokens.id_to_token(id)?;
            Some((sign.strip_prefix("<|")?.strip_suffix("|>")?.to_owned(), id))
        };
        let languages: Vec<_> = settings.lang_ids.iter().filter_map(with_code).collect();
        if languages.is_empty() {
            return Err(unusable_config(&"it names no language"));
        }
        Ok(Self {
            end,
            start: sign("<|startoftranscript|>")?,
            transcribe: sign("<|transcribe|>")?,
            previous: sign("<|startofprev|>")?,
            // Its name in Whisper's first version.
            no_speech: sign("<|nospeech|>").or_else(|_| sign("<|nocaptions|>"))?,
            first_time,
            languages,
            suppressed: settings.suppress_ids,
            suppressed_first: settings.suppress_ids_begin,
            tokenizer: tokens,
        })
    }

    /// The language of a tag, by its first part, if Whisper knows it.
    pub(super) fn language(&self, tag: &str) -> Option<u32> {
        let primary = tag.split(['-', '_']).next()?.to_ascii_lowercase();
        let alias = ALIASES.iter().find(|(tag, _)| *tag == primary);
        let code = alias.map_or(primary.as_str(), |(_, code)| code);
        self.languages.iter().find(|(known, _)| known == code).map(|&(_, id)| id)
    }

    /// The language's code.
    pub(super) fn code(&self, language: u32) -> Option<&str> {
        self.languages.iter().find(|(_, id)| *id == language).map(|(code, _)| code.as_str())
    }

    /// A text's tokens, of which the last ones matter.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let text = text.trim();
        let begin = text.char_indices().rev().nth(MAX_PROMPT_CHARS - 1).map_or(0, |(begin, _)| begin);
        // Words have the space before them; it makes the first one a word like the others.
        let encoding = self
            .tokenizer
            .encode(format!(" {}", &text[begin..]), false)
            .map_err(|error| EngineError::permanent(format!("prompt: it has no tokens: {error}")))?;
        Ok(encoding.get_ids().iter().copied().filter(|&id| id < self.end).collect())
    }

    /// The text of tokens, without times and signs.
    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String, EngineError> {
        let text: Vec<u32> = tokens.iter().copied().filter(|&id| id < self.end).collect();
        let decoded = self.tokenizer.decode(&text, false);
        decoded.map_err(|error| EngineError::operator(format!("Whisper's tokens could not be read: {error}")))
    }

    /// The time a token stands for, in steps of [`TIME_STEP`].
    pub(super) fn time(&self, token: u32) -> Option<u32> {
        token.checked_sub(self.first_time)
    }
}

/// Five pieces of text, and Whisper's signs and times.
#[cfg(test)]
pub(super) mod small {
    use tokenizers::models::bpe::BPE;

    use super::*;

    pub(in super::super) const END: u32 = 5;
    pub(in super::super) const NO_SPEECH: u32 = 8;
    pub(in super::super) const TIME: u32 = 12;
    pub(in super::super) const SIZE: usize = TIME as usize + ROWS + 1;

    pub(in super::super) fn vocabulary() -> Vocabulary {
        Vocabulary {
            tokenizer: Tokenizer::new(BPE::default()),
            end: END,
            start: 6,
            transcribe: 7,
            previous: 9,
            no_speech: NO_SPEECH,
            first_time: TIME,
            languages: [("en", 10), ("zh", 11)].map(|(code, id)| (code.to_owned(), id)).to_vec(),
            suppressed: vec![1],
            suppressed_first: vec![0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_by_its_first_part_or_by_another_name() {
        let vocabulary = small::vocabulary();
        for (tag, language) in [("en", 10), ("EN-gb", 10), ("zh_Hant_TW", 11), ("cmn-Hans", 11), ("yue", 11)] {
            assert_eq!(vocabulary.language(tag), Some(language), "{tag}");
        }
        for tag in ["", "de", "zhx", "-en", "tlh"] {
            assert_eq!(vocabulary.language(tag), None, "{tag}");
        }
        assert_eq!((vocabulary.code(10), vocabulary.code(5)), (Some("en"), None));
    }
}
