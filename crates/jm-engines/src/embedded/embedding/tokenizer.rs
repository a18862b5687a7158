//! Texts as numbers: `SentencePiece`'s unigram model, as XLM-RoBERTa has it.
//!
//! Characters are written in one way first: compatibility forms as plain ones, controls as nothing, and every run of
//! white space as one mark. Then the text is cut into the pieces that are the most probable together.
//!
//! The crate `tokenizers` does the same, with a tree of hash maps: a second and a half to build for this vocabulary, and
//! 240 MB. A sorted list takes a tenth of both.

use std::collections::HashMap;

use super::file::Vocabulary;
use crate::{embedded::compute::Stop, error::EngineError};

/// What stands for the space before a word.
const SPACE: char = '\u{2581}';
/// How much less probable a character without a piece is than the least probable piece: `SentencePiece`'s constant.
const UNKNOWN_PENALTY: f64 = 10.0;
/// A few milliseconds' work.
const CHARACTERS_BETWEEN_LOOKS: usize = 4096;

/// Cuts texts into tokens.
pub(super) struct Tokenizer {
    /// Sorted by their bytes.
    pieces: Vec<Piece>,
    replacements: HashMap<char, String>,
    begin: u32,
    end: u32,
    unknown: u32,
    unknown_score: f64,
}

struct Piece {
    text: String,
    token: u32,
    /// The logarithm of its probability.
    score: f32,
}

/// The best way to cut a text up to some place: its last token, and where that begins.
#[derive(Clone, Copy)]
struct Step {
    score: f64,
    start: usize,
    token: u32,
}

impl Tokenizer {
    pub(super) fn new(vocabulary: Vocabulary) -> Self {
        let Vocabulary { pieces, begin, end, unknown, replacements } = vocabulary;
        let least = pieces.iter().map(|&(_, score)| f64::from(score)).fold(f64::INFINITY, f64::min);
        let pieces = pieces.into_iter().zip(0..).map(|((text, score), token)| Piece { text, token, score });
        // What the unknown is called is a text like any other.
        let mut pieces: Vec<_> = pieces.filter(|piece| piece.token != unknown).collect();
        pieces.sort_unstable_by(|one, other| one.text.cmp(&other.text));
        Self { pieces, replacements, begin, end, unknown, unknown_score: least - UNKNOWN_PENALTY }
    }

    /// The text's tokens. A run of characters that no piece has is one unknown token.
    pub(super) fn tokens(&self, text: &str, stop: &Stop) -> Result<Vec<u32>, EngineError> {
        let text = self.written(text);
        let mut steps: Vec<Option<Step>> = vec![None; text.len() + 1];
        for (count, (start, character)) in text.char_indices().enumerate() {
            if count.is_multiple_of(CHARACTERS_BETWEEN_LOOKS) {
                stop.check()?;
            }
            // Every character is at least unknown, so that there is a way to each.
            let score = steps[start].map_or(0.0, |step| step.score);
            let mut offer = |length: usize, token, gain| {
                let step = Step { score: score + gain, start, token };
                if steps[start + length].is_none_or(|best| step.score > best.score) {
                    steps[start + length] = Some(step);
                }
            };
            for piece in self.pieces_of(&text.as_bytes()[start..]) {
                offer(piece.text.len(), piece.token, f64::from(piece.score));
            }
            offer(character.len_utf8(), self.unknown, self.unknown_score);
        }
        let mut tokens = Vec::new();
        let mut end = text.len();
        while let Some(step) = steps[end] {
            tokens.push(step.token);
            end = step.start;
        }
        tokens.dedup_by(|one, other| *one == self.unknown && *other == self.unknown);
        tokens.reverse();
        Ok(tokens)
    }

    /// Whether nothing of the text reaches the model.
    pub(super) fn is_blank(&self, text: &str) -> bool {
        text.chars().flat_map(|character| self.replacement(character)).all(char::is_whitespace)
    }

    /// How long a text is as the model reads it, at most.
    pub(super) fn written_len(&self, text: &str) -> usize {
        text.chars().flat_map(|character| self.replacement(character)).map(char::len_utf8).sum()
    }

    /// A sequence the network reads: the tokens between those for begin and end.
    pub(super) fn sequence(&self, tokens: &[u32]) -> Vec<u32> {
        [&[self.begin], tokens, &[self.end]].concat()
    }

    /// The pieces that the text begins with, the shortest first.
    fn pieces_of(&self, text: &[u8]) -> impl Iterator<Item = &Piece> {
        // All of these begin as the text does, up to the byte that is looked at.
        let mut candidates = self.pieces.as_slice();
        let narrowed = text.iter().enumerate().map_while(move |(at, byte)| {
            let next = |piece: &Piece| piece.text.as_bytes().get(at).copied();
            let from = candidates.partition_point(|piece| next(piece) < Some(*byte));
            let count = candidates[from..].partition_point(|piece| next(piece) == Some(*byte));
            candidates = &candidates[from..from + count];
            candidates.first().map(|first| (first.text.len() == at + 1).then_some(first))
        });
        narrowed.flatten()
    }

    fn written(&self, text: &str) -> String {
        let mut written = String::with_capacity(text.len() + SPACE.len_utf8());
        written.push(SPACE);
        let mut after_space = true;
        for character in text.chars().flat_map(|character| self.replacement(character)) {
            let space = character == ' ';
            if !(space && after_space) {
                written.push(if space { SPACE } else { character });
            }
            after_space = space;
        }
        written
    }

    fn replacement(&self, character: char) -> impl Iterator<Item = char> {
        let replacement = self.replacements.get(&character);
        let kept = replacement.is_none().then_some(character);
        replacement.into_iter().flat_map(|to| to.chars()).chain(kept)
    }
}
