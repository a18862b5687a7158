//! A window's tokens, cut into stretches at their times.

use super::vocabulary::Vocabulary;

/// What is said between two times of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// From the window's beginning, in steps of 20 ms.
    pub(super) start: u32,
    pub(super) end: u32,
    /// Text with its times.
    pub(super) tokens: Vec<u32>,
}

/// A window's stretches, and how much of the window they tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) stretches: Vec<Stretch>,
    /// How far the window is told, in steps of 20 ms; what follows was begun and not ended. `None` is all of it.
    pub(super) until: Option<u32>,
}

impl Told {
    /// `length` is the window's, in steps of 20 ms.
    pub(super) fn new(tokens: &[u32], length: u32, vocabulary: &Vocabulary) -> Self {
        let time = |token: &u32| vocabulary.time(*token);
        // A stretch ends between two times: its own and the next one's.
        let mut cuts: Vec<usize> = (1..tokens.len())
            .filter(|&place| time(&tokens[place - 1]).is_some() && time(&tokens[place]).is_some())
            .collect();
        if cuts.is_empty() {
            // One stretch; without a time of its own, it goes to the window's end.
            let times: Vec<u32> = tokens.iter().filter_map(time).collect();
            let (start, end) = match times[..] {
                [start, .., end] => (start, end),
                [start] => (start, length),
                [] => (0, length),
            };
            return Self { stretches: vec![Stretch { start, end, tokens: tokens.to_vec() }], until: None };
        }
        // A time alone at the end says that nothing follows it.
        let all = matches!(tokens, [.., before, last] if time(before).is_none() && time(last).is_some());
        if all {
            cuts.push(tokens.len());
        }
        let mut stretches = Vec::new();
        let mut from = 0;
        for cut in cuts {
            let tokens = &tokens[from..cut];
            let [start, end] = [tokens.first(), tokens.last()].map(|token| token.and_then(time).unwrap_or_default());
            stretches.push(Stretch { start, end, tokens: tokens.to_vec() });
            from = cut;
        }
        let until = stretches.last().map(|stretch| stretch.end).filter(|_| !all);
        Self { stretches, until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::transcription::vocabulary::small::{TIME, vocabulary};

    fn told(tokens: &[u32]) -> (Vec<(u32, u32)>, Option<u32>) {
        let told = Told::new(tokens, 1400, &vocabulary());
        (told.stretches.iter().map(|stretch| (stretch.start, stretch.end)).collect(), told.until)
    }

    #[test]
    fn stretches_end_where_times_meet_and_the_unfinished_one_is_left_to_the_next_window() {
        let tokens = [TIME, 2, 3, TIME + 100, TIME + 150, 2, TIME + 300, TIME + 300, 4];
        assert_eq!(told(&tokens), (vec![(0, 100), (150, 300)], Some(300)));
    }

    #[test]
    fn a_time_alone_at_the_end_tells_all_of_the_window() {
        let tokens = [TIME, 2, TIME + 100, TIME + 150, 2, TIME + 300];
        assert_eq!(told(&tokens), (vec![(0, 100), (150, 300)], None));
        assert_eq!(told(&tokens[..3]), (vec![(0, 100)], None));
        assert_eq!(told(&[TIME + 40, 2, TIME + 100]), (vec![(40, 100)], None));
    }

    #[test]
    fn a_text_without_an_end_goes_to_the_windows_end() {
        assert_eq!(told(&[TIME + 30, 2, 3]), (vec![(30, 1400)], None));
        assert_eq!(told(&[2, 3]), (vec![(0, 1400)], None));
        assert_eq!(told(&[]), (vec![(0, 1400)], None));
    }

    #[test]
    fn each_stretch_has_its_own_tokens() {
        let tokens = [TIME, 2, TIME + 100, TIME + 150, 3, 4, TIME + 300, TIME + 300];
        let stretches = Told::new(&tokens, 1500, &vocabulary()).stretches;
        assert_eq!(stretches[0].tokens, tokens[..3]);
        assert_eq!(stretches[1].tokens, tokens[3..7]);
    }
}
