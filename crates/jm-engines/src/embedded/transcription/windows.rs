//! A recording, 30 s after 30 s: each window begins where the text of the one before it ends.

use jm_tasks::TranscriptSegment;

use super::{
    Whisper,
    decoding::{Decoded, Decoding},
    script,
    spectrogram::{HOP, WINDOW_SAMPLES},
    stretches::{Stretch, Told},
    vocabulary::TIME_STEP,
};
use crate::{
    audio::SAMPLE_RATE,
    embedded::compute::Stop,
    engine::{Transcription, TranscriptionHints},
    error::EngineError,
};

/// Samples in a step of Whisper's times, 20 ms.
const STEP: usize = 2 * HOP;
/// The shortest recording, or rest of one, with a word in it: 100 ms.
const MIN_SAMPLES: usize = SAMPLE_RATE as usize / 10;
/// A window moves on by a second at least, so that there are not too many of them.
const MIN_ADVANCE: usize = SAMPLE_RATE as usize;
/// What is left after the last text, if it is shorter than this: Whisper has heard it with that text and found nothing
/// in it. Heard again without it, it would be given words that nobody said.
const MAX_REST: usize = SAMPLE_RATE as usize;
/// Silence that is passed over: a second. Less of it is a pause.
const MIN_SILENCE: usize = SAMPLE_RATE as usize;
/// 100 ms, in which a voice has some loud sound.
const MOMENT: usize = SAMPLE_RATE as usize / 10;
/// The mean square of samples below which there is nothing to hear: 70 dB under the loudest possible.
const SILENCE: u64 = 10 * 10;
/// A language this likely is not detected anew in the next window.
const MIN_LANGUAGE: f32 = 0.5;
/// From this temperature on, the text is too far-fetched to be told to the next window.
const MAX_PROMPT_TEMPERATURE: f32 = 0.5;
/// Whatever it is: the same for all recordings.
const SEED: u64 = 30;

/// What is known of the text while it is written.
struct Writer<'a> {
    whisper: &'a Whisper,
    samples: &'a [i16],
    decoding: Decoding<'a>,
    language: Option<u32>,
    /// Whether the language is beyond doubt: hinted, or detected where somebody speaks.
    settled: bool,
    traditional: bool,
    /// What the next window is told: hints, and the text so far.
    prompt: Vec<u32>,
    text: String,
    segments: Vec<TranscriptSegment>,
}

/// Writes down a recording.
pub(super) fn transcribe(
    whisper: &Whisper,
    samples: &[i16],
    hints: &TranscriptionHints,
    stop: &Stop,
) -> Result<Transcription, EngineError> {
    let vocabulary = &whisper.vocabulary;
    let tag = hints.language.as_deref().unwrap_or_default();
    let random = fastrand::Rng::with_seed(SEED);
    let language = vocabulary.language(tag);
    let mut writer = Writer {
        whisper,
        samples,
        decoding: Decoding { vocabulary, random, stop },
        language,
        settled: language.is_some(),
        traditional: script::asks_for_traditional(tag),
        prompt: hints.prompt.as_deref().map_or(Ok(Vec::new()), |prompt| vocabulary.encode(prompt))?,
        text: String::new(),
        segments: Vec::new(),
    };
    let mut place = 0;
    while samples.len().saturating_sub(place) >= MIN_SAMPLES {
        stop.check()?;
        place += writer.window(place)?;
    }
    Ok(Transcription {
        text: writer.text.trim().to_owned(),
        language: writer.language.and_then(|language| vocabulary.code(language)).map(str::to_owned),
        segments: writer.segments,
        model: whisper.name.clone(),
    })
}

impl Writer<'_> {
    /// Writes down the window that begins here; tells how far the next one is.
    fn window(&mut self, place: usize) -> Result<usize, EngineError> {
        let silence = silence(&self.samples[place..]);
        let rest = self.samples.len() - place;
        if silence >= MIN_SILENCE || silence == rest {
            return Ok(silence);
        }
        let length = rest.min(WINDOW_SAMPLES);
        let spectrogram = self.whisper.spectrogram.window(self.samples, place)?;
        let heard = self.whisper.encoder.forward(&spectrogram, self.decoding.stop)?;
        let mut context = self.whisper.decoder.listen(&heard)?;
        let (language, likelihood) = match self.language.filter(|_| self.settled) {
            Some(language) => (language, 1.0),
            None => self.decoding.language(&mut context)?,
        };
        let decoded = self.decoding.window(&mut context, language, &self.prompt)?;
        // Never what was said.
        tracing::debug!(
            at = seconds(place),
            language,
            likelihood,
            temperature = decoded.temperature,
            "a window is decoded"
        );
        if decoded.is_silence() {
            return Ok(length);
        }
        let before = self.segments.len();
        let advance = self.write(place, length, language, &decoded)?;
        if self.segments.len() > before {
            self.language = Some(language);
            self.settled = likelihood >= MIN_LANGUAGE;
        }
        Ok(advance)
    }

    fn write(&mut self, place: usize, length: usize, language: u32, decoded: &Decoded) -> Result<usize, EngineError> {
        let steps = u32::try_from(length.div_ceil(STEP)).unwrap_or(u32::MAX);
        let told = Told::new(&decoded.tokens, steps, self.decoding.vocabulary);
        for stretch in &told.stretches {
            self.add(place, language, stretch)?;
        }
        if decoded.temperature > MAX_PROMPT_TEMPERATURE {
            self.prompt.clear();
        }
        let Some(until) = told.until else { return Ok(length) };
        let advance = (until as usize * STEP).clamp(MIN_ADVANCE, WINDOW_SAMPLES);
        // The window has the recording's end, and nothing but a moment is left.
        let heard_to_the_end = length < WINDOW_SAMPLES && length.saturating_sub(advance) < MAX_REST;
        Ok(if heard_to_the_end { length } else { advance })
    }

    /// Adds a stretch of the window that begins at `place`, if it says something within the recording.
    fn add(&mut self, place: usize, language: u32, stretch: &Stretch) -> Result<(), EngineError> {
        let vocabulary = self.decoding.vocabulary;
        let mut text = vocabulary.decode(&stretch.tokens)?;
        let all = seconds(self.samples.len());
        let time = |steps: u32| (seconds(place) + f64::from(steps) * TIME_STEP).min(all);
        let (start, end) = (time(stretch.start), time(stretch.end));
        if text.trim().is_empty() || start >= end {
            return Ok(());
        }
        self.prompt.extend(&stretch.tokens);
        if !self.traditional && vocabulary.code(language) == Some("zh") {
            text = script::simplified(&text);
        }
        self.segments.push(TranscriptSegment { start, end, text: text.trim().to_owned(), speaker: None });
        self.text.push_str(&text);
        Ok(())
    }
}

/// Samples from the beginning on in which there is nothing to hear; a moment before the first sound is left.
fn silence(samples: &[i16]) -> usize {
    let sounds = |moment: &[i16]| {
        let energy: u64 = moment.iter().map(|&sample| u64::from(sample.unsigned_abs()).pow(2)).sum();
        energy > SILENCE * moment.len() as u64
    };
    let first = samples.chunks(MOMENT).position(sounds);
    first.map_or(samples.len(), |first| first.saturating_sub(1) * MOMENT)
}

#[expect(clippy::cast_precision_loss, reason = "recordings are shorter than thousands of years")]
fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_a_moment_before_the_first_sound() {
        let mut samples = vec![3; 10 * MOMENT];
        assert_eq!(silence(&samples), samples.len());
        samples[7 * MOMENT + 50..8 * MOMENT].fill(100);
        assert_eq!(silence(&samples), 6 * MOMENT);
        assert_eq!(silence(&samples[7 * MOMENT..]), 0);
        assert_eq!(silence(&[]), 0);
    }

    #[test]
    fn the_loudest_samples_there_are_are_no_silence() {
        assert_eq!(silence(&[i16::MIN; 2 * MOMENT]), 0);
    }
}
