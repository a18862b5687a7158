//! Which errors are news: each of its kind once.

use std::collections::VecDeque;

/// The kinds that are remembered: more than a broker or a database has to offer.
const MAX_KINDS: usize = 16;

/// Kinds of error texts, for a log that has one line for each kind while something is tried again and again.
///
/// Texts that differ in numbers and durations alone are of one kind: an address or a wait varies from attempt to attempt.
#[derive(Clone, Debug, Default)]
pub struct ErrorKinds(VecDeque<String>);

impl ErrorKinds {
    /// Whether this is the first of its kind, which is remembered from now on.
    pub fn is_new(&mut self, text: &str) -> bool {
        let kind = without_numbers(text);
        if self.0.contains(&kind) {
            return false;
        }
        if self.0.len() == MAX_KINDS {
            self.0.pop_front();
        }
        self.0.push_back(kind);
        true
    }

    /// What comes is news again: it has worked meanwhile.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The same for errors that differ in addresses, ports, counts and durations.
fn without_numbers(text: &str) -> String {
    const UNITS: [&str; 4] = ["ns", "µs", "ms", "s"];
    let mut kind = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        kind.push_str(before);
        kind.push('#');
        let end = number.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(number.len());
        rest = &number[end..];
        let word = rest.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(rest.len());
        if UNITS.contains(&&rest[..word]) {
            rest = &rest[word..];
        }
    }
    kind + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_differ_in_numbers_alone_are_of_one_kind() {
        for (one, other) in [
            ("did not answer within 1.666666667s while", "did not answer within 900ms while"),
            ("at 10.0.0.1:5672: refused", "at 10.0.0.23:5673: refused"),
            ("expired 5 seconds ago", "expired 61 seconds ago"),
            ("took 7µs", "took 12ns"),
        ] {
            assert_eq!(without_numbers(one), without_numbers(other));
        }
        assert_eq!(without_numbers("5 steps at ms 3"), "# steps at ms #");
        assert_ne!(without_numbers("at a:1: refused"), without_numbers("at b:1: refused"));
    }

    #[test]
    fn errors_that_alternate_are_reported_once_each_until_it_is_cleared() {
        let mut kinds = ErrorKinds::default();
        let new: Vec<bool> = ["a 1s", "b", "a 2s", "b", "a 3ms"].map(|text| kinds.is_new(text)).to_vec();
        assert_eq!(new, [true, true, false, false, false]);
        kinds.clear();
        assert!(kinds.is_new("a 1s"));
        for letter in 'a'..='z' {
            kinds.is_new(&letter.to_string());
        }
        assert_eq!(kinds.0.len(), MAX_KINDS);
    }
}
