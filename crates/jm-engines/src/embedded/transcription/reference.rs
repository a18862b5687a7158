//! What the real model does with real recordings: the same as `CTranslate2` with its weights, step by step.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::LazyLock,
    time::{Duration, Instant},
};

use jm_models::Cache;
use serde::Deserialize;

use super::{decoding::Decoding, *};
use crate::{embedded::compute::Stop, options::EngineKind};

#[path = "../../../examples/quality/word_error.rs"]
mod word_error;

use word_error::WordErrors;

/// Written by `tests/references/transcription.py`.
const REFERENCE: &str = include_str!("../../../tests/references/transcription.json");
/// Where Debian's package pocketsphinx-testdata has recordings of `LibriVox`, and what is said in them.
const LIBRIVOX: &str = "/usr/share/pocketsphinx/test/data/librivox";

/// What `CTranslate2` computes for a recording's first 30 s.
#[derive(Deserialize)]
struct Reference {
    recording: String,
    /// Band, frame and value.
    spectrogram: Vec<(usize, usize, f32)>,
    /// Row, feature and value.
    features: Vec<(usize, usize, f32)>,
    /// The five likeliest.
    languages: Vec<(String, f32)>,
    no_speech: f32,
    tokens: Vec<u32>,
}

pub(super) static ENGINE: LazyLock<EmbeddedTranscription> = LazyLock::new(|| {
    let options = EngineOptions { timeout: Duration::from_hours(1), ..options() };
    EmbeddedTranscription::load(&options).unwrap()
});

fn options() -> EngineOptions {
    EngineOptions { kind: EngineKind::Embedded, ..EngineOptions::default() }
}

fn recording(name: &str) -> Audio {
    let path = match name.split_once('/') {
        Some(("librivox", file)) => Path::new(LIBRIVOX).join(file),
        _ => Cache::from_environment().folder().join(name),
    };
    let mut reader = hound::WavReader::open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `make models` and `make system` get it", path.display()));
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (16_000, 1));
    Audio::from_samples(reader.samples::<i16>().map(Result::unwrap).collect::<Vec<_>>())
}

async fn transcribed(audio: &Audio, language: &str) -> Transcription {
    let hints = TranscriptionHints { language: Some(language.to_owned()).filter(|tag| !tag.is_empty()), prompt: None };
    ENGINE.transcribe(audio, &hints, &Call::default()).await.unwrap()
}

/// Each number of a matrix against the other implementation's.
fn agree(what: &str, tensor: &candle_core::Tensor, expected: &[(usize, usize, f32)], tolerance: f32) {
    let values = tensor.to_vec2::<f32>().unwrap();
    for &(row, column, value) in expected {
        let ours = values[row][column];
        assert!((ours - value).abs() <= tolerance, "{what} [{row}, {column}]: {ours}, where CTranslate2 has {value}");
    }
}

#[test]
fn every_step_agrees_with_ctranslate2_on_the_same_weights() {
    let whisper = &ENGINE.whisper;
    for reference in serde_json::from_str::<Vec<Reference>>(REFERENCE).unwrap() {
        let audio = recording(&reference.recording);
        let spectrogram = whisper.spectrogram.window(audio.samples(), 0).unwrap();
        // Tenths of bels by four: an error of 1 in 1000 of the power is 1e-4.
        agree("spectrogram", &spectrogram, &reference.spectrogram, 5e-4);
        let heard = whisper.encoder.forward(&spectrogram, &Stop::never()).unwrap();
        // They are some tens at most; sums of 2048 products in another order.
        agree("features", &heard, &reference.features, 5e-3);

        let stop = Stop::never();
        let vocabulary = &whisper.vocabulary;
        let mut decoding = Decoding { vocabulary, random: fastrand::Rng::with_seed(1), stop: &stop };
        let mut context = whisper.decoder.listen(&heard).unwrap();
        let (language, likelihood) = decoding.language(&mut context).unwrap();
        let (code, expected) = &reference.languages[0];
        assert_eq!(vocabulary.code(language), Some(code.as_str()), "{}", reference.recording);
        assert!((likelihood - expected).abs() < 1e-3, "{code}: {likelihood}, where CTranslate2 has {expected}");
        let beginning = decoding.begin(&mut context, language, &[]).unwrap();
        let first = decoding.attempt(&mut context, &beginning, 0.0).unwrap();
        assert!((first.no_speech - reference.no_speech).abs() < 1e-3, "{first:?}");
        assert_eq!(first.tokens, reference.tokens, "{}", reference.recording);
    }
}

#[tokio::test]
async fn at_most_one_of_ten_words_of_an_audiobook_is_wrong() {
    let said = fs::read_to_string(Path::new(LIBRIVOX).join("transcription")).unwrap_or_else(|error| {
        panic!("{LIBRIVOX}: {error}; `make system` gets it");
    });
    let (mut errors, mut report) = (Vec::new(), String::new());
    for line in said.lines() {
        let (text, name) = line.trim_end_matches(')').rsplit_once('(').unwrap();
        let text = text.replace("<s>", "").replace("</s>", "");
        let audio = recording(&format!("librivox/{name}.wav"));
        let transcription = transcribed(&audio, "").await;
        assert_eq!(transcription.language.as_deref(), Some("en"));
        assert_in_order_and_within(&transcription, &audio);
        errors.push(WordErrors::between(&text, &transcription.text));
        writeln!(report, "{name}: {}", transcription.text).unwrap();
    }
    let errors: WordErrors = errors.into_iter().sum();
    assert!(errors.rate() <= 10.0, "{errors:?}:\n{report}");
}

fn assert_in_order_and_within(transcription: &Transcription, audio: &Audio) {
    let mut last = 0.0;
    for segment in &transcription.segments {
        assert!(last <= segment.start && segment.start < segment.end, "{transcription:?}");
        assert_eq!(segment.text, segment.text.trim());
        last = segment.end;
    }
    assert!(last <= audio.duration().as_secs_f64() && !transcription.segments.is_empty(), "{transcription:?}");
    let joined: Vec<&str> = transcription.segments.iter().map(|segment| segment.text.as_str()).collect();
    assert_eq!(joined.join(" "), transcription.text);
}

#[tokio::test]
async fn a_call_of_two_is_written_down_without_saying_anything_twice() {
    let audio = recording("two-speaker-call/sample.wav");
    let transcription = transcribed(&audio, "en-US").await;
    assert_in_order_and_within(&transcription, &audio);
    assert_eq!(transcription.model, "whisper-base");
    for words in ["I didn't know you were there", "originally from Chicago also", "they all call me a Yankee down here"]
    {
        assert_eq!(transcription.text.matches(words).count(), 1, "{words}: {}", transcription.text);
    }
}

#[tokio::test]
async fn text_goes_on_where_a_window_ends() {
    // The second time it is said, the first window is over. Between them there is noise that can hardly be heard.
    let speech = recording("librivox/sense_and_sensibility_01_austen_64kb-0890.wav");
    let mut hum = 1_u32;
    let mut noise = move || {
        hum = hum.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        i16::try_from(hum >> 28).unwrap_or_default()
    };
    let mut samples: Vec<i16> = speech.samples().to_vec();
    samples.extend((0..16_000 * 30).map(|_| noise()));
    samples.extend(speech.samples());
    let audio = Audio::from_samples(samples);
    let transcription = transcribed(&audio, "en").await;
    assert_in_order_and_within(&transcription, &audio);
    assert_eq!(transcription.text.to_lowercase().matches("cold-hearted").count(), 2, "{}", transcription.text);
    let last = transcription.segments.last().unwrap();
    assert!(last.start > 30.0 && last.end > 37.0, "{last:?}");
}

#[test]
fn where_nothing_is_to_be_heard_there_is_no_text_and_an_hour_of_it_takes_no_time() {
    let whisper = &ENGINE.whisper;
    let started = Instant::now();
    for length in [0, 1, 160, 1599, 1600, 16_000, 16_000 * 3600] {
        let hints = TranscriptionHints::default();
        let transcription = windows::transcribe(whisper, &vec![-2; length], &hints, &Stop::never()).unwrap();
        let nothing = Transcription { model: "whisper-base".into(), ..Transcription::default() };
        assert_eq!(transcription, nothing, "{length} samples");
    }
    // Its 120 windows would take minutes to encode.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[tokio::test]
async fn noise_a_tone_and_a_click_have_no_text() {
    let rate = 16_000.0;
    let tone = (0..80_000_u32).map(|n| (f64::from(n) * 440.0 / rate * std::f64::consts::TAU).sin() * 0.3);
    let click = (0..6000).map(|n| if (3000..3050).contains(&n) { 0.9 } else { 0.0 });
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<f64> = (0..160_000).map(|_| random.f64() * 0.02 - 0.01).collect();
    for (name, sound) in [("tone", tone.collect()), ("click", click.collect()), ("noise", noise)] {
        #[expect(clippy::cast_possible_truncation, reason = "below 1")]
        let samples: Vec<i16> = sound.into_iter().map(|value: f64| (value * 32_767.0) as i16).collect();
        let transcription = transcribed(&Audio::from_samples(samples), "").await;
        assert_eq!((transcription.text.as_str(), transcription.language), ("", None), "{name}");
    }
}

#[tokio::test]
async fn a_hint_decides_the_language_and_an_unknown_one_is_detected() {
    let audio = recording("librivox/sense_and_sensibility_01_austen_64kb-0880.wav");
    let german = transcribed(&audio, "de-CH").await;
    assert_eq!(german.language.as_deref(), Some("de"));
    let unknown = transcribed(&audio, "tlh").await;
    assert_eq!(unknown.language.as_deref(), Some("en"));
}

#[tokio::test]
async fn words_of_the_prompt_are_spelled_as_they_are_there() {
    let audio = recording("librivox/sense_and_sensibility_01_austen_64kb-0870.wav");
    let hints =
        TranscriptionHints { language: Some("en".into()), prompt: Some("Mr. Jon Dashwoode <|endoftext|>".into()) };
    let transcription = ENGINE.transcribe(&audio, &hints, &Call::default()).await.unwrap();
    assert!(transcription.text.contains("Dashwoode"), "{}", transcription.text);
    // The prompt's length is limited.
    let hints = TranscriptionHints { prompt: Some("word ".repeat(100_000)), ..hints };
    ENGINE.transcribe(&audio, &hints, &Call::default()).await.unwrap();
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_stops() {
    let audio = recording("two-speaker-call/sample.wav");
    let (hints, call) = (TranscriptionHints::default(), Call::default());
    let cancel = async { call.cancellation.cancel() };
    let (result, ()) = tokio::join!(ENGINE.transcribe(&audio, &hints, &call), cancel);
    assert_eq!(result.unwrap_err().to_string(), "nobody waits for the answer any more");
}

#[test]
fn a_file_that_is_not_whispers_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let options = EngineOptions { model_path: Some(folder.path().into()), ..options() };
    let refused = || EmbeddedTranscription::load(&options).unwrap_err();
    assert!(refused().value.ends_with("model.bin"), "{}", refused());
    let path = ModelFiles::find(&EngineOptions::default(), Role::Transcription).unwrap().file("model.bin");
    let mut begin = vec![0; 4096];
    std::io::Read::read_exact(&mut fs::File::open(&path).unwrap(), &mut begin).unwrap();
    fs::write(folder.path().join("model.bin"), begin).unwrap();
    let error = refused();
    assert_eq!(error.option, "model_path");
    assert!(error.value.ends_with("model.bin"), "{error}");
    assert!(error.to_string().contains("cut off in `decoder/embeddings/weight`"), "{error}");
    let mut whole = fs::read(&path).unwrap();
    fs::write(folder.path().join("model.bin"), &whole).unwrap();
    assert!(refused().value.ends_with("tokenizer.json"), "{}", refused());
    // A layer that goes by another name is no reason to do without it.
    let name = b"encoder/layer_3/ffn/linear_0/weight";
    let at = whole.windows(name.len()).position(|bytes| bytes == name).unwrap();
    whole[at + b"encoder/layer_".len()] = b'9';
    fs::write(folder.path().join("model.bin"), &whole).unwrap();
    assert!(refused().to_string().contains("is in it, and in no Whisper"), "{}", refused());
}
