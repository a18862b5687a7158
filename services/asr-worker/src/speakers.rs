//! Who says a segment: the speaker whose turns share the most time with it.

use jm_tasks::{SpeakerTurn, TranscriptSegment};

/// Gives every segment its speaker, if it is known who speaks when. A segment that no turn touches belongs to the
/// nearest one: somebody said it.
pub(crate) fn assign(segments: &mut [TranscriptSegment], turns: &[SpeakerTurn]) {
    for segment in segments {
        segment.speaker = speaker(segment, turns).map(str::to_owned);
    }
}

fn speaker<'a>(segment: &TranscriptSegment, turns: &'a [SpeakerTurn]) -> Option<&'a str> {
    // By speaker and not by turn: several short turns of one may outweigh a longer one of another.
    let mut shared: Vec<(&str, f64)> = Vec::new();
    for turn in turns {
        let overlap = segment.end.min(turn.end) - segment.start.max(turn.start);
        if overlap <= 0.0 {
            continue;
        }
        match shared.iter_mut().find(|(speaker, _)| *speaker == turn.speaker) {
            Some((_, time)) => *time += overlap,
            None => shared.push((&turn.speaker, overlap)),
        }
    }
    // Of two with the same time, whoever begins.
    let most = shared.into_iter().reduce(|most, other| if other.1 > most.1 { other } else { most });
    let most = most.map(|(speaker, _)| speaker);
    most.or_else(|| {
        let nearest = turns.iter().min_by(|a, b| distance(segment, a).total_cmp(&distance(segment, b)));
        nearest.map(|turn| turn.speaker.as_str())
    })
}

/// The time between a segment and a turn that do not overlap.
fn distance(segment: &TranscriptSegment, turn: &SpeakerTurn) -> f64 {
    (turn.start - segment.end).max(segment.start - turn.end).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(start: f64, end: f64, speaker: &str) -> SpeakerTurn {
        SpeakerTurn { start, end, speaker: speaker.into() }
    }

    fn speakers(turns: &[SpeakerTurn], segments: &[(f64, f64)]) -> Vec<Option<String>> {
        let segment = |&(start, end): &(f64, f64)| TranscriptSegment { start, end, text: "x".into(), speaker: None };
        let mut segments: Vec<TranscriptSegment> = segments.iter().map(segment).collect();
        assign(&mut segments, turns);
        segments.into_iter().map(|segment| segment.speaker).collect()
    }

    #[test]
    fn a_segment_belongs_to_whoever_speaks_most_of_it() {
        let turns = [turn(0.0, 4.0, "A"), turn(4.0, 6.0, "B"), turn(6.0, 7.5, "A"), turn(20.0, 30.0, "B")];
        let segments = [(0.5, 3.0), (3.5, 6.0), (4.0, 9.0), (3.0, 8.0), (2.0, 6.0), (12.0, 19.0), (40.0, 41.0)];
        let found = speakers(&turns, &segments);
        assert_eq!(found.iter().map(|speaker| speaker.as_deref().unwrap()).collect::<String>(), "ABBAABB");
    }

    #[test]
    fn without_turns_there_are_no_speakers() {
        assert_eq!(speakers(&[], &[(0.0, 1.0)]), [None]);
    }
}
