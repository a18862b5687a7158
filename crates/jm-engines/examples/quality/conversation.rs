//! Conversations put together from recordings of single people: so it is known to the sample who speaks when.

use anyhow::Result;
use jm_engines::audio::{Audio, SAMPLE_RATE};
use jm_tasks::SpeakerTurn;

use crate::recording;

/// Before the first turn, and between turns; they take it in order, again and again.
const PAUSES_MS: [usize; 4] = [400, 250, 600, 300];
/// What every turn is brought to, so that nobody is told by loudness: the root of the mean square.
const LOUDNESS: f64 = 1600.0;
/// A turn begins and ends where it is this much quieter than its loudest.
const QUIET: f64 = 0.05;
/// Loudness is measured in frames of 10 ms.
const FRAME: usize = SAMPLE_RATE as usize / 100;
/// What belongs to the first and the last sound: breath, an s.
const MARGIN: usize = 3 * FRAME;

/// Who reads from Sense and Sensibility.
const READER: &str = "reader";
/// Who names playing cards.
const PLAYER: &str = "player";
/// Who gives orders to a robot.
const OPERATOR: &str = "operator";

/// A recording of several people.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) name: &'static str,
    pub(crate) audio: Audio,
    pub(crate) turns: Vec<SpeakerTurn>,
}

/// The turns of each conversation: who, and which recording of the test data.
type Script = &'static [(&'static str, &'static str)];

const READER_AND_OPERATOR: Script = &[
    (READER, "librivox/sense_and_sensibility_01_austen_64kb-0870.wav"),
    (OPERATOR, "goforward.raw"),
    (READER, "librivox/sense_and_sensibility_01_austen_64kb-0880.wav"),
    (OPERATOR, "numbers.raw"),
    (READER, "librivox/sense_and_sensibility_01_austen_64kb-0920.wav"),
    (OPERATOR, "something.raw"),
    (OPERATOR, "tidigits/dhd.2934z.raw"),
    (READER, "librivox/sense_and_sensibility_01_austen_64kb-0930.wav"),
];
const READER_AND_PLAYER: Script = &[
    (PLAYER, "cards/005.wav"),
    (READER, "librivox/sense_and_sensibility_01_austen_64kb-0890.wav"),
    (PLAYER, "cards/002.wav"),
    (PLAYER, "cards/003.wav"),
    (READER, "librivox/sense_and_sensibility_01_austen_64kb-0870.wav"),
    (PLAYER, "cards/004.wav"),
    (READER, "librivox/sense_and_sensibility_01_austen_64kb-0930.wav"),
];
const ALL_THREE: Script = &[
    (READER, "librivox/sense_and_sensibility_01_austen_64kb-0890.wav"),
    (OPERATOR, "numbers.raw"),
    (PLAYER, "cards/005.wav"),
    (READER, "librivox/sense_and_sensibility_01_austen_64kb-0920.wav"),
    (OPERATOR, "goforward.raw"),
    (OPERATOR, "something.raw"),
    (PLAYER, "cards/002.wav"),
    (PLAYER, "cards/003.wav"),
    (READER, "librivox/sense_and_sensibility_01_austen_64kb-0880.wav"),
    (OPERATOR, "tidigits/dhd.2934z.raw"),
];

/// Two of two people, one of three.
pub(crate) async fn all() -> Result<Vec<Conversation>> {
    Ok(vec![
        Conversation::of("a reader and an operator", READER_AND_OPERATOR).await?,
        Conversation::of("a reader and a player", READER_AND_PLAYER).await?,
        Conversation::of("reader, operator and player", ALL_THREE).await?,
    ])
}

impl Conversation {
    async fn of(name: &'static str, script: Script) -> Result<Self> {
        let mut samples = Vec::new();
        let mut turns = Vec::new();
        for ((speaker, file), pause) in script.iter().zip(PAUSES_MS.iter().cycle()) {
            samples.resize(samples.len() + pause * SAMPLE_RATE as usize / 1000, 0);
            let start = seconds(samples.len());
            samples.extend(levelled(trimmed(recording::test_data(file).await?.samples())));
            turns.push(SpeakerTurn { start, end: seconds(samples.len()), speaker: (*speaker).to_owned() });
        }
        Ok(Self { name, audio: Audio::from_samples(samples), turns })
    }
}

/// Without the silence before and after.
fn trimmed(samples: &[i16]) -> &[i16] {
    let frames: Vec<f64> = samples.chunks(FRAME).map(loudness).collect();
    let least = frames.iter().copied().fold(0.0, f64::max) * QUIET;
    let first = frames.iter().position(|&frame| frame > least).unwrap_or_default();
    let last = frames.iter().rposition(|&frame| frame > least).unwrap_or_default();
    let end = ((last + 1) * FRAME + MARGIN).min(samples.len());
    &samples[(first * FRAME).saturating_sub(MARGIN)..end]
}

#[expect(clippy::cast_possible_truncation, reason = "a number too large becomes the largest")]
fn levelled(samples: &[i16]) -> Vec<i16> {
    let gain = LOUDNESS / loudness(samples).max(1.0);
    samples.iter().map(|&sample| (f64::from(sample) * gain) as i16).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a turn has thousands of samples")]
fn loudness(samples: &[i16]) -> f64 {
    let squares: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    (squares / samples.len().max(1) as f64).sqrt()
}

#[expect(clippy::cast_precision_loss, reason = "a conversation has millions of samples at most")]
fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}
