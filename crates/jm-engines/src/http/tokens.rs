//! How many tokens a text takes, without the model's own tokenizer.

/// An estimate that is rather too high, so that what fits by it fits.
///
/// Byte-pair tokenizers make about one token of four letters of English, of each digit (some take three together), of
/// each Chinese character (newer ones take two together), and of each sign; a space goes with its word. Here:
///
/// | characters | tokens each |
/// |---|---|
/// | ASCII letters | 1/3 |
/// | ASCII white space | 1/2 |
/// | other ASCII: digits, punctuation | 1 |
/// | of two bytes: accents, Cyrillic, Arabic | 1 |
/// | of three bytes: Chinese, Japanese, Korean, Thai, Devanagari | 1.3 |
/// | of four bytes: emoji, rare ideographs | 3 |
pub(crate) fn estimate(text: &str) -> usize {
    let thirtieths: usize = text
        .chars()
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' => 10,
            ' ' | '\t'..='\r' => 15,
            _ => match character.len_utf8() {
                1 | 2 => 30,
                3 => 39,
                _ => 90,
            },
        })
        .sum();
    thirtieths.div_ceil(30)
}

/// A count that no tokenizer goes below: what is far longer was not read as a whole by a model that counts fewer.
///
/// | characters | tokens each |
/// |---|---|
/// | ASCII letters | 1/8 |
/// | ASCII white space | 0 |
/// | other ASCII, and characters of two bytes | 1/4 |
/// | longer ones | 2/5 |
pub(crate) fn at_least(text: &str) -> usize {
    let fortieths: usize = text
        .chars()
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' => 5,
            ' ' | '\t'..='\r' => 0,
            _ => match character.len_utf8() {
                1 | 2 => 10,
                _ => 16,
            },
        })
        .sum();
    fortieths / 40
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with the most tokens that `cl100k_base`, `o200k_base` or Qwen's tokenizer makes of it.
    const KNOWN: [(&str, usize); 6] = [
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("Antidisestablishmentarianism", 7),
        ("3.14159265358979", 16),
        ("我们明天下午三点开会讨论预算。", 18),
        ("{\"key\": [1, 2, 3]}", 13),
        ("👍🏽", 6),
    ];

    #[test]
    fn estimates_are_never_below_what_tokenizers_count_and_not_far_above() {
        for (text, most) in KNOWN {
            let estimated = estimate(text);
            assert!(estimated >= most, "{text}: {estimated}");
            assert!(estimated <= 3 * most, "{text}: {estimated}");
        }
        assert_eq!(estimate(""), 0);
        assert_eq!(estimate("a"), 1);
    }

    #[test]
    fn no_tokenizer_counts_less_than_the_least() {
        for (text, most) in KNOWN {
            // The known counts are the most that one of three tokenizers makes; none makes less than half of them.
            assert!(at_least(text) <= most.div_ceil(2), "{text}: {}", at_least(text));
        }
        assert_eq!(at_least(&"the meeting was moved to Thursday ".repeat(100)), 350);
    }

    #[test]
    fn an_estimate_grows_with_its_text() {
        assert_eq!(estimate(&"字".repeat(1000)), 1300);
        assert_eq!(estimate(&"word ".repeat(600)), 1100);
    }
}
