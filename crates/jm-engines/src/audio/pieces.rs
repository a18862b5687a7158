//! Where to cut a long recording.

use super::SAMPLE_RATE;

/// As long as a short pause between words: 50 ms.
const WINDOW: usize = SAMPLE_RATE as usize / 20;
/// How far windows are apart: 10 ms, finer than any pause.
const STEP: usize = SAMPLE_RATE as usize / 100;
/// The pause is looked for in the last tenth of a piece.
const SEARCHED_PART: usize = 10;
/// And in no more than 15 s: people pause more often than that.
const MAX_SEARCHED: usize = 15 * SAMPLE_RATE as usize;
/// The shortest limit, and the shortest piece of a longer recording: one second. Servers refuse what is much shorter.
const MIN_PIECE: usize = SAMPLE_RATE as usize;

/// The lengths of the pieces, each at most `max`; together they are the whole.
pub(super) fn lengths(samples: &[i16], max: usize) -> Vec<usize> {
    let max = max.max(MIN_PIECE);
    let mut lengths = Vec::new();
    let mut rest = samples;
    while rest.len() > max {
        let cut = if rest.len() < 2 * MIN_PIECE {
            // The limit is below two seconds. Halves are the longest there can be.
            rest.len() / 2
        } else {
            // What is left is a piece, too.
            quietest(&rest[..max.min(rest.len() - MIN_PIECE)])
        };
        lengths.push(cut);
        rest = &rest[cut..];
    }
    if !rest.is_empty() {
        lengths.push(rest.len());
    }
    lengths
}

/// The middle of the quietest window at the end of a piece; of equally quiet ones the last, for long pieces.
fn quietest(piece: &[i16]) -> usize {
    let searched = (piece.len() / SEARCHED_PART).min(MAX_SEARCHED);
    let first = (piece.len() - searched).max(MIN_PIECE.min(piece.len()));
    let windows = piece[first..].windows(WINDOW).step_by(STEP).enumerate();
    let quietest = windows.min_by_key(|(index, window)| (energy(window), usize::MAX - index));
    quietest.map_or(piece.len(), |(index, _)| first + index * STEP + WINDOW / 2)
}

fn energy(window: &[i16]) -> u64 {
    window.iter().map(|&sample| u64::from(sample.unsigned_abs()).pow(2)).sum()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "small numbers"
    )]

    use super::*;
    use crate::audio::Audio;
    use std::{f64::consts::TAU, time::Duration};

    /// Bursts of a tone with faint noise between them: seconds of sound, seconds of pause, and so on.
    fn speech(pattern: &[(f64, f64)]) -> Vec<i16> {
        let mut samples = Vec::new();
        let mut noise = fastrand_like();
        for &(sound, pause) in pattern {
            let rate = f64::from(SAMPLE_RATE);
            for n in 0..(sound * rate) as usize {
                samples.push(((n as f64 * 220.0 / rate * TAU).sin() * 8000.0) as i16 + noise());
            }
            samples.extend((0..(pause * rate) as usize).map(|_| noise()));
        }
        samples
    }

    /// Noise of up to 15, the same each time.
    fn fastrand_like() -> impl FnMut() -> i16 {
        let mut state = 1_u32;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 28) as i16
        }
    }

    #[test]
    fn pieces_are_cut_in_pauses_and_together_are_the_whole() {
        // Sentences of 2.8 s with pauses of 0.2 s.
        let samples = speech(&[(2.8, 0.2); 20]);
        let audio = Audio::from_samples(samples.clone());
        // The last tenth, from 27 s, holds the pause at 29.8 s.
        let pieces = audio.pieces(Duration::from_secs(30));
        assert_eq!(pieces.len(), 3);
        let joined: Vec<i16> = pieces.iter().flat_map(|(_, piece)| piece.samples().to_vec()).collect();
        assert_eq!(joined, samples);
        for (offset, piece) in &pieces {
            assert!(piece.duration() <= Duration::from_secs(30));
            let within_sentence = offset.as_secs_f64() % 3.0;
            assert!(*offset == Duration::ZERO || within_sentence > 2.8, "cut at {offset:?}");
        }
        let ends = pieces.iter().map(|(offset, piece)| *offset + piece.duration());
        let starts = pieces.iter().skip(1).map(|(offset, _)| *offset).chain([audio.duration()]);
        assert!(ends.eq(starts));
    }

    #[test]
    fn without_a_pause_the_cut_is_near_the_limit() {
        let audio = Audio::from_samples(speech(&[(25.0, 0.0)]));
        for (_, piece) in audio.pieces(Duration::from_secs(10)).iter().take(2) {
            assert!(piece.duration() <= Duration::from_secs(10) && piece.duration() >= Duration::from_secs(9));
        }
    }

    #[test]
    fn a_long_piece_is_searched_in_its_last_15_seconds_only() {
        // The only pause is 20 s before the limit of 300 s: a tenth would reach it.
        let audio = Audio::from_samples(speech(&[(280.0, 0.5), (30.0, 0.0)]));
        let cut = audio.pieces(Duration::from_mins(5))[1].0;
        assert!(cut > Duration::from_secs(285), "{cut:?}");
    }

    #[test]
    fn no_piece_of_a_long_recording_is_shorter_than_a_second() {
        let quiet = |length| lengths(&vec![0; length], 40_000);
        // The cut was at 39.6 thousand, and 400 samples were left: 25 ms.
        assert!(quiet(40_001).iter().all(|&piece| piece >= MIN_PIECE), "{:?}", quiet(40_001));
        for max in [32_000, 33_333, 40_000, 160_000] {
            for length in (16_000..200_000).step_by(797) {
                let lengths = lengths(&vec![0; length], max);
                assert!(lengths.iter().all(|piece| (MIN_PIECE..=max).contains(piece)), "{length}: {lengths:?}");
                assert_eq!(lengths.iter().sum::<usize>(), length);
            }
        }
        assert_eq!(lengths(&vec![0; 20_000], MIN_PIECE), [10_000, 10_000]);
    }

    #[test]
    fn what_fits_stays_whole_and_nothing_has_no_pieces() {
        let audio = Audio::from_samples(vec![1; 16_000]);
        assert_eq!(audio.pieces(Duration::from_secs(1)).len(), 1);
        assert_eq!(audio.pieces(Duration::ZERO).len(), 1);
        assert!(Audio::from_samples(vec![]).pieces(Duration::from_secs(1)).is_empty());
    }

    #[test]
    fn silence_is_cut_at_the_limit() {
        let lengths = lengths(&vec![0; 100_000], 40_000);
        assert!(lengths[0] > 39_000 && lengths.iter().sum::<usize>() == 100_000, "{lengths:?}");
    }
}
