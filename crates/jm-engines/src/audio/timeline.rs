//! Where the sound of a packet belongs, and which part of it is played.

use std::collections::VecDeque;

use super::mp4::Edit;

/// How far a packet's time may be behind what was decoded so far before the pause is kept: times are often rounded.
const PAUSE_SECONDS: f64 = 0.1;

/// Turns what packets are decoded to into what is played: parts that are not to be played are left out, pauses are kept.
///
/// All numbers of frames are at the rate of what is pushed.
#[derive(Default)]
pub(super) struct Timeline {
    /// Frames to be left out at the beginning: what the encoder had to put there.
    pub(super) delay: u64,
    /// Seconds of the track so far.
    clock: f64,
    /// Parts still to be played; `None` is all.
    edits: Option<VecDeque<Edit>>,
    /// The end of what was pushed, which may turn out to be what the encoder added.
    held: Vec<f32>,
    /// Seconds that are left out because they cannot be decoded.
    pub(super) lost: f64,
}

/// What is played next.
pub(super) enum Played<'a> {
    Sound(&'a [f32]),
    /// Seconds.
    Silence(f64),
}

/// An edit list that cannot be followed in one go.
#[derive(Debug)]
pub(super) struct OutOfOrder;

impl Timeline {
    /// Plays these parts only.
    pub(super) fn edited(edits: &[Edit]) -> Result<Self, OutOfOrder> {
        let mut end = 0.0;
        for edit in edits {
            let Some(start) = edit.start else { continue };
            // Times are rounded to ticks.
            if start < end - 0.001 {
                return Err(OutOfOrder);
            }
            end = start + edit.length;
        }
        // Silence at the beginning is how a track is moved to where the picture begins.
        let edits = edits.iter().skip_while(|edit| edit.start.is_none()).copied().collect();
        Ok(Self { edits: Some(edits), ..Self::default() })
    }

    /// The end of the last part that will be played, by the track's time.
    pub(super) fn end(&self) -> Option<f64> {
        let last = self.edits.as_ref()?.iter().rev().find_map(|edit| Some(edit.start? + edit.length));
        last.filter(|seconds| seconds.is_finite())
    }

    /// Nothing more will be played.
    pub(super) fn is_over(&self) -> bool {
        self.edits.as_ref().is_some_and(VecDeque::is_empty)
    }

    /// A packet begins at this time of the track: a pause before it is kept.
    pub(super) fn reach<E>(
        &mut self,
        seconds: f64,
        play: &mut impl FnMut(Played<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let pause = seconds - self.clock;
        if pause > PAUSE_SECONDS { self.silence(pause, play) } else { Ok(()) }
    }

    /// Nothing is heard for so long.
    pub(super) fn silence<E>(
        &mut self,
        seconds: f64,
        play: &mut impl FnMut(Played<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.clock + seconds;
        if self.edits.is_none() {
            self.clock = end;
            return play(Played::Silence(seconds));
        }
        while let Some((from, to)) = self.part(end, play)? {
            play(Played::Silence(to - from))?;
        }
        self.clock = self.clock.max(end);
        Ok(())
    }

    /// Adds what a packet was decoded to; its last `doubtful` frames are played once more comes.
    pub(super) fn push<E>(
        &mut self,
        rate: u32,
        mono: &[f32],
        doubtful: usize,
        play: &mut impl FnMut(Played<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let late = usize::try_from(self.delay).unwrap_or(usize::MAX).min(mono.len());
        self.delay -= late as u64;
        let mono = &mono[late..];
        if doubtful == 0 && self.held.is_empty() {
            return self.cut(rate, mono, play);
        }
        let mut frames = std::mem::take(&mut self.held);
        frames.extend_from_slice(mono);
        let sure = frames.len().saturating_sub(doubtful);
        self.cut(rate, &frames[..sure], play)?;
        self.held = frames.split_off(sure);
        Ok(())
    }

    /// Plays what was held back, unless it is known to be the encoder's own.
    pub(super) fn finish<E>(
        &mut self,
        rate: u32,
        padded: bool,
        play: &mut impl FnMut(Played<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let held = std::mem::take(&mut self.held);
        if padded { Ok(()) } else { self.cut(rate, &held, play) }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "frames of one packet"
    )]
    fn cut<E>(&mut self, rate: u32, mono: &[f32], play: &mut impl FnMut(Played<'_>) -> Result<(), E>) -> Result<(), E> {
        if mono.is_empty() {
            return Ok(());
        }
        let (begin, rate) = (self.clock, f64::from(rate));
        let end = begin + mono.len() as f64 / rate;
        if self.edits.is_none() {
            self.clock = end;
            return play(Played::Sound(mono));
        }
        while let Some((from, to)) = self.part(end, play)? {
            let frame = |time: f64| (((time - begin) * rate).round() as usize).min(mono.len());
            play(Played::Sound(&mono[frame(from)..frame(to)]))?;
        }
        self.clock = self.clock.max(end);
        Ok(())
    }

    /// The next part to be played between the clock and `end`, to which the clock moves. Silence between parts is played.
    fn part<E>(
        &mut self,
        end: f64,
        play: &mut impl FnMut(Played<'_>) -> Result<(), E>,
    ) -> Result<Option<(f64, f64)>, E> {
        let Some(edits) = &mut self.edits else { return Ok(None) };
        while let Some(edit) = edits.front() {
            let Some(start) = edit.start else {
                play(Played::Silence(edit.length))?;
                edits.pop_front();
                continue;
            };
            let stop = start + edit.length;
            let (from, to) = (self.clock.max(start), end.min(stop));
            if from >= end {
                return Ok(None);
            }
            if end >= stop {
                edits.pop_front();
            }
            if from < to {
                self.clock = to;
                return Ok(Some((from, to)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is played of packets of a second at 10 Hz, each of which has its number as its samples: runs of what is heard,
    /// with their lengths in frames.
    fn played(timeline: &mut Timeline, packets: &[(f64, f32)]) -> Vec<(f32, usize)> {
        let mut runs: Vec<(f32, usize)> = Vec::new();
        let mut play = |played: Played<'_>| {
            let frames = match played {
                Played::Sound(mono) => mono.to_vec(),
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]
                Played::Silence(seconds) => vec![0.0; (seconds * 10.0).round() as usize],
            };
            for frame in frames {
                match runs.last_mut() {
                    Some((last, count)) if last.to_bits() == frame.to_bits() => *count += 1,
                    _ => runs.push((frame, 1)),
                }
            }
            Ok::<(), ()>(())
        };
        for &(time, number) in packets {
            timeline.reach(time, &mut play).unwrap();
            timeline.push(10, &[number; 10], 0, &mut play).unwrap();
        }
        runs
    }

    const PACKETS: [(f64, f32); 4] = [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)];

    fn edit(start: f64, length: f64) -> Edit {
        Edit { start: Some(start), length }
    }

    #[test]
    fn without_edits_all_is_played_but_for_the_delay_and_pauses_are_kept() {
        assert_eq!(played(&mut Timeline::default(), &PACKETS[..2]), [(1.0, 10), (2.0, 10)]);
        let mut delayed = Timeline { delay: 13, ..Timeline::default() };
        assert_eq!(played(&mut delayed, &[(0.0, 1.0), (0.0, 2.0)]), [(2.0, 7)]);
        let late = [(0.0, 1.0), (1.05, 2.0), (4.0, 3.0)];
        assert_eq!(played(&mut Timeline::default(), &late), [(1.0, 10), (2.0, 10), (0.0, 20), (3.0, 10)]);
    }

    #[test]
    fn of_an_edited_track_only_its_parts_are_played_and_silence_between_them() {
        let parts = [edit(0.5, 1.0), Edit { start: None, length: 0.3 }, edit(3.2, f64::INFINITY)];
        let mut timeline = Timeline::edited(&parts).unwrap();
        assert_eq!(played(&mut timeline, &PACKETS), [(1.0, 5), (2.0, 5), (0.0, 3), (4.0, 8)]);
        assert!(!timeline.is_over());
        let mut timeline = Timeline::edited(&[edit(1.0, 2.0)]).unwrap();
        assert_eq!(played(&mut timeline, &PACKETS), [(2.0, 10), (3.0, 10)]);
        assert!(timeline.is_over());
        // A pause within a part is kept, and one outside of it is not played.
        let late = [(0.0, 1.0), (3.0, 2.0)];
        assert_eq!(played(&mut Timeline::edited(&[edit(0.5, 3.0)]).unwrap(), &late), [(1.0, 5), (0.0, 20), (2.0, 5)]);
        assert_eq!(played(&mut Timeline::edited(&[edit(3.5, 3.0)]).unwrap(), &late), [(2.0, 5)]);
        assert!(Timeline::edited(&[edit(2.0, 1.0), edit(0.0, 1.0)]).is_err());
    }

    #[test]
    fn a_doubtful_end_is_played_once_more_comes_or_if_it_is_sound() {
        for (padded, heard) in [(true, 17), (false, 20)] {
            let (mut timeline, mut frames) = (Timeline::default(), 0);
            let mut play = |played: Played<'_>| {
                if let Played::Sound(mono) = played {
                    frames += mono.len();
                }
                Ok::<(), ()>(())
            };
            for _ in 0..2 {
                timeline.push(10, &[1.0; 10], 3, &mut play).unwrap();
            }
            timeline.finish(10, padded, &mut play).unwrap();
            assert_eq!(frames, heard);
        }
    }
}
