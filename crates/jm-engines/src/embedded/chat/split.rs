//! How texts are split before they become tokens: each family has its own way, which GGUF files only name.

use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    models::bpe::BPE,
    normalizers::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split as SplitBy, SplitPattern},
    },
};

/// The names that [`named`] knows.
pub(crate) const NAMES: [&str; 7] = ["gpt-2", "smollm", "qwen2", "deepseek-r1-qwen", "llama-bpe", "llama3", "llama-v3"];

/// One family's way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    how: How,
    /// Whether a word that is a token is that token, whatever the merges say.
    pub(crate) whole_words: bool,
    /// Whether texts begin with a token of their own.
    pub(crate) begins: bool,
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// As GPT-2 does.
    Words,
    /// As GPT-2 does, and each digit alone.
    WordsAndDigits,
    /// Each digit alone; composed characters.
    Qwen,
    /// Digits in threes.
    Llama,
}

/// What GGUF calls the way, in `tokenizer.ggml.pre`.
pub(crate) fn named(name: &str) -> Option<Split> {
    let how = match name {
        "gpt-2" => How::Words,
        "smollm" => How::WordsAndDigits,
        "qwen2" | "deepseek-r1-qwen" => How::Qwen,
        "llama-bpe" | "llama3" | "llama-v3" => How::Llama,
        _ => return None,
    };
    let llama = matches!(how, How::Llama);
    Some(Split { how, whole_words: llama, begins: llama })
}

/// A word with what stands before it, digits, signs, the ends of lines and other space.
fn pattern(digits: &str) -> String {
    let suffixes = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    format!(
        r"{suffixes}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

impl Split {
    /// The tokenizer that splits this way.
    pub(crate) fn tokenizer(self, bpe: BPE) -> tokenizers::Result<Tokenizer> {
        let bytes = |by_words| PreTokenizerWrapper::from(ByteLevel::new(false, false, by_words));
        let by = |digits| -> tokenizers::Result<PreTokenizerWrapper> {
            let split = SplitBy::new(SplitPattern::Regex(pattern(digits)), SplitDelimiterBehavior::Isolated, false)?;
            Ok(Sequence::new(vec![split.into(), bytes(false)]).into())
        };
        let mut tokenizer = Tokenizer::new(bpe);
        tokenizer.with_pre_tokenizer(Some(match self.how {
            How::Words => bytes(true),
            How::WordsAndDigits => Sequence::new(vec![Digits::new(true).into(), bytes(true)]).into(),
            How::Qwen => by(r"\p{N}")?,
            How::Llama => by(r"\p{N}{1,3}")?,
        }));
        if matches!(self.how, How::Qwen) {
            tokenizer.with_normalizer(Some(NormalizerWrapper::from(NFC)))?;
        }
        Ok(tokenizer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_and_no_other_is() {
        assert!(NAMES.iter().all(|name| named(name).is_some_and(|split| split.tokenizer(BPE::default()).is_ok())));
        assert!(named("default").is_none() && named("").is_none());
    }
}
