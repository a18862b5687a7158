//! Who says a segment: the speaker whose turns share the most time with it.

use std::{cmp::Ordering, collections::HashMap};

use jm_mq_core::HandlerError;
use jm_tasks::{SpeakerTurn, TranscriptSegment};

/// The longest name of a speaker, in bytes. It is repeated in every segment, and is no more than a label.
const MAX_NAME_BYTES: usize = 200;
/// As many as anybody can tell apart.
const MAX_SPEAKERS: usize = 100;

/// Who speaks when, ready to be asked for each segment.
pub(crate) struct Speakers {
    /// In the order in which they are first heard.
    speakers: Vec<Speaker>,
}

/// One speaker, and where they speak.
struct Speaker {
    name: String,
    /// In order, and without any overlap: so the few that touch a segment are found without looking at the others.
    stretches: Vec<Stretch>,
}

struct Stretch {
    start: f64,
    end: f64,
}

impl Speakers {
    /// Takes a task's turns, in any order.
    ///
    /// # Errors
    ///
    /// Permanent ones, which name the field and what is allowed: too many speakers, a name that is none,
    /// times that are none. No name is repeated in them.
    pub(crate) fn new(mut turns: Vec<SpeakerTurn>) -> Result<Self, HandlerError> {
        for (index, turn) in turns.iter().enumerate() {
            check(turn).map_err(|wrong| HandlerError::permanent(format!("turns[{index}].{wrong}")))?;
        }
        turns.sort_by(|a, b| a.start.total_cmp(&b.start));
        let mut speakers: Vec<Speaker> = Vec::new();
        let mut indices: HashMap<String, usize> = HashMap::new();
        for SpeakerTurn { start, end, speaker: name } in turns {
            let stretch = Stretch { start, end };
            if let Some(&index) = indices.get(&name) {
                speakers[index].speak(stretch);
                continue;
            }
            if speakers.len() == MAX_SPEAKERS {
                return Err(HandlerError::permanent(format!("turns: more than {MAX_SPEAKERS} different speakers")));
            }
            indices.insert(name.clone(), speakers.len());
            speakers.push(Speaker { name, stretches: vec![stretch] });
        }
        Ok(Self { speakers })
    }

    /// Gives every segment its speaker, if it is known who speaks when. A segment that no turn touches belongs to the
    /// nearest one: somebody said it.
    pub(crate) fn assign(&self, segments: &mut [TranscriptSegment]) {
        for segment in segments {
            segment.speaker = self.of(segment).map(|speaker| speaker.name.clone());
        }
    }

    fn of(&self, segment: &TranscriptSegment) -> Option<&Speaker> {
        let shared = self.speakers.iter().filter_map(|speaker| Some((speaker, speaker.shared(segment)?)));
        // Of two with the same time, whoever begins.
        let most = shared.min_by(|(_, a), (_, b)| b.time.total_cmp(&a.time).then(a.begin.total_cmp(&b.begin)));
        let most = most.map(|(speaker, _)| speaker);
        most.or_else(|| {
            let near = self.speakers.iter().filter_map(|speaker| Some((speaker, speaker.nearest(segment)?)));
            near.min_by(|(_, a), (_, b)| a.compare(b)).map(|(speaker, _)| speaker)
        })
    }
}

fn check(turn: &SpeakerTurn) -> Result<(), String> {
    let SpeakerTurn { start, end, speaker } = turn;
    if speaker.is_empty() {
        return Err("speaker: empty".to_owned());
    }
    if speaker.len() > MAX_NAME_BYTES {
        return Err(format!("speaker: {} bytes; at most {MAX_NAME_BYTES} are a name", speaker.len()));
    }
    for (field, time) in [("start", start), ("end", end)] {
        if !time.is_finite() || *time < 0.0 {
            return Err(format!("{field}: {time}; there have to be 0 seconds or more"));
        }
    }
    if end < start {
        return Err(format!("end: {end}; it has to be at or after start, {start}"));
    }
    Ok(())
}

/// What a speaker has of a segment.
struct Share {
    time: f64,
    begin: f64,
}

/// How far a stretch is from a segment, and where it begins.
struct Near {
    distance: f64,
    begin: f64,
}

impl Near {
    /// Of two that are as near, the earlier one.
    fn compare(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.begin.total_cmp(&other.begin))
    }
}

impl Speaker {
    /// One more stretch, which begins no earlier than those before.
    fn speak(&mut self, stretch: Stretch) {
        match self.stretches.last_mut() {
            Some(last) if stretch.start <= last.end => last.end = last.end.max(stretch.end),
            _ => self.stretches.push(stretch),
        }
    }

    /// The time of the segment in which they speak; `None` if they do not.
    ///
    /// All stretches together, and not the longest: several short ones may outweigh a longer one of somebody else.
    fn shared(&self, segment: &TranscriptSegment) -> Option<Share> {
        let first = self.stretches.partition_point(|stretch| stretch.end <= segment.start);
        let within = self.stretches[first..].iter().take_while(|stretch| stretch.start < segment.end);
        within.fold(None, |share: Option<Share>, stretch| {
            let time = segment.end.min(stretch.end) - segment.start.max(stretch.start);
            match share {
                Some(Share { time: before, begin }) => Some(Share { time: before + time, begin }),
                // One without any length shares nothing.
                None => (time > 0.0).then_some(Share { time, begin: stretch.start }),
            }
        })
    }

    /// The nearest stretch to a segment that shares nothing with it.
    fn nearest(&self, segment: &TranscriptSegment) -> Option<Near> {
        let next = self.stretches.partition_point(|stretch| stretch.end < segment.start);
        let beside = &self.stretches[next.saturating_sub(1)..self.stretches.len().min(next + 1)];
        let near = beside.iter().map(|stretch| Near {
            distance: (stretch.start - segment.end).max(segment.start - stretch.end).max(0.0),
            begin: stretch.start,
        });
        near.min_by(Near::compare)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn turn(start: f64, end: f64, speaker: &str) -> SpeakerTurn {
        SpeakerTurn { start, end, speaker: speaker.into() }
    }

    fn segment(&(start, end): &(f64, f64)) -> TranscriptSegment {
        TranscriptSegment { start, end, text: "x".into(), speaker: None }
    }

    fn speakers(turns: &[SpeakerTurn], segments: &[(f64, f64)]) -> Vec<Option<String>> {
        let mut segments: Vec<TranscriptSegment> = segments.iter().map(segment).collect();
        Speakers::new(turns.to_vec()).unwrap().assign(&mut segments);
        segments.into_iter().map(|segment| segment.speaker).collect()
    }

    fn names(turns: &[SpeakerTurn], segments: &[(f64, f64)]) -> String {
        speakers(turns, segments).iter().map(|speaker| speaker.as_deref().unwrap()).collect()
    }

    fn refused(turns: Vec<SpeakerTurn>) -> String {
        let error = Speakers::new(turns).err().unwrap();
        assert!(error.is_permanent(), "{error}");
        error.to_string()
    }

    #[test]
    fn a_segment_belongs_to_whoever_speaks_most_of_it() {
        let mut turns = vec![turn(0.0, 4.0, "A"), turn(4.0, 6.0, "B"), turn(6.0, 7.5, "A"), turn(20.0, 30.0, "B")];
        let segments = [(0.5, 3.0), (3.5, 6.0), (4.0, 9.0), (3.0, 8.0), (2.0, 6.0), (12.0, 19.0), (40.0, 41.0)];
        assert_eq!(names(&turns, &segments), "ABBAABB");
        turns.reverse();
        assert_eq!(names(&turns, &segments), "ABBAABB", "in any order");
    }

    #[test]
    fn of_two_with_the_same_time_or_distance_whoever_begins_has_the_segment() {
        // B is heard first of all, but A begins the segment.
        let turns = [turn(0.0, 1.0, "B"), turn(4.0, 5.0, "A"), turn(5.0, 6.0, "B")];
        assert_eq!(names(&turns, &[(4.0, 6.0), (2.0, 3.0), (4.5, 4.5)]), "ABA");
        assert_eq!(names(&[turn(8.0, 9.0, "B"), turn(2.0, 3.0, "A")], &[(5.0, 6.0)]), "A");
    }

    #[test]
    fn a_speakers_turns_that_overlap_count_once() {
        let turns = [turn(0.0, 2.0, "A"), turn(0.0, 2.0, "A"), turn(1.0, 2.0, "A"), turn(2.0, 5.0, "B")];
        assert_eq!(names(&turns, &[(0.0, 5.0)]), "B");
    }

    #[test]
    fn without_turns_there_are_no_speakers() {
        assert_eq!(speakers(&[], &[(0.0, 1.0)]), [None]);
    }

    #[test]
    fn turns_beyond_a_limit_are_refused_with_their_field_and_the_limit() {
        let many = (0..=MAX_SPEAKERS).map(|n| turn(0.0, 1.0, &n.to_string())).collect();
        assert_eq!(refused(many), "turns: more than 100 different speakers");
        let canary = "canary".repeat(40);
        for (wrong, reason) in [
            (turn(0.0, 1.0, ""), "turns[1].speaker: empty"),
            (turn(0.0, 1.0, &canary), "turns[1].speaker: 240 bytes; at most 200 are a name"),
            (turn(-0.5, 1.0, "A"), "turns[1].start: -0.5; there have to be 0 seconds or more"),
            (turn(f64::NAN, 1.0, "A"), "turns[1].start: NaN; there have to be 0 seconds or more"),
            (turn(0.0, f64::INFINITY, "A"), "turns[1].end: inf; there have to be 0 seconds or more"),
            (turn(2.0, 1.0, "A"), "turns[1].end: 1; it has to be at or after start, 2"),
        ] {
            assert_eq!(refused(vec![turn(0.0, 0.0, "A"), wrong]), reason);
        }
        let allowed =
            (0..SpeakerTurn::MAX_TURNS).map(|n| turn(0.0, 1.0, &format!("{:0200}", n % MAX_SPEAKERS))).collect();
        assert_eq!(Speakers::new(allowed).unwrap().speakers.len(), MAX_SPEAKERS);
    }

    #[test]
    fn the_most_turns_and_speakers_there_may_be_take_no_time_to_speak_of() {
        // Each speaker begins early and speaks to the end: no turn is ever over.
        let start = |n: usize| f64::from(u32::try_from(n).unwrap());
        let turns: Vec<SpeakerTurn> = (0..SpeakerTurn::MAX_TURNS)
            .map(|n| match n % 2 {
                0 => turn(start(n), start(n) + 0.5, &(n % MAX_SPEAKERS).to_string()),
                _ => turn(start(n), 1e6, &(n % MAX_SPEAKERS).to_string()),
            })
            .collect();
        let segments: Vec<(f64, f64)> = (0..SpeakerTurn::MAX_TURNS).map(|n| (start(n), start(n) + 1.0)).collect();
        let began = Instant::now();
        assert!(speakers(&turns, &segments).iter().all(Option::is_some));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}
