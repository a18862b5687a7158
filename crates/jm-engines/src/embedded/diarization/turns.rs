//! From utterances and their speakers to turns.

use jm_tasks::SpeakerTurn;

use super::{
    clustering::Utterance,
    segmentation::Voices,
    timeline::{Timeline, seconds, voices},
};

/// Frames of a pause within a turn, 0.3 s: who pauses longer may have been answered.
const PAUSE: usize = 18;
/// Frames of the shortest turn, 0.2 s: what is shorter is no word.
const LEAST: usize = 12;

/// Some frames in which one speaker is heard.
struct Turn {
    speaker: usize,
    start: usize,
    end: usize,
}

/// Who is heard in each frame, as the windows have it.
struct Votes<'a> {
    timeline: &'a Timeline,
    utterances: &'a [Utterance],
    speakers: &'a [usize],
    /// For each window, the utterances that it hears, and in which voice.
    heard: Vec<Vec<(usize, Voices)>>,
}

/// Turns in order of their beginning, the speakers named in the order in which they are first heard. `speakers` has
/// the number of each utterance's; `duration` is the recording's, in seconds.
pub(super) fn turns(
    timeline: &Timeline,
    utterances: &[Utterance],
    speakers: &[usize],
    duration: f64,
) -> Vec<SpeakerTurn> {
    let votes = Votes::new(timeline, utterances, speakers);
    let mut turns: Vec<Turn> = Vec::new();
    // Each speaker's last turn.
    let mut last: Vec<Option<usize>> = vec![None; speakers.iter().max().map_or(0, |most| most + 1)];
    let mut next = 0;
    for frame in 0..timeline.frames() {
        next += usize::from(utterances.get(next).is_some_and(|utterance| utterance.frames.end <= frame));
        let within = utterances.get(next).is_some_and(|utterance| utterance.frames.contains(&frame));
        let heard = if within { vec![speakers[next]] } else { votes.at(frame) };
        for speaker in heard {
            match last[speaker].map(|turn| &mut turns[turn]) {
                Some(turn) if frame - turn.end <= PAUSE => turn.end = frame + 1,
                _ => {
                    last[speaker] = Some(turns.len());
                    turns.push(Turn { speaker, start: frame, end: frame + 1 });
                }
            }
        }
    }
    turns.retain(|turn| turn.end - turn.start >= LEAST);
    named(&turns, duration)
}

impl<'a> Votes<'a> {
    fn new(timeline: &'a Timeline, utterances: &'a [Utterance], speakers: &'a [usize]) -> Self {
        let frames: Vec<_> = utterances.iter().map(|utterance| utterance.frames.clone()).collect();
        let heard = timeline.windows().iter().map(|window| Timeline::voices_of(window, &frames)).collect();
        Self { timeline, utterances, speakers, heard }
    }

    /// The speakers of a frame that is not in an utterance: as many as there are voices, those with the most votes.
    fn at(&self, frame: usize) -> Vec<usize> {
        let voices_here = self.timeline.voices(frame);
        let mut votes: Vec<(usize, usize)> = Vec::new();
        for index in self.timeline.around(frame) {
            let window = &self.timeline.windows()[index];
            for voice in voices().filter(|voice| window.voices_at(frame) & voice != 0) {
                let Some(speaker) = self.speaker(index, voice, frame) else { continue };
                match votes.iter_mut().find(|(of, _)| *of == speaker) {
                    Some((_, votes)) => *votes += 1,
                    None => votes.push((speaker, 1)),
                }
            }
        }
        votes.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        votes.into_iter().map(|(speaker, _)| speaker).take(voices_here).collect()
    }

    /// Whose voice it is in a window: whoever says the nearest utterance in it.
    fn speaker(&self, index: usize, voice: Voices, frame: usize) -> Option<usize> {
        let distance = |utterance: usize| {
            let frames = &self.utterances[utterance].frames;
            frames.start.saturating_sub(frame).max((frame + 1).saturating_sub(frames.end))
        };
        let in_voice = self.heard[index].iter().filter(|(_, of)| *of == voice).map(|(utterance, _)| *utterance);
        in_voice.min_by_key(|&utterance| distance(utterance)).map(|utterance| self.speakers[utterance])
    }
}

fn named(turns: &[Turn], duration: f64) -> Vec<SpeakerTurn> {
    let mut order: Vec<usize> = Vec::new();
    let named = turns.iter().map(|turn| {
        let known = order.iter().position(|&speaker| speaker == turn.speaker);
        let number = known.unwrap_or_else(|| {
            order.push(turn.speaker);
            order.len() - 1
        });
        let speaker = format!("SPEAKER_{number:02}");
        SpeakerTurn { start: seconds(turn.start), end: seconds(turn.end).min(duration), speaker }
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::embedded::diarization::timeline::tests::timeline;

    const A: Voices = 0b001;
    const B: Voices = 0b010;

    /// Turns in frames, from utterances and their speakers.
    fn found(
        heard: impl Fn(usize, usize) -> Voices,
        utterances: &[(Range<usize>, usize)],
    ) -> Vec<(usize, usize, String)> {
        let speakers: Vec<usize> = utterances.iter().map(|(_, speaker)| *speaker).collect();
        let utterances: Vec<_> =
            utterances.iter().map(|(frames, _)| Utterance { frames: frames.clone(), voice: Vec::new() }).collect();
        let frame = |time: f64| (0..2000).find(|&frame| (seconds(frame) - time).abs() < 1e-9).unwrap();
        turns(&timeline(1000, heard), &utterances, &speakers, seconds(990))
            .into_iter()
            .map(|turn| (frame(turn.start), frame(turn.end), turn.speaker.replace("SPEAKER_", "")))
            .collect()
    }

    fn expected(turns: &[(usize, usize, &str)]) -> Vec<(usize, usize, String)> {
        turns.iter().map(|&(start, end, speaker)| (start, end, speaker.to_owned())).collect()
    }

    #[test]
    fn speakers_are_named_in_the_order_in_which_they_are_heard() {
        let utterances = [(100..200, 7), (200..300, 2), (300..400, 7), (500..600, 4)];
        let turns = found(|_, _| 0, &utterances);
        assert_eq!(turns, expected(&[(100, 200, "00"), (200, 300, "01"), (300, 400, "00"), (500, 600, "02")]));
        assert_eq!(found(|_, _| 0, &[]), []);
    }

    #[test]
    fn a_turn_goes_on_over_a_short_pause_and_one_that_is_no_word_is_left_out() {
        let utterances = [(100..150, 0), (150 + PAUSE..250, 0), (251 + PAUSE..300, 0), (400..400 + LEAST - 1, 1)];
        let turns = found(|_, _| 0, &utterances);
        assert_eq!(turns, expected(&[(100, 250, "00"), (251 + PAUSE, 300, "00")]));
    }

    #[test]
    fn who_speak_at_once_each_have_their_turn() {
        let heard = |_, frame| match frame {
            100..200 => A,
            200..250 => A | B,
            250..300 => B,
            _ => 0,
        };
        let turns = found(heard, &[(100..200, 0), (250..300, 1)]);
        assert_eq!(turns, expected(&[(100, 250, "00"), (200, 300, "01")]));
    }

    #[test]
    fn one_voice_of_the_segmentation_may_be_two_people() {
        // The frames between the utterances are whose utterance is nearer.
        let heard = |_, frame| if (100..300).contains(&frame) { A } else { 0 };
        let turns = found(heard, &[(100..190, 0), (210..300, 1)]);
        assert_eq!(turns, expected(&[(100, 200, "00"), (200, 300, "01")]));
    }

    #[test]
    fn no_turn_is_longer_than_the_recording() {
        let turns = found(|_, _| 0, &[(900..1000, 0)]);
        assert_eq!(turns, expected(&[(900, 990, "00")]));
    }
}
