//! A recording in frames, each seen by several overlapping windows, which vote.

use std::ops::Range;

use super::{
    fbank,
    segmentation::{FIRST_CENTRE, FRAME_STEP, FRAMES, VOICES, Voices, WINDOW},
};
use crate::audio::SAMPLE_RATE;

/// Frames from one window to the next: a quarter of one, 2.5 s, so that four windows vote.
const STEP: usize = FRAMES.div_ceil(4);
/// Where frame 0 begins, in samples; each frame ends where the next one begins.
const ORIGIN: usize = FIRST_CENTRE - FRAME_STEP / 2;
/// Frames on either side that are compared to find a change of voices: windows differ by so much on where it is.
const BLUR: usize = 4;
/// The longest utterance: 5 s are enough to tell a voice, and a mistake within it then costs no more.
const LONGEST: usize = 300;
/// The shortest utterance, 0.1 s: less has no voice to speak of.
const SHORTEST: usize = 8;
// The recording may end within an utterance's last frame; the voice model needs a few frames of the filter bank.
const _: () = assert!((SHORTEST - 1) * FRAME_STEP > fbank::FRAME + 8 * fbank::STEP);

/// What the windows saw.
pub(super) struct Timeline {
    /// In order of their beginning.
    windows: Vec<Window>,
    frames: usize,
}

/// Ten seconds, and the voices heard in each frame of them.
pub(super) struct Window {
    pub(super) first: usize,
    pub(super) voices: Vec<Voices>,
}

/// The first frames of the windows that a recording is looked at through: every 2.5 s, and one that reaches the end.
pub(super) fn window_starts(samples: usize) -> Vec<usize> {
    let last = samples.saturating_sub(WINDOW).div_ceil(FRAME_STEP);
    if samples == 0 { Vec::new() } else { (0..last).step_by(STEP).chain([last]).collect() }
}

/// A window's samples, from -1 to 1, with silence beyond the recording's end.
pub(super) fn window_samples(samples: &[i16], first: usize) -> Vec<f32> {
    let start = (first * FRAME_STEP).min(samples.len());
    let mut window = to_float(&samples[start..samples.len().min(start + WINDOW)]);
    window.resize(WINDOW, 0.0);
    window
}

/// The samples of some frames, from -1 to 1.
pub(super) fn frame_samples(samples: &[i16], frames: &Range<usize>) -> Vec<f32> {
    let place = |frame: usize| (ORIGIN + frame * FRAME_STEP).min(samples.len());
    to_float(&samples[place(frames.start)..place(frames.end)])
}

/// Where a frame begins, in seconds.
#[expect(clippy::cast_precision_loss, reason = "a recording's samples")]
pub(super) fn seconds(frame: usize) -> f64 {
    (ORIGIN + frame * FRAME_STEP) as f64 / f64::from(SAMPLE_RATE)
}

fn to_float(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|&sample| f32::from(sample) / 32_768.0).collect()
}

impl Timeline {
    /// The windows have to be in order.
    pub(super) fn new(windows: Vec<Window>, samples: usize) -> Self {
        let seen = windows.last().map_or(0, |window| window.first + FRAMES);
        Self { windows, frames: samples.saturating_sub(ORIGIN).div_ceil(FRAME_STEP).min(seen) }
    }

    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    pub(super) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// The windows that see a frame, by their indices.
    pub(super) fn around(&self, frame: usize) -> Range<usize> {
        let first = self.windows.partition_point(|window| window.first + FRAMES <= frame);
        first..self.windows.partition_point(|window| window.first <= frame)
    }

    /// How many voices are heard in a frame, on average of its windows.
    pub(super) fn voices(&self, frame: usize) -> usize {
        let around = self.around(frame);
        let heard: usize =
            self.windows[around.clone()].iter().map(|window| window.voices_at(frame).count_ones() as usize).sum();
        (2 * heard + around.len()).checked_div(2 * around.len()).unwrap_or(0)
    }

    /// Stretches in which one voice is heard, and always the same one: between pauses, changes and overlaps.
    pub(super) fn utterances(&self) -> Vec<Range<usize>> {
        let alone: Vec<bool> = (0..self.frames).map(|frame| self.is_one_voice(frame)).collect();
        let changes: Vec<bool> = (0..self.frames).map(|frame| self.is_change(frame)).collect();
        let mut bounds: Vec<usize> = runs(&changes).map(|run| usize::midpoint(run.start, run.end)).collect();
        bounds.push(self.frames);
        let mut utterances = Vec::new();
        for run in runs(&alone) {
            let mut start = run.start;
            let first = bounds.partition_point(|&bound| bound <= start);
            let ends = bounds[first..].iter().copied().take_while(|&bound| bound < run.end).chain([run.end]);
            for end in ends {
                utterances.extend(pieces(start..end).filter(|piece| piece.len() >= SHORTEST));
                start = end;
            }
        }
        utterances
    }

    /// For a window, the utterances that it sees, and the voice that it hears in most of each.
    pub(super) fn voices_of(window: &Window, utterances: &[Range<usize>]) -> Vec<(usize, Voices)> {
        let end = window.first + FRAMES;
        let first = utterances.partition_point(|utterance| utterance.end <= window.first);
        let seen = utterances.iter().enumerate().skip(first).take_while(|(_, utterance)| utterance.start < end);
        seen.filter_map(|(index, utterance)| {
            let frames = utterance.start.max(window.first)..utterance.end.min(end);
            let voice = voices().max_by_key(|voice| window.heard(*voice, frames.clone()))?;
            (2 * window.heard(voice, frames.clone()) > frames.len()).then_some((index, voice))
        })
        .collect()
    }

    /// Whether most windows hear one voice, and no other.
    fn is_one_voice(&self, frame: usize) -> bool {
        let around = self.around(frame);
        let one = self.windows[around.clone()].iter().filter(|window| window.voices_at(frame).is_power_of_two());
        2 * one.count() > around.len()
    }

    /// Whether of the windows that hear one voice before and after a frame, most hear another one after it.
    fn is_change(&self, frame: usize) -> bool {
        let (Some(before), after) = (frame.checked_sub(BLUR), frame + BLUR) else { return false };
        let around = self.around(before).start.max(self.around(after).start)..self.around(before).end;
        let (mut same, mut other) = (0, 0);
        for window in self.windows.get(around).unwrap_or_default() {
            let (before, after) = (window.voices_at(before), window.voices_at(after));
            if before.is_power_of_two() && after.is_power_of_two() {
                if before == after { same += 1 } else { other += 1 }
            }
        }
        other > same
    }
}

impl Window {
    /// The voices heard in a frame of the recording; none in one that it does not see.
    pub(super) fn voices_at(&self, frame: usize) -> Voices {
        frame.checked_sub(self.first).and_then(|frame| self.voices.get(frame).copied()).unwrap_or(0)
    }

    fn heard(&self, voice: Voices, frames: Range<usize>) -> usize {
        frames.filter(|&frame| self.voices_at(frame) & voice != 0).count()
    }
}

/// Each voice of a window as its bit.
pub(super) fn voices() -> impl DoubleEndedIterator<Item = Voices> {
    (0..VOICES).map(|voice| 1 << voice)
}

/// The ranges in which it is so.
fn runs(so: &[bool]) -> impl Iterator<Item = Range<usize>> {
    so.chunk_by(|a, b| a == b)
        .scan(0, |start, run| {
            let range = *start..*start + run.len();
            *start = range.end;
            Some((run[0], range))
        })
        .filter_map(|(so, range)| so.then_some(range))
}

/// A range in equal pieces, none of them longer than an utterance may be.
fn pieces(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let count = range.len().div_ceil(LONGEST).max(1);
    let bound = move |index| range.start + range.len() * index / count;
    (0..count).map(move |index| bound(index)..bound(index + 1))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const A: Voices = 0b001;
    const B: Voices = 0b010;
    const C: Voices = 0b100;

    /// A recording of so many frames; what each of its windows, by its index, hears in a frame.
    pub(in super::super) fn timeline(frames: usize, heard: impl Fn(usize, usize) -> Voices) -> Timeline {
        let samples = ORIGIN + frames * FRAME_STEP;
        let windows = window_starts(samples).into_iter().enumerate().map(|(index, first)| Window {
            first,
            voices: (first..first + FRAMES).map(|frame| if frame < frames { heard(index, frame) } else { 0 }).collect(),
        });
        Timeline::new(windows.collect(), samples)
    }

    #[test]
    fn windows_overlap_and_reach_the_end_of_the_recording() {
        assert_eq!(window_starts(0), [0; 0]);
        for samples in [1, 269, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 270, 3 * WINDOW, 57_600_123] {
            let starts = window_starts(samples);
            assert_eq!(starts[0], 0);
            assert!(starts.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] <= STEP), "{samples}");
            let last = starts[starts.len() - 1] * FRAME_STEP;
            assert!(
                last < samples && samples <= last + WINDOW && last + WINDOW < samples + WINDOW.max(samples),
                "{samples}"
            );
        }
    }

    #[test]
    fn a_window_beyond_the_end_is_filled_with_silence() {
        let window = window_samples(&[16_384; 1000], 2);
        assert_eq!(window.len(), WINDOW);
        assert_eq!(window[..460], [0.5; 460]);
        assert_eq!(window[460..], vec![0.0; WINDOW - 460]);
    }

    #[test]
    fn an_utterance_ends_at_a_pause_at_an_overlap_and_at_a_change() {
        let heard = |_, frame| match frame {
            100..150 | 160..200 => A,
            200..220 => A | B,
            220..300 => B,
            300..400 => C,
            _ => 0,
        };
        assert_eq!(timeline(1000, heard).utterances(), [100..150, 160..200, 220..300, 300..400]);
    }

    #[test]
    fn voices_are_named_otherwise_in_each_window_and_windows_differ_on_where_a_change_is() {
        let names = [[A, B], [B, C], [C, A], [B, A], [A, C]];
        let heard = |window: usize, frame: usize| match frame + window % 3 {
            450..550 => names[window % 5][0],
            550..650 => names[window % 5][1],
            _ => 0,
        };
        let utterances = timeline(1000, heard).utterances();
        let [first, second] = utterances.try_into().unwrap();
        assert!(first.start.abs_diff(450) <= 2 && first.end.abs_diff(549) <= 2, "{first:?}");
        assert_eq!(first.end, second.start);
        assert!(second.end.abs_diff(650) <= 2, "{second:?}");
    }

    #[test]
    fn the_majority_of_the_windows_decides() {
        let one_in_four =
            |window: usize, frame| if window.is_multiple_of(4) && (600..800).contains(&frame) { A } else { 0 };
        assert_eq!(timeline(2000, one_in_four).utterances(), Vec::<Range<usize>>::new());
        let three_in_four =
            |window: usize, frame| if !window.is_multiple_of(4) && (600..800).contains(&frame) { A } else { 0 };
        assert_eq!(timeline(2000, three_in_four).utterances(), std::slice::from_ref(&(600..800)));
        assert_eq!(timeline(2000, three_in_four).voices(700), 1);
        assert_eq!(timeline(2000, one_in_four).voices(700), 0);
    }

    #[test]
    fn a_long_utterance_is_cut_into_equal_pieces_and_a_short_one_is_left_out() {
        let heard = |_, frame| if frame < 700 || (800..805).contains(&frame) { A } else { 0 };
        assert_eq!(timeline(1000, heard).utterances(), [0..233, 233..466, 466..700]);
    }

    #[test]
    fn a_window_knows_an_utterance_by_the_voice_that_it_mostly_hears() {
        let heard = |_, frame| {
            if (100..130).contains(&frame) {
                A | B
            } else if frame < 200 {
                B
            } else {
                0
            }
        };
        let timeline = timeline(500, heard);
        let voices = Timeline::voices_of(&timeline.windows()[0], &[20..200, 190..240, 700..800]);
        assert_eq!(voices, [(0, B)]);
    }
}
