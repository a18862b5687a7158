//! The whole of it on a recording of two people, and each model beside what PyTorch computes with the same file.

#![allow(clippy::cast_precision_loss, reason = "small numbers")]

use std::{fs, path::Path, sync::LazyLock, time::Duration};

use candle_nn::ops;
use jm_models::{Cache, Catalogue};
use serde::Deserialize;

use super::*;
use crate::EngineKind;

#[path = "../../../examples/quality/diarization_error.rs"]
mod diarization_error;

use diarization_error::{COLLAR, diarization_error, rttm};

static ENGINE: LazyLock<EmbeddedDiarization> = LazyLock::new(|| engine(EngineOptions::default()).unwrap());

fn engine(options: EngineOptions) -> Result<EmbeddedDiarization, OptionsError> {
    EmbeddedDiarization::load(&EngineOptions {
        kind: EngineKind::Embedded,
        timeout: Duration::from_mins(10),
        ..options
    })
}

/// Half a minute of a telephone call. Says how to get it where it is missing.
fn call_file(name: &str) -> Vec<u8> {
    let model = Catalogue::built_in().model("two-speaker-call").unwrap();
    let folder = Cache::from_environment().find(model).unwrap_or_else(|missing| panic!("{missing}"));
    fs::read(folder.join(name)).unwrap()
}

fn call_audio() -> Audio {
    let file = call_file("sample.wav");
    let mut reader = hound::WavReader::new(file.as_slice()).unwrap();
    Audio::from_samples(reader.samples::<i16>().map(Result::unwrap).collect::<Vec<_>>())
}

fn piece(audio: &Audio, seconds: std::ops::Range<f64>) -> Audio {
    audio.piece(Duration::from_secs_f64(seconds.start)..Duration::from_secs_f64(seconds.end))
}

async fn turns(audio: &Audio, speakers: Option<u32>) -> Vec<SpeakerTurn> {
    DiarizationEngine::diarize(&*ENGINE, audio, speakers, &Call::default()).await.unwrap().turns
}

/// Their names, in the order in which they are first heard.
fn names(turns: &[SpeakerTurn]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for turn in turns {
        if !names.contains(&turn.speaker.as_str()) {
            names.push(&turn.speaker);
        }
    }
    names
}

#[tokio::test]
async fn two_people_on_the_telephone_are_told_apart() {
    let found = DiarizationEngine::diarize(&*ENGINE, &call_audio(), None, &Call::default()).await.unwrap();
    let reference = rttm(&String::from_utf8(call_file("sample.rttm")).unwrap());
    let error = diarization_error(&reference, &found.turns, COLLAR);
    assert!(error.rate() < 0.05, "{error:?} {found:#?}");
    assert_eq!(names(&found.turns), ["SPEAKER_00", "SPEAKER_01"]);
    assert_eq!(found.model, "pyannote-campplus");
}

#[tokio::test]
async fn turns_are_in_order_and_within_the_recording_however_long_it_is() {
    let call = call_audio();
    for (start, end) in [(0.0, 30.0), (6.0, 9.7), (6.6, 7.0), (3.3, 16.6), (9.0, 9.1), (10.0, 20.0), (10.0, 20.02)] {
        let audio = piece(&call, start..end);
        let turns = turns(&audio, None).await;
        let duration = audio.duration().as_secs_f64();
        let within = |turn: &SpeakerTurn| 0.0 <= turn.start && turn.start < turn.end && turn.end <= duration;
        assert!(turns.iter().all(within), "{start} to {end}: {turns:?}");
        assert!(turns.is_sorted_by(|a, b| a.start <= b.start), "{start} to {end}: {turns:?}");
        let numbered: Vec<_> = (0..names(&turns).len()).map(|number| format!("SPEAKER_{number:02}")).collect();
        assert_eq!(names(&turns), numbered);
        assert_eq!(turns.is_empty(), duration < 0.3, "{start} to {end}: {turns:?}");
    }
}

#[tokio::test]
async fn nobody_speaks_in_silence_or_in_nothing() {
    for samples in [0, 1, 159, 16_000, 400_000] {
        assert_eq!(turns(&Audio::from_samples(vec![0; samples]), None).await, []);
        assert_eq!(turns(&Audio::from_samples(vec![0; samples]), Some(2)).await, []);
    }
}

#[tokio::test]
async fn the_number_of_speakers_is_kept_where_it_is_known() {
    let call = call_audio();
    assert_eq!(names(&turns(&call, Some(1)).await).len(), 1);
    assert_eq!(names(&turns(&call, Some(2)).await).len(), 2);
    // More than there are: as many as can be told apart.
    let most = names(&turns(&call, Some(u32::MAX)).await).len();
    assert!((2..=4).contains(&most), "{most}");
    let error = DiarizationEngine::diarize(&*ENGINE, &call, Some(0), &Call::default()).await.unwrap_err();
    assert_eq!(error, EngineError::permanent("speakers: 0; there has to be 1 at least"));
}

#[tokio::test]
async fn one_person_is_one_speaker() {
    let call = call_audio();
    assert_eq!(names(&turns(&piece(&call, 10.7..14.3), None).await).len(), 1);
    assert_eq!(names(&turns(&piece(&call, 21.9..27.7), None).await).len(), 1);
}

#[tokio::test]
async fn people_whom_the_segmentation_cannot_tell_apart_are_told_apart_by_their_voices() {
    // One after the other, with a pause in between.
    let call = call_audio();
    let mut samples = Vec::new();
    for (start, end) in [(10.9, 14.3), (15.0, 17.8), (19.0, 21.3), (22.0, 25.0), (11.0, 14.0), (24.0, 27.5)] {
        samples.extend_from_slice(piece(&call, start..end).samples());
        samples.extend([0; 8_000]);
    }
    let found = turns(&Audio::from_samples(samples), None).await;
    let mut reference = Vec::new();
    let mut at = 0.0;
    for (speaker, length) in [("A", 3.4), ("B", 2.8), ("A", 2.3), ("B", 3.0), ("A", 3.0), ("B", 3.5)] {
        reference.push(SpeakerTurn { start: at, end: at + length, speaker: speaker.into() });
        at += length + 0.5;
    }
    let error = diarization_error(&reference, &found, COLLAR);
    assert!(error.rate() < 0.05, "{error:?} {found:#?}");
}

/// A clip of Debian's pocketsphinx-testdata, without the silence at its ends.
fn clip(name: &str) -> Vec<i16> {
    let bytes = fs::read(format!("/usr/share/pocketsphinx/test/data/{name}")).unwrap();
    let header = if Path::new(name).extension().is_some_and(|extension| extension == "wav") { 44 } else { 0 };
    let samples: Vec<i16> =
        bytes[header..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    let loudness = |frame: &[i16]| frame.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>();
    let frames: Vec<f64> = samples.chunks(160).map(loudness).collect();
    let least = frames.iter().copied().fold(0.0, f64::max) / 400.0;
    let first = frames.iter().position(|&frame| frame > least).unwrap();
    let last = frames.iter().rposition(|&frame| frame > least).unwrap();
    samples[first * 160..samples.len().min((last + 1) * 160)].to_vec()
}

#[tokio::test]
async fn a_book_read_aloud_a_card_game_and_a_robots_master_are_told_apart() {
    let book = |part| clip(&format!("librivox/sense_and_sensibility_01_austen_64kb-{part}.wav"));
    let cards = |part| clip(&format!("cards/{part}.wav"));
    let conversation = [
        ("book", book("0870")),
        ("robot", clip("goforward.raw")),
        ("book", book("0880")),
        ("cards", cards("005")),
        ("robot", clip("numbers.raw")),
        ("book", book("0890")),
        ("cards", cards("002")),
        ("robot", clip("something.raw")),
        ("cards", cards("003")),
        ("book", book("0930")),
    ];
    let (mut samples, mut reference) = (vec![0_i16; 4_800], Vec::new());
    for (speaker, clip) in conversation {
        let seconds = |samples: usize| samples as f64 / 16_000.0;
        let (start, end) = (seconds(samples.len()), seconds(samples.len() + clip.len()));
        reference.push(SpeakerTurn { start, end, speaker: speaker.into() });
        samples.extend(clip);
        samples.extend([0; 6_400]);
    }
    let found = turns(&Audio::from_samples(samples), None).await;
    let error = diarization_error(&reference, &found, COLLAR);
    assert_eq!(names(&found).len(), 3, "{found:#?}");
    assert!(error.rate() < 0.15, "{error:?} {found:#?}");
}

#[tokio::test]
async fn a_call_that_is_cancelled_makes_room_for_the_next() {
    let engine = engine(EngineOptions::default()).unwrap();
    // Ten minutes, which take longer than the next call waits.
    let audio = Audio::from_samples(call_audio().samples().repeat(20));
    let call = Call::default();
    let (cancelled, ()) = tokio::join!(engine.diarize(&audio, None, &call), async {
        tokio::task::yield_now().await;
        call.cancellation.cancel();
    });
    assert_eq!(cancelled, Err(EngineError::retryable("nobody waits for the answer any more")));
    let soon = Call { deadline: Some(std::time::Instant::now() + Duration::from_secs(10)), ..Call::default() };
    assert_eq!(engine.diarize(&piece(&audio, 0.0..0.0), None, &soon).await.unwrap().turns, []);
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let options = EngineOptions { model_path: Some(folder.path().to_owned()), ..EngineOptions::default() };
    let error = |options: &EngineOptions| engine(options.clone()).err().unwrap().to_string();
    assert!(error(&options).contains("segmentation.pt"), "{}", error(&options));
    fs::write(folder.path().join("segmentation.pt"), "no model").unwrap();
    assert!(error(&options).contains("segmentation.pt"), "{}", error(&options));
    let files = ModelFiles::find(&EngineOptions::default(), Role::Diarization).unwrap();
    fs::copy(files.file("segmentation.pt"), folder.path().join("segmentation.pt")).unwrap();
    assert!(error(&options).contains("campplus.pt"), "{}", error(&options));
    // The other model: a file of tensors, but of other ones.
    fs::copy(files.file("segmentation.pt"), folder.path().join("campplus.pt")).unwrap();
    assert!(error(&options).contains("campplus.pt") && error(&options).contains("tensor"), "{}", error(&options));
    let whole = fs::read(files.file("campplus.pt")).unwrap();
    fs::write(folder.path().join("campplus.pt"), &whole[..whole.len() / 2]).unwrap();
    assert!(error(&options).contains("campplus.pt"), "{}", error(&options));
}

/// What `tests/references/diarization.py` wrote.
#[derive(Deserialize)]
struct Reference {
    utterance: [usize; 2],
    frames: usize,
    every_20th_frame: Vec<Vec<f32>>,
    voice: Vec<f32>,
    window: [usize; 2],
    classes: String,
    every_10th_probabilities: Vec<Vec<f32>>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../../tests/references/diarization.json")).unwrap()
}

fn sound([start, end]: [usize; 2]) -> Vec<f32> {
    call_audio().samples()[start..end].iter().map(|&sample| f32::from(sample) / 32_768.0).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn the_filter_bank_is_kaldis() {
    let reference = reference();
    let frames = ENGINE.models.bank.frames(&sound(reference.utterance));
    assert_eq!(frames.len(), reference.frames);
    for (frame, expected) in frames.iter().step_by(20).zip(&reference.every_20th_frame) {
        // Logarithms from -16 to 5, computed with other Fourier transforms.
        let difference = largest_difference(frame, expected);
        assert!(difference < 0.005, "{difference}");
    }
}

#[test]
fn voices_are_those_of_the_models_own_code() {
    let reference = reference();
    let frames = ENGINE.models.bank.frames(&sound(reference.utterance));
    let voice = ENGINE.models.voices.of(&frames).unwrap();
    let mut expected = reference.voice;
    voice::normalise(&mut expected);
    let cosine: f32 = voice.iter().zip(&expected).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.9999, "{cosine}");
}

#[test]
fn the_segmentation_is_that_of_the_models_own_code() {
    let reference = reference();
    let scores = ENGINE.models.segmentation.scores(&sound(reference.window)).unwrap();
    let likeliest = scores.argmax(1).unwrap().to_vec1::<u32>().unwrap();
    let expected: Vec<u32> = reference.classes.chars().filter_map(|class| class.to_digit(10)).collect();
    assert_eq!(likeliest.len(), expected.len());
    let others = likeliest.iter().zip(&expected).filter(|(a, b)| a != b).count();
    // Where two classes are equally likely, rounding decides.
    assert!(others <= 2, "{others} of {}", expected.len());
    let probabilities = ops::softmax(&scores, 1).unwrap().to_vec2::<f32>().unwrap();
    for (frame, expected) in probabilities.iter().step_by(10).zip(&reference.every_10th_probabilities) {
        let difference = largest_difference(frame, expected);
        assert!(difference < 0.005, "{difference}");
    }
}
