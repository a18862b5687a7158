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
    let mut writer = Writer::new(whisper, samples, hints, stop)?;
    let mut place = 0;
    while samples.len().saturating_sub(place) >= MIN_SAMPLES {
        stop.check()?;
        place += writer.window(place)?;
    }
    let code = writer.language.and_then(|language| whisper.vocabulary.code(language));
    Ok(Transcription {
        text: writer.text.trim().to_owned(),
        language: code.map(str::to_owned),
        segments: writer.segments,
        model: whisper.name.clone(),
    })
}

impl<'a> Writer<'a> {
    fn new(
        whisper: &'a Whisper,
        samples: &'a [i16],
        hints: &TranscriptionHints,
        stop: &'a Stop,
    ) -> Result<Self, EngineError> {
        let vocabulary = &whisper.vocabulary;
        let tag = hints.language.as_deref().unwrap_or_default();
        let language = vocabulary.language(tag);
        Ok(Self {
            whisper,
            samples,
            decoding: Decoding { vocabulary, random: fastrand::Rng::with_seed(SEED), stop },
            language,
            settled: language.is_some(),
            traditional: script::asks_for_traditional(tag),
            prompt: hints.prompt.as_deref().map_or(Ok(Vec::new()), |prompt| vocabulary.encode(prompt))?,
            text: String::new(),
            segments: Vec::new(),
        })
    }

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
        let Decoded { log_likelihood, no_speech, temperature, flaw, .. } = decoded;
        tracing::debug!(log_likelihood, no_speech, temperature, ?flaw, likelihood, "a window is decoded");
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
    use crate::embedded::transcription::{decoding::Flaw, reference::ENGINE};

    /// What becomes of a stretch of a second at the end of a recording of two.
    fn added(text: &str, language: &str, tag: &str) -> Vec<TranscriptSegment> {
        let (whisper, stop, samples) = (&ENGINE.whisper, Stop::never(), vec![0; 32_000]);
        let hints = TranscriptionHints { language: Some(tag.into()), prompt: None };
        let mut writer = Writer::new(whisper, &samples, &hints, &stop).unwrap();
        let stretch = Stretch { start: 50, end: 120, tokens: whisper.vocabulary.encode(text).unwrap() };
        writer.add(0, whisper.vocabulary.language(language).unwrap(), &stretch).unwrap();
        writer.segments
    }

    #[test]
    fn chinese_is_simplified_unless_the_tag_asks_for_traditional_characters() {
        for (language, tag, expected) in
            [("zh", "", "我们开会"), ("zh", "zh-CN", "我们开会"), ("zh", "zh-TW", "我們開會"), ("ja", "", "我們開會")]
        {
            assert_eq!(added("我們開會", language, tag)[0].text, expected, "{language} {tag}");
        }
    }

    #[test]
    fn a_segment_ends_with_the_recording_and_none_begins_after_it() {
        let segment = &added("word", "en", "")[0];
        assert_eq!((segment.start, segment.end, segment.text.as_str()), (1.0, 2.0, "word"));
        let (whisper, stop, samples) = (&ENGINE.whisper, Stop::never(), vec![0; 32_000]);
        let mut writer = Writer::new(whisper, &samples, &TranscriptionHints::default(), &stop).unwrap();
        let stretch = Stretch { start: 100, end: 120, tokens: whisper.vocabulary.encode("word").unwrap() };
        writer.add(0, whisper.vocabulary.languages[0].1, &stretch).unwrap();
        assert!(writer.segments.is_empty() && writer.text.is_empty() && writer.prompt.is_empty());
    }

    #[test]
    fn the_next_window_begins_where_the_text_ends_unless_a_moment_is_left() {
        let (whisper, stop, samples) = (&ENGINE.whisper, Stop::never(), vec![0; 20 * SAMPLE_RATE as usize]);
        let mut writer = Writer::new(whisper, &samples, &TranscriptionHints::default(), &stop).unwrap();
        let vocabulary = &whisper.vocabulary;
        let mut advance = |length: usize, end: u32, temperature| {
            let text = vocabulary.encode("word").unwrap();
            let end = vocabulary.first_time + end;
            let tokens = [&[vocabulary.first_time][..], &text, &[end, end]].concat();
            let flaw = Flaw::Nothing;
            let decoded = Decoded { tokens, log_likelihood: -0.1, no_speech: 0.1, temperature, flaw };
            let advance = writer.write(0, length, vocabulary.languages[0].1, &decoded).unwrap();
            (advance, writer.prompt.is_empty())
        };
        assert_eq!(advance(samples.len(), 900, 0.4), (18 * SAMPLE_RATE as usize, false));
        assert_eq!(advance(samples.len(), 970, 0.0), (samples.len(), false));
        // Far from the end, with a text that is too far-fetched for the next window to hear of it.
        assert_eq!(advance(WINDOW_SAMPLES, 10, 0.6), (MIN_ADVANCE, true));
        assert_eq!(advance(WINDOW_SAMPLES, 1490, 0.0), (1490 * STEP, false));
    }

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
