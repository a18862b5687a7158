//! Which tokens may come next. Whisper was trained on text in which times come in pairs and never go back; it keeps to
//! that only if it is made to.

use super::vocabulary::Vocabulary;

/// The latest time at which a window's first text begins, in steps of 20 ms: one second. It keeps Whisper from passing
/// over what it hears badly.
const MAX_FIRST_TIME: u32 = 50;

/// Rules out what may not follow what is `written` in this window, by a logit that stands for never.
pub(super) fn constrain(logits: &mut [f32], written: &[u32], vocabulary: &Vocabulary) {
    let (end, first_time) = (vocabulary.end as usize, vocabulary.first_time as usize);
    for &token in &vocabulary.suppressed {
        logits[token as usize] = f32::NEG_INFINITY;
    }
    // Signs steer Whisper; it does not write them.
    rule_out(&mut logits[end + 1..first_time]);

    let is_time = |token: &u32| vocabulary.time(*token).is_some();
    match written {
        [] => {
            for &token in &vocabulary.suppressed_first {
                logits[token as usize] = f32::NEG_INFINITY;
            }
            rule_out(&mut logits[..first_time]);
            rule_out(&mut logits[first_time + MAX_FIRST_TIME as usize + 1..]);
            return;
        }
        // A stretch has ended: the next one begins, or there is no more.
        [.., before, last] if is_time(last) && !is_time(before) => rule_out(&mut logits[..end]),
        // A stretch has begun: it has text.
        [.., last] if is_time(last) => rule_out(&mut logits[first_time..]),
        _ => {}
    }
    if let Some(&latest) = written.iter().rev().find(|token| is_time(token)) {
        // The next stretch may begin where this one ends; no stretch ends where it began.
        let ended = matches!(written, [.., before, last] if is_time(last) && !is_time(before));
        let earliest = latest as usize + usize::from(!ended);
        rule_out(&mut logits[first_time..earliest]);
    }
    // A time is due when all of them together are likelier than any piece of text.
    let (text, times) = logits.split_at(first_time);
    let best_text = text.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if log_sum_exp(times) > best_text {
        rule_out(&mut logits[..first_time]);
    }
}

fn rule_out(logits: &mut [f32]) {
    logits.fill(f32::NEG_INFINITY);
}

/// The logit of any one of several; never, if there is none.
pub(super) fn log_sum_exp(logits: &[f32]) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if most == f32::NEG_INFINITY {
        return most;
    }
    most + logits.iter().filter(|logit| **logit > f32::NEG_INFINITY).map(|logit| (logit - most).exp()).sum::<f32>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::transcription::vocabulary::small::{END, NO_SPEECH, SIZE, TIME, vocabulary};

    /// What may follow, if nothing is likelier than anything else but for the `likely` one.
    fn allowed(written: &[u32], likely: u32) -> Vec<u32> {
        let mut logits = vec![0.0; SIZE];
        logits[likely as usize] = 20.0;
        constrain(&mut logits, written, &vocabulary());
        (0..).zip(logits).filter(|(_, logit)| *logit > f32::NEG_INFINITY).map(|(token, _)| token).collect()
    }

    #[test]
    fn a_window_begins_with_a_time_of_at_most_a_second() {
        assert_eq!(allowed(&[], 3), (TIME..=TIME + 50).collect::<Vec<_>>());
    }

    #[test]
    fn after_the_time_of_its_beginning_a_stretch_has_text_or_nothing_more_is_said() {
        for written in [&[TIME + 7][..], &[TIME, 3, TIME + 5, TIME + 5]] {
            assert_eq!(allowed(written, 3), [0, 2, 3, 4, END]);
        }
    }

    #[test]
    fn after_the_time_of_its_end_the_next_stretch_begins_no_earlier_or_nothing_more_is_said() {
        let later: Vec<u32> = [END].into_iter().chain(TIME + 50..=TIME + 1500).collect();
        assert_eq!(allowed(&[TIME, 3, TIME + 50], END), later);
    }

    #[test]
    fn within_a_stretch_times_come_after_its_beginning() {
        let later: Vec<u32> = [0, 2, 3, 4, END].into_iter().chain(TIME + 11..=TIME + 1500).collect();
        assert_eq!(allowed(&[TIME + 10, 3], 3), later);
    }

    #[test]
    fn a_time_comes_when_all_times_together_are_likelier_than_any_text() {
        // 1500 times that are each a little less likely than the text.
        let mut logits = vec![0.0; SIZE];
        logits[..=END as usize].fill(1.0);
        constrain(&mut logits, &[TIME, 3], &vocabulary());
        assert!(logits[..=END as usize].iter().all(|&logit| logit == f32::NEG_INFINITY));
    }

    #[test]
    fn signs_and_what_the_model_suppresses_are_never_written() {
        let all = allowed(&[TIME, 3], 3);
        assert!(!all.contains(&1) && !all.contains(&NO_SPEECH));
    }

    #[test]
    fn the_sum_of_likelihoods_does_not_overflow() {
        assert!((log_sum_exp(&[1000.0, 1000.0]) - 1000.0 - 2_f32.ln()).abs() < 1e-3);
        assert!(log_sum_exp(&[f32::NEG_INFINITY; 3]).is_infinite());
    }
}
