//! Word error rate: how many words have to be changed, added or left out, of those that are said.

/// Errors among words, and how many words there are to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WordErrors {
    pub(crate) errors: usize,
    pub(crate) words: usize,
}

impl WordErrors {
    /// Of what was heard, against what is said.
    pub(crate) fn between(said: &str, heard: &str) -> Self {
        let (said, heard) = (words(said), words(heard));
        Self { errors: strsim::generic_levenshtein(&said, &heard), words: said.len() }
    }

    /// In percent.
    pub(crate) fn rate(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "no recording here has a thousand words")]
        let rate = self.errors as f64 / self.words.max(1) as f64;
        100.0 * rate
    }
}

impl std::iter::Sum for WordErrors {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self { errors: sum.errors + one.errors, words: sum.words + one.words })
    }
}

/// In lower case, without punctuation, and with a hyphen as the space it sounds like. Titles are written out, as in the
/// test data.
fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace('’', "'");
    let words = text.split(|character: char| !(character.is_alphanumeric() || character == '\''));
    let words = words.map(|word| word.trim_matches('\'')).filter(|word| !word.is_empty());
    words.map(|word| if word == "mr" { "mister".to_owned() } else { word.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_that_is_wrong_missing_or_too_many_is_an_error() {
        let said = "the cat sat on the mat";
        for (heard, errors) in [
            ("the cat sat on the mat", 0),
            ("the bat sat on the mat", 1),
            ("the cat sat on mat", 1),
            ("the big cat sat on the mat", 1),
            ("", 6),
        ] {
            assert_eq!(WordErrors::between(said, heard), WordErrors { errors, words: 6 }, "{heard}");
        }
        assert!((WordErrors { errors: 1, words: 8 }.rate() - 12.5).abs() < f64::EPSILON);
    }

    #[test]
    fn case_punctuation_and_the_way_titles_are_written_are_no_errors() {
        let errors = WordErrors::between("mister dashwood's cold hearted son", "Mr. Dashwood’s \"cold-hearted\" son …");
        assert_eq!(errors, WordErrors { errors: 0, words: 5 });
    }
}
