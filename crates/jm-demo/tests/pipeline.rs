//! Real input through all five binaries with their embedded engines. Needs the models' files: `make models`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

#[path = "support/leftovers.rs"]
mod leftovers;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use jm_demo::{
    demo::{Demo, Outcome},
    engines::{Chat, Engines},
    follow::End,
    journey::{Journey, Standing},
    notes::{self, Content, Note, Summary},
    progress::Progress,
    workers::Binaries,
};
use jm_models::Cache;
use jm_tasks::Stage;
use leftovers::processes_in;
use tempfile::TempDir;

/// A debug build on a machine that has other things to do.
const LIMIT: Duration = Duration::from_mins(15);

/// In the sample, two people speak from here to there, in seconds.
const CLIP: (u32, u32) = (6, 22);

/// The files of one test.
struct Machine {
    files: TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { files: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Runs the demo with these notes, and returns when all of it is gone.
    async fn run(notes: Vec<Note>) -> (Outcome, String) {
        let engines = Engines::Embedded { chat: Chat::Smollm2, models: Cache::from_environment() };
        let demo = Demo { engines, binaries: binaries(), notes, limit: LIMIT };
        let mut report = Vec::new();
        let mut progress = Progress::plain(std::io::stderr());
        let outcome = demo.run(&mut progress, &mut report, false).await.unwrap();
        assert_eq!(processes_in(&outcome.folder), []);
        assert!(!outcome.folder.exists(), "{} is left", outcome.folder.display());
        (outcome, String::from_utf8(report).unwrap())
    }
}

/// The test's own folder is `target/debug/deps`, and the workers are one above it.
fn binaries() -> Binaries {
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().and_then(Path::parent).unwrap();
    Binaries::find(Some(folder)).unwrap()
}

fn sample() -> PathBuf {
    notes::call(&Cache::from_environment()).unwrap()
}

/// A part of the sample, in seconds.
fn cut(to: &Path, from: u32, until: u32) {
    let mut sample = hound::WavReader::open(sample()).unwrap();
    let spec = sample.spec();
    sample.seek(from * spec.sample_rate).unwrap();
    let count = (until - from) * spec.sample_rate * u32::from(spec.channels);
    let mut clip = hound::WavWriter::create(to, spec).unwrap();
    for sample in sample.samples::<i16>().take(count as usize) {
        clip.write_sample(sample.unwrap()).unwrap();
    }
    clip.finalize().unwrap();
}

fn silence(to: &Path, seconds: u32) {
    let spec = hound::WavReader::open(sample()).unwrap().spec();
    let mut clip = hound::WavWriter::create(to, spec).unwrap();
    for _ in 0..seconds * spec.sample_rate * u32::from(spec.channels) {
        clip.write_sample(0_i16).unwrap();
    }
    clip.finalize().unwrap();
}

/// Of silence, in a file that is as small as that can be: 4000 samples of 8 bits a second.
fn three_hours() -> Vec<u8> {
    let samples = vec![128; 3 * 60 * 60 * 4000];
    let length = u32::try_from(samples.len()).unwrap();
    let mut file = Vec::from(*b"RIFF");
    file.extend((length + 36).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend([4000_u32, 4000].map(u32::to_le_bytes).concat());
    file.extend(b"\x01\0\x08\0data");
    file.extend(length.to_le_bytes());
    file.extend(samples);
    file
}

fn spoken(title: &str, file: PathBuf) -> Note {
    Note::new(title, Content::Recording(file), Summary::Either).unwrap()
}

fn written(title: &str, text: &str) -> Note {
    Note::new(title, Content::Text(text.to_owned()), Summary::Either).unwrap()
}

const TEXT: &str = "The release moves from Wednesday to Thursday, since the migration of the notes table takes forty \
    minutes and the window that we announced to the customers has only thirty. Tomas splits it into three steps, and \
    Mei reviews the second one tomorrow.";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_and_a_note_become_records_with_speakers_words_summaries_and_vectors() {
    let machine = Machine::new();
    let clip = machine.files.path().join("clip.wav");
    cut(&clip, CLIP.0, CLIP.1);
    let note = Note::new("A note", Content::Text(TEXT.to_owned()), Summary::Written).unwrap();
    let (outcome, report) = Machine::run(vec![spoken("A call", clip), note]).await;
    println!("{report}");
    assert_eq!((outcome.end, outcome.complaints()), (End::Over, Vec::new()));

    let [call, note] = &outcome.journeys[..] else { panic!("{outcome:?}") };
    let view = call.view.as_ref().unwrap();
    let diarization = view.diarization.as_ref().unwrap();
    assert!(diarization.speakers >= 2 && diarization.turns.len() >= 2, "{diarization:?}");
    let transcription = view.transcription.as_ref().unwrap();
    assert!(transcription.text.split_whitespace().count() >= 5, "{transcription:?}");
    assert!(transcription.segments.iter().any(|segment| segment.speaker.is_some()), "{transcription:?}");
    let view = note.view.as_ref().unwrap();
    assert!(view.summary.as_ref().unwrap().text.split_whitespace().count() >= 3, "{:?}", view.summary);
    let embedding = view.embedding.as_ref().unwrap();
    let length: f32 = embedding.vectors[0].iter().map(|number| number * number).sum::<f32>().sqrt();
    assert_eq!((embedding.dimensions, embedding.vectors[0].len()), (384, 384));
    assert!((length - 1.0).abs() < 1e-3, "{length}");
    for stage in note.stages() {
        assert!(note.took(*stage).is_some(), "{stage}");
    }
}

/// Every one of them ends, as a result or as a dead letter with its reason, and the workers go on.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_ends_with_a_reason_and_the_workers_go_on() {
    let machine = Machine::new();
    let whole = fs::read(sample()).unwrap();
    let silent = machine.files.path().join("silent.wav");
    silence(&silent, 5);
    let notes = vec![
        spoken("empty file", machine.file("empty.wav", b"")),
        spoken("truncated file", machine.file("truncated.wav", &whole[..whole.len() / 8])),
        spoken("no recording", machine.file("text.mp3", &TEXT.as_bytes().repeat(50))),
        spoken("three hours", machine.file("long.wav", &three_hours())),
        spoken("silence", silent),
        written("one letter", "a"),
        written("emoji only", "🎉🎉 🚀"),
        written("100,000 characters", &"Wir suchen alte Aufnahmen mit eigenen Worten. ".repeat(2175)),
        written("good", TEXT),
    ];
    let (outcome, report) = Machine::run(notes).await;
    println!("{report}");
    assert_eq!(outcome.end, End::Over);
    let of = |title: &str| outcome.journeys.iter().find(|journey| journey.note.title == title).unwrap();
    let reason = |title: &str, stage: Stage| match of(title).standing(stage) {
        Standing::Dead(letter) => letter.reason.clone(),
        other => panic!("{title}: {other:?}"),
    };
    for title in ["empty file", "truncated file", "no recording", "three hours"] {
        assert!(!reason(title, Stage::Diarization).is_empty(), "{title}");
        assert_eq!(of(title).standing(Stage::Summary), Standing::Never, "{title}");
    }
    let too_long = reason("three hours", Stage::Diarization);
    assert!(too_long.contains("longer than 7200s, which `max_duration` allows"), "{too_long}");
    let silent = of("silence");
    assert_eq!(silent.standing(Stage::Transcription), Standing::Done);
    assert_eq!(silent.view.as_ref().unwrap().transcription.as_ref().unwrap().text, "");
    assert_eq!(silent.standing(Stage::Embedding), Standing::Never);
    for title in ["one letter", "emoji only", "100,000 characters"] {
        assert_eq!(of(title).standing(Stage::Embedding), Standing::Done, "{title}");
        assert!(ended(of(title)), "{title}");
    }
    let refused = reason("100,000 characters", Stage::Summary);
    assert!(refused.contains("in de, which the model smollm2-135m-instruct does not write"), "{refused}");
    let vectors = &of("100,000 characters").view.as_ref().unwrap().embedding.as_ref().unwrap().vectors;
    assert!((100..110).contains(&vectors.len()), "{}", vectors.len());
    assert_eq!(of("good").standing(Stage::Summary), Standing::Done);
}

fn ended(journey: &Journey) -> bool {
    matches!(journey.standing(Stage::Summary), Standing::Done | Standing::Dead(_))
}
