//! The diarization error rate: how much of what is said is missed, invented, or given to somebody else.

use jm_tasks::SpeakerTurn;

/// Seconds on either side of a turn's edges that do not count, as is usual: nobody marks an edge more exactly.
pub(crate) const COLLAR: f64 = 0.25;

/// Seconds of speech; where two speak at once, a second counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct DiarizationError {
    /// Said, and not found.
    pub(crate) missed: f64,
    /// Found, and not said.
    pub(crate) invented: f64,
    /// Found, and said by somebody else.
    pub(crate) confused: f64,
    /// Said in all.
    pub(crate) total: f64,
}

impl DiarizationError {
    /// What is wrong, as a part of what is said. It may exceed 1.
    pub(crate) fn rate(&self) -> f64 {
        (self.missed + self.invented + self.confused) / self.total
    }
}

/// The turns of an RTTM file. A line that is none is left out.
pub(crate) fn rttm(text: &str) -> Vec<SpeakerTurn> {
    let turn = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &["SPEAKER", _, _, start, duration, _, _, speaker, ..] = fields.as_slice() else { return None };
        let start: f64 = start.parse().ok()?;
        Some(SpeakerTurn { start, end: start + duration.parse::<f64>().ok()?, speaker: speaker.to_owned() })
    };
    text.lines().filter_map(turn).collect()
}

/// Compares turns with those of a reference, overlaps included. The names may differ: they are matched so that as much
/// as can be is right.
pub(crate) fn diarization_error(reference: &[SpeakerTurn], found: &[SpeakerTurn], collar: f64) -> DiarizationError {
    let (said_by, found_by) = (speakers(reference), speakers(found));
    let mut error = DiarizationError::default();
    let mut shared = vec![vec![0.0; found_by.len()]; said_by.len()];
    for (start, end) in stretches(reference, found, collar) {
        let middle = f64::midpoint(start, end);
        if edges(reference).any(|edge| (edge - middle).abs() < collar) {
            continue;
        }
        let said: Vec<bool> = said_by.iter().map(|speaker| speaks(reference, speaker, middle)).collect();
        let heard: Vec<bool> = found_by.iter().map(|speaker| speaks(found, speaker, middle)).collect();
        for (row, _) in shared.iter_mut().zip(&said).filter(|(_, said)| **said) {
            row.iter_mut().zip(&heard).filter(|(_, heard)| **heard).for_each(|(time, _)| *time += end - start);
        }
        let [said, heard] =
            [said, heard].map(|active| f64::from(active.iter().map(|&active| u32::from(active)).sum::<u32>()));
        error.total += said * (end - start);
        error.missed += (said - heard).max(0.0) * (end - start);
        error.invented += (heard - said).max(0.0) * (end - start);
        error.confused += said.min(heard) * (end - start);
    }
    error.confused = (error.confused - most_shared(&shared)).max(0.0);
    error
}

fn speakers(turns: &[SpeakerTurn]) -> Vec<&str> {
    let mut speakers: Vec<&str> = turns.iter().map(|turn| turn.speaker.as_str()).collect();
    speakers.sort_unstable();
    speakers.dedup();
    speakers
}

fn edges(turns: &[SpeakerTurn]) -> impl Iterator<Item = f64> {
    turns.iter().flat_map(|turn| [turn.start, turn.end])
}

fn speaks(turns: &[SpeakerTurn], speaker: &str, time: f64) -> bool {
    turns.iter().any(|turn| turn.speaker == speaker && turn.start <= time && time < turn.end)
}

/// Stretches within which nothing begins or ends.
fn stretches(reference: &[SpeakerTurn], found: &[SpeakerTurn], collar: f64) -> Vec<(f64, f64)> {
    let mut times: Vec<f64> = edges(reference).flat_map(|edge| [edge - collar, edge, edge + collar]).collect();
    times.extend(edges(found));
    times.sort_by(f64::total_cmp);
    times.windows(2).map(|pair| (pair[0], pair[1])).filter(|(start, end)| end > start).collect()
}

/// The most that can be shared if each row is matched with one column at most, and each column with one row: the
/// Hungarian algorithm.
fn most_shared(shared: &[Vec<f64>]) -> f64 {
    // Square, with rows and columns that share nothing, and counted from 1: 0 stands for none.
    let size = shared.len().max(shared.first().map_or(0, Vec::len));
    let cost =
        |row: usize, column: usize| -shared.get(row - 1).and_then(|row| row.get(column - 1)).copied().unwrap_or(0.0);
    let (mut row_price, mut column_price) = (vec![0.0; size + 1], vec![0.0; size + 1]);
    let mut matched = vec![0; size + 1];
    for row in 1..=size {
        // A path that alternates between free and matched pairs, to a column that is free.
        let (mut least, mut before) = (vec![f64::INFINITY; size + 1], vec![0; size + 1]);
        let mut seen = vec![false; size + 1];
        let mut column = 0;
        matched[0] = row;
        while matched[column] != 0 {
            seen[column] = true;
            let (at, mut step, mut next) = (matched[column], f64::INFINITY, 0);
            for other in (1..=size).filter(|&other| !seen[other]) {
                let price = cost(at, other) - row_price[at] - column_price[other];
                if price < least[other] {
                    (least[other], before[other]) = (price, column);
                }
                if least[other] < step {
                    (step, next) = (least[other], other);
                }
            }
            for other in 0..=size {
                if seen[other] {
                    row_price[matched[other]] += step;
                    column_price[other] -= step;
                } else {
                    least[other] -= step;
                }
            }
            column = next;
        }
        while column != 0 {
            matched[column] = matched[before[column]];
            column = before[column];
        }
    }
    (1..=size).map(|column| -cost(matched[column], column)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(turns: &[(f64, f64, &str)]) -> Vec<SpeakerTurn> {
        turns.iter().map(|&(start, end, speaker)| SpeakerTurn { start, end, speaker: speaker.into() }).collect()
    }

    fn error(reference: &[(f64, f64, &str)], found: &[(f64, f64, &str)], collar: f64) -> DiarizationError {
        diarization_error(&turns(reference), &turns(found), collar)
    }

    #[test]
    fn names_do_not_matter_and_each_kind_of_mistake_is_counted() {
        let reference = [(0.0, 4.0, "A"), (4.0, 10.0, "B")];
        let found = [(0.0, 4.0, "2"), (4.0, 10.0, "1")];
        assert_eq!(error(&reference, &found, 0.0), DiarizationError { total: 10.0, ..DiarizationError::default() });
        let found = [(1.0, 5.0, "2"), (5.0, 12.0, "1")];
        let wrong = DiarizationError { missed: 1.0, invented: 2.0, confused: 1.0, total: 10.0 };
        assert_eq!(error(&reference, &found, 0.0), wrong);
        assert!((wrong.rate() - 0.4).abs() < 1e-9);
    }

    #[test]
    fn two_who_speak_at_once_both_count() {
        let reference = [(0.0, 4.0, "A"), (2.0, 6.0, "B")];
        let wrong = error(&reference, &[(0.0, 4.0, "1"), (4.0, 6.0, "2")], 0.0);
        assert_eq!(wrong, DiarizationError { missed: 2.0, total: 8.0, ..DiarizationError::default() });
        let wrong = error(&[(0.0, 4.0, "A")], &[(0.0, 4.0, "1"), (0.0, 4.0, "2")], 0.0);
        assert_eq!(wrong, DiarizationError { invented: 4.0, total: 4.0, ..DiarizationError::default() });
    }

    #[test]
    fn edges_within_the_collar_do_not_count() {
        let wrong = error(&[(1.0, 5.0, "A")], &[(0.8, 5.2, "1")], COLLAR);
        assert!(wrong.rate() < 1e-9 && (wrong.total - 3.5).abs() < 1e-9, "{wrong:?}");
    }

    #[test]
    fn names_are_matched_for_the_least_error_and_not_one_after_the_other() {
        // Whoever takes the largest share first leaves 1 s for the second; the other way round it is 8 s together.
        let shared = [vec![5.0, 4.0], vec![4.0, 1.0]];
        assert!((most_shared(&shared) - 8.0).abs() < 1e-9);
        assert!((most_shared(&[vec![1.0, 3.0, 2.0]]) - 3.0).abs() < 1e-9);
        assert!((most_shared(&[vec![1.0], vec![3.0], vec![2.0]]) - 3.0).abs() < 1e-9);
        assert!(most_shared(&[]).abs() < 1e-9);
    }

    #[test]
    fn an_rttm_file_is_read() {
        let text = "SPEAKER call 1 6.690 0.430 <NA> <NA> speaker90 <NA> <NA>\n;; a remark\n";
        let [turn] = rttm(text).try_into().unwrap();
        assert_eq!((turn.start, turn.speaker.as_str()), (6.69, "speaker90"));
        assert!((turn.end - 7.12).abs() < 1e-9);
    }
}
