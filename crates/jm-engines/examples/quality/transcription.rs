//! Transcription: a reader's sentences, word by word.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use jm_engines::{Call, TranscriptionHints};

use crate::{
    embedded, loaded, recording,
    report::{Bound, Report, Row, Unit},
    word_error::WordErrors,
};

/// A model of Whisper's size makes about half as many on clean speech.
const RATE: Bound = Bound::AtMost(10.0);
/// Slower than that, work piles up.
const REAL_TIME: Bound = Bound::Below(1.0);

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let engine = loaded(embedded().transcription())?;
    let hints = TranscriptionHints { language: Some("en".into()), ..TranscriptionHints::default() };
    let (mut taken, mut length) = (Duration::ZERO, Duration::ZERO);
    let mut all = Vec::new();
    for recording in recording::librivox().await? {
        let begun = Instant::now();
        let heard = engine.transcribe(&recording.audio, &hints, &Call::default()).await;
        taken += begun.elapsed();
        length += recording.audio.duration();
        let errors = WordErrors::between(&recording.words, &heard.map_err(|error| anyhow!("{error}"))?.text);
        let seconds = recording.audio.duration().as_secs_f64();
        report.add(rate(format!("LibriVox {}: {} words in {seconds:.1} s", recording.name, errors.words), errors));
        all.push(errors);
    }
    let sum: WordErrors = all.into_iter().sum();
    report.add(rate(format!("all: {} errors in {} words", sum.errors, sum.words), sum));
    report.add(Row {
        measure: "time of transcription by time of speech",
        input: format!("{:.1} s for {:.1} s", taken.as_secs_f64(), length.as_secs_f64()),
        figure: taken.as_secs_f64() / length.as_secs_f64(),
        unit: Unit::Ratio,
        bound: REAL_TIME,
    });
    Ok(())
}

fn rate(input: String, errors: WordErrors) -> Row {
    Row { measure: "word error rate", input, figure: errors.rate(), unit: Unit::Percent, bound: RATE }
}
