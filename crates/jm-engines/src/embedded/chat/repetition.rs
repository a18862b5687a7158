//! Against going round in circles, as small models do.

use std::collections::BTreeSet;

/// How many of the last tokens are made less likely. As many as Ollama's.
const PENALISED_TOKENS: usize = 64;
/// What their logits are divided by. As Ollama's; more would spoil names and lists, which repeat words with reason.
pub(crate) const PENALTY: f32 = 1.1;
/// The longest passage that is recognised when it comes again and again: a paragraph.
const LONGEST_PASSAGE: usize = 256;
/// How often a passage has to come in a row. Three lines may well be the same.
const TIMES: usize = 4;
/// How many tokens the repetitions have to be together: a row of dashes, or of zeros, may be that long.
const LEAST_TOKENS: usize = 64;

/// Notices when an answer has begun to go round in circles.
#[derive(Clone, Debug)]
pub(crate) struct Repetition {
    tokens: Vec<u32>,
    /// For each length of a passage, how many of the last tokens are the same as those so long before.
    same: Vec<usize>,
}

impl Repetition {
    pub(crate) fn new() -> Self {
        Self { tokens: Vec::new(), same: vec![0; LONGEST_PASSAGE] }
    }

    /// Adds a token. If the answer now is in a circle, the number of tokens with which its first round ends.
    pub(crate) fn push(&mut self, token: u32) -> Option<usize> {
        let index = self.tokens.len();
        self.tokens.push(token);
        for (length, same) in (1..=index).zip(&mut self.same) {
            *same = if self.tokens[index - length] == token { *same + 1 } else { 0 };
        }
        let circles = |(length, &same): (usize, &usize)| same >= LEAST_TOKENS.max((TIMES - 1) * length);
        let (_, same) = (1..).zip(&self.same).find(|&circle| circles(circle))?;
        Some(self.tokens.len() - same)
    }

    /// The tokens that are made less likely, each of them once.
    pub(crate) fn penalised(&self) -> BTreeSet<u32> {
        self.tokens.iter().rev().take(PENALISED_TOKENS).copied().collect()
    }

    /// All tokens.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(tokens: impl IntoIterator<Item = u32>) -> Option<usize> {
        let mut repetition = Repetition::new();
        tokens.into_iter().find_map(|token| repetition.push(token))
    }

    #[test]
    fn a_circle_is_noticed_and_ends_after_its_first_round() {
        let introduction = 1000..1020;
        for length in [1, 2, 7, 30, 100, 256] {
            let circle = introduction.clone().chain((0..length).cycle().take(2000));
            assert_eq!(end(circle), Some(20 + usize::try_from(length).unwrap()), "{length}");
        }
    }

    #[test]
    fn what_is_only_similar_or_repeated_a_few_times_is_no_circle() {
        assert_eq!(end(0..2000), None);
        // Lines of a list that begin the same.
        assert_eq!(end((0..200).flat_map(|line| [7, 8, 9, 1000 + line, 10])), None);
        // A row of dashes, and a verse that comes three times.
        assert_eq!(end((0..20).chain([5; 64]).chain(20..40)), None);
        assert_eq!(end((0..100).cycle().take(300)), None);
    }

    #[test]
    fn the_last_tokens_are_penalised() {
        let mut repetition = Repetition::new();
        assert!(repetition.penalised().is_empty());
        for token in 0..100 {
            repetition.push(token);
        }
        assert_eq!(repetition.penalised(), (36..100).collect());
        assert_eq!(repetition.tokens().len(), 100);
    }
}
