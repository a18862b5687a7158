//! Whose voice each utterance is: utterances long enough to be sure of are clustered, and the others join whom they
//! are nearest to.

use std::{cmp::Reverse, collections::HashMap, ops::Range};

use kodama::{Dendrogram, Method, linkage};

use super::{timeline::Timeline, voice};
use crate::{embedded::compute::Stop, error::EngineError};

/// The shortest utterance, 1 s, that is sure enough to found a speaker.
const SURE: usize = 60;
/// Utterances of this length, 2 s, and more are as sure as they will be.
const SUREST: usize = 120;
/// How far the voices of two speakers are apart at least: the cosine distance, on average of their utterances.
///
/// Utterances of one person are within 0.2 to 0.35, over the telephone as well as in a studio; those of two are beyond
/// 0.5, on a line that makes voices alike, and mostly beyond 0.65.
const APART: f32 = 0.45;
/// Voices nearer than this are one person's, however many speakers there are said to be.
const ALIKE: f32 = 0.3;
/// A voice is the less exact the shorter an utterance is: so much is allowed for one that is just sure enough.
const ALLOWANCE: f32 = 0.07;
/// A speaker says this much at least, 1.5 s, or else it was a cough or a laugh: what they say is somebody else's.
const LEAST: usize = 90;
/// And of all that is said, one part in so many.
const LEAST_PART: usize = 200;
/// The most utterances that are clustered, the longest ones: their distances take 32 MB.
const MOST: usize = 4_000;
/// What it counts that the segmentation hears an utterance in the voice of a speaker's other ones.
const SAME_VOICE: f32 = 0.2;

/// A stretch of speech by one person.
pub(super) struct Utterance {
    pub(super) frames: Range<usize>,
    /// What the voice model makes of it.
    pub(super) voice: Vec<f32>,
}

/// The speaker of each utterance, by number. `wanted` is how many there are, if that is known: so many are told
/// apart, or as many as can be.
pub(super) fn speakers(
    utterances: &[Utterance],
    wanted: Option<usize>,
    timeline: &Timeline,
    stop: &Stop,
) -> Result<Vec<usize>, EngineError> {
    let founders = founders(utterances);
    let clusters = match wanted {
        Some(1) => vec![founders],
        _ => clusters(utterances, &founders, wanted, stop)?,
    };
    let centres: Vec<_> = clusters.iter().map(|cluster| centre(utterances, cluster)).collect();
    let mut speakers: Vec<Option<usize>> = vec![None; utterances.len()];
    for (speaker, cluster) in clusters.iter().enumerate() {
        for &utterance in cluster {
            speakers[utterance] = Some(speaker);
        }
    }
    let opinions = opinions(utterances, &speakers, timeline);
    let nearest = |utterance: usize| {
        let nearness = |speaker: usize| {
            let opinion = opinions.get(&(utterance, speaker)).copied().unwrap_or(0.0);
            cosine(&utterances[utterance].voice, &centres[speaker]) + SAME_VOICE * opinion
        };
        (0..centres.len()).max_by(|&a, &b| nearness(a).total_cmp(&nearness(b))).unwrap_or(0)
    };
    Ok((0..utterances.len()).map(|utterance| speakers[utterance].unwrap_or_else(|| nearest(utterance))).collect())
}

/// The utterances that are clustered: those that are sure, or if none is, all.
fn founders(utterances: &[Utterance]) -> Vec<usize> {
    let length = |&utterance: &usize| utterances[utterance].frames.len();
    let mut founders: Vec<usize> = (0..utterances.len()).filter(|utterance| length(utterance) >= SURE).collect();
    if founders.is_empty() {
        founders = (0..utterances.len()).collect();
    }
    founders.sort_by_key(|utterance| Reverse(length(utterance)));
    founders.truncate(MOST);
    founders
}

/// The founders of each speaker.
fn clusters(
    utterances: &[Utterance],
    founders: &[usize],
    wanted: Option<usize>,
    stop: &Stop,
) -> Result<Vec<Vec<usize>>, EngineError> {
    let mut distances = Vec::with_capacity(founders.len() * founders.len().saturating_sub(1) / 2);
    for (index, &a) in founders.iter().enumerate() {
        stop.check()?;
        distances.extend(founders[index + 1..].iter().map(|&b| distance(&utterances[a], &utterances[b])));
    }
    let tree = linkage(&mut distances, founders.len(), Method::Average);
    stop.check()?;
    let lengths: Vec<usize> = founders.iter().map(|&utterance| utterances[utterance].frames.len()).collect();
    let least = LEAST.max(lengths.iter().sum::<usize>() / LEAST_PART);
    let merges = match wanted {
        None => tree.steps().iter().take_while(|step| step.dissimilarity < APART).count(),
        Some(wanted) => merges_for(wanted, &tree, lengths, least),
    };
    let mut clusters = merged(&tree, founders, merges);
    let length = |cluster: &[usize]| cluster.iter().map(|&utterance| utterances[utterance].frames.len()).sum::<usize>();
    clusters.sort_by_key(|cluster| Reverse(length(cluster)));
    let somebody = clusters.partition_point(|cluster| length(cluster) >= least);
    // Whoever says the most is somebody, however little it is.
    clusters.truncate(somebody.max(1));
    Ok(clusters)
}

/// The most merges that leave so many speakers, or else as many as can be told apart.
fn merges_for(wanted: usize, tree: &Dendrogram<f32>, mut lengths: Vec<usize>, least: usize) -> usize {
    let mut speakers = lengths.iter().filter(|&&length| length >= least).count();
    let (mut most, mut merges) = (speakers.min(wanted), 0);
    for (index, step) in tree.steps().iter().enumerate() {
        let (a, b) = (lengths[step.cluster1], lengths[step.cluster2]);
        lengths.push(a + b);
        let [a, b, both] = [a, b, a + b].map(|length| usize::from(length >= least));
        speakers = speakers + both - a - b;
        if step.dissimilarity < ALIKE || speakers.min(wanted) >= most {
            (most, merges) = (speakers.min(wanted), index + 1);
        }
    }
    merges
}

/// The clusters after so many merges.
fn merged(tree: &Dendrogram<f32>, founders: &[usize], merges: usize) -> Vec<Vec<usize>> {
    let mut clusters: Vec<Vec<usize>> = founders.iter().map(|&utterance| vec![utterance]).collect();
    for step in &tree.steps()[..merges] {
        let mut both = std::mem::take(&mut clusters[step.cluster1]);
        both.append(&mut clusters[step.cluster2]);
        clusters.push(both);
    }
    clusters.retain(|cluster| !cluster.is_empty());
    clusters
}

/// For an utterance and a speaker that windows hear both of: from 1, always in the same voice, to -1, never.
fn opinions(utterances: &[Utterance], speakers: &[Option<usize>], timeline: &Timeline) -> HashMap<(usize, usize), f32> {
    let mut counts: HashMap<_, (f32, f32)> = HashMap::new();
    let frames: Vec<_> = utterances.iter().map(|utterance| utterance.frames.clone()).collect();
    for window in timeline.windows() {
        let heard = Timeline::voices_of(window, &frames);
        for &(unsure, voice) in heard.iter().filter(|(utterance, _)| speakers[*utterance].is_none()) {
            for &(utterance, other) in &heard {
                if let Some(speaker) = speakers[utterance] {
                    let (sum, count) = counts.entry((unsure, speaker)).or_default();
                    *sum += if voice == other { 1.0 } else { -1.0 };
                    *count += 1.0;
                }
            }
        }
    }
    counts.into_iter().map(|(key, (sum, count))| (key, sum / count)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "an utterance's length")]
fn distance(a: &Utterance, b: &Utterance) -> f32 {
    let unsure = |utterance: &Utterance| {
        let short = SUREST.saturating_sub(utterance.frames.len()) as f32 / (SUREST - SURE) as f32;
        ALLOWANCE * short.min(1.0)
    };
    (1.0 - cosine(&a.voice, &b.voice) - unsure(a) - unsure(b)).max(0.0)
}

/// The direction in which a cluster's utterances lie, the longer ones counting for more.
#[expect(clippy::cast_precision_loss, reason = "an utterance's length")]
fn centre(utterances: &[Utterance], cluster: &[usize]) -> Vec<f32> {
    let mut centre = vec![0.0; voice::NUMBERS];
    for &utterance in cluster {
        let Utterance { frames, voice } = &utterances[utterance];
        centre.iter_mut().zip(voice).for_each(|(centre, number)| *centre += number * frames.len() as f32);
    }
    voice::normalise(&mut centre);
    centre
}

/// Of vectors of length 1.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::diarization::timeline::tests::timeline;

    const SILENCE: fn(usize, usize) -> u8 = |_, _| 0;

    /// One of so many frames, in a direction that is so near to a speaker's own: 1 is the same, 0 is none.
    fn utterance(start: usize, frames: usize, speaker: usize, near: f32) -> Utterance {
        let mut voice = vec![0.0; 16];
        voice[speaker] = near;
        // What is particular to it.
        voice[8 + start % 8] = (1.0 - near * near).sqrt();
        Utterance { frames: start..start + frames, voice }
    }

    fn found(utterances: &[Utterance], wanted: Option<usize>) -> Vec<usize> {
        speakers(utterances, wanted, &timeline(0, SILENCE), &Stop::never()).unwrap()
    }

    /// Who is the same speaker, whatever their numbers: each as the first utterance of that speaker.
    fn same(speakers: &[usize]) -> Vec<usize> {
        speakers.iter().map(|speaker| speakers.iter().position(|other| other == speaker).unwrap()).collect()
    }

    fn conversation(order: &[usize]) -> Vec<Utterance> {
        order.iter().enumerate().map(|(index, &speaker)| utterance(index * 201, 200, speaker, 0.9)).collect()
    }

    #[test]
    fn there_are_as_many_speakers_as_voices() {
        assert_eq!(found(&[], None), [0; 0]);
        assert_eq!(found(&[], Some(3)), [0; 0]);
        assert_eq!(found(&conversation(&[5]), None), [0]);
        assert_eq!(same(&found(&conversation(&[1, 1, 1, 1, 1]), None)), [0; 5]);
        assert_eq!(same(&found(&conversation(&[1, 0, 1, 3, 0, 2, 3]), None)), [0, 1, 0, 3, 1, 5, 3]);
    }

    #[test]
    fn so_many_speakers_are_told_apart_as_there_are_said_to_be() {
        let four = conversation(&[0, 1, 2, 3, 0, 1, 2, 3]);
        let count = |wanted| {
            let mut speakers = found(&four, Some(wanted));
            speakers.sort_unstable();
            speakers.dedup();
            speakers.len()
        };
        assert_eq!([1, 2, 3, 4, 5, 9, usize::MAX].map(count), [1, 2, 3, 4, 4, 4, 4]);
    }

    #[test]
    fn a_short_utterance_is_its_nearest_speakers_and_founds_none() {
        let mut utterances = conversation(&[0, 1]);
        utterances.push(utterance(500, SURE - 1, 1, 0.4));
        utterances.push(utterance(600, 20, 2, 0.9));
        assert_eq!(same(&found(&utterances, None))[..3], [0, 1, 1]);
        let speakers = found(&utterances, Some(3));
        assert!(speakers[3] == speakers[0] || speakers[3] == speakers[1]);
    }

    #[test]
    fn short_utterances_are_clustered_where_there_are_no_others() {
        let utterances = [utterance(0, 50, 0, 0.9), utterance(60, 55, 1, 0.9), utterance(120, 50, 0, 0.9)];
        assert_eq!(same(&found(&utterances, None)), [0, 0, 0]);
        let utterances: Vec<_> = (0..6).map(|index| utterance(index * 60, 55, index % 2, 0.9)).collect();
        assert_eq!(same(&found(&utterances, None)), [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_cough_is_nobody() {
        let mut utterances = conversation(&[0, 1, 0, 1]);
        utterances.push(utterance(1000, LEAST - 1, 2, 0.9));
        let speakers = found(&utterances, None);
        assert!(speakers[..2].contains(&speakers[4]), "{speakers:?}");
        // In an hour, a longer noise is nobody either.
        let mut utterances = conversation(&[0; 150]);
        utterances.push(utterance(0, LEAST + 30, 2, 0.9));
        assert_eq!(same(&found(&utterances, None)), [0; 151]);
    }

    #[test]
    fn what_the_windows_hear_decides_where_a_voice_does_not() {
        let mut utterances = conversation(&[0, 1]);
        utterances.push(utterance(410, 20, 5, 0.9));
        for speaker in 0..2 {
            let voices = [0b001, 0b010];
            let heard = move |_, frame| match frame {
                100..200 => voices[0],
                210..400 => voices[1],
                410..430 => voices[speaker],
                _ => 0,
            };
            let speakers = speakers(&utterances, None, &timeline(500, heard), &Stop::never()).unwrap();
            assert_eq!(speakers[2], speakers[speaker]);
        }
    }

    #[test]
    fn of_very_many_utterances_the_longest_are_clustered_and_the_others_join_them() {
        let long = (0..MOST + 500).map(|index| utterance(index, 100 + usize::from(index < MOST), index % 2, 0.9));
        let utterances: Vec<_> = long.collect();
        let speakers = found(&utterances, None);
        assert!(speakers.iter().enumerate().all(|(index, &speaker)| speaker == speakers[index % 2]));
        assert_ne!(speakers[0], speakers[1]);
    }
}
