//! Samples of any rate, turned into 16 kHz as they come.

use rubato::{Fft, FixedSync, Resampler, WindowFunction, audioadapter_buffers::direct::InterleavedSlice};

use super::SAMPLE_RATE;

/// Frames given to the resampler at once.
const CHUNK: usize = 4096;
/// Blocks in a chunk: of a thousand frames, whose filter keeps speech up to 7.5 kHz.
const SUB_CHUNKS: usize = 4;

/// Collects samples at [`SAMPLE_RATE`], whatever the rate of what is pushed, which may change on the way.
pub(super) struct Collector {
    samples: Samples,
    max: usize,
    stage: Option<Stage>,
}

/// What is collected, without what was taken away already.
#[derive(Default)]
struct Samples {
    waiting: Vec<i16>,
    taken: usize,
}

impl Samples {
    fn len(&self) -> usize {
        self.taken + self.waiting.len()
    }

    fn extend(&mut self, mono: &[f32]) {
        self.waiting.extend(mono.iter().map(|&sample| to_i16(sample)));
    }
}

/// More samples than are wanted.
#[derive(Debug)]
pub(super) struct Full;

/// What is being resampled at one rate.
struct Stage {
    rate: u32,
    /// `None` where there is nothing to do.
    resampler: Option<Fft<f32>>,
    waiting: Vec<f32>,
    output: Vec<f32>,
    /// Frames in so far.
    pushed: u64,
    /// Where its samples begin.
    start: usize,
    /// Samples still to be dropped: the filter's delay.
    delay: usize,
}

impl Collector {
    /// Accepts up to `max` samples.
    pub(super) fn new(max: usize) -> Self {
        Self { samples: Samples::default(), max, stage: None }
    }

    /// How many samples there are, with those that were taken.
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// How many can be taken.
    pub(super) fn waiting(&self) -> usize {
        self.samples.waiting.len()
    }

    /// The samples that have come since the last time.
    pub(super) fn take(&mut self) -> Vec<i16> {
        self.samples.taken += self.samples.waiting.len();
        std::mem::take(&mut self.samples.waiting)
    }

    /// Adds samples of one channel between -1 and 1. `Err(None)` is a rate the resampler cannot do.
    pub(super) fn push(&mut self, rate: u32, mono: &[f32]) -> Result<(), Option<Full>> {
        if self.stage.as_ref().is_none_or(|stage| stage.rate != rate) {
            self.finish_stage()?;
            self.stage = Some(Stage::new(rate, self.samples.len()).ok_or(None)?);
        }
        let Some(stage) = &mut self.stage else { return Ok(()) };
        stage.push(mono, &mut self.samples).ok_or(None)?;
        self.check()
    }

    /// Ends the last stage. What is left can be taken.
    pub(super) fn finish(&mut self) -> Result<(), Option<Full>> {
        self.finish_stage()?;
        self.check()
    }

    fn finish_stage(&mut self) -> Result<(), Option<Full>> {
        match self.stage.take() {
            Some(stage) => stage.finish(&mut self.samples).ok_or(None),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), Option<Full>> {
        if self.samples.len() > self.max { Err(Some(Full)) } else { Ok(()) }
    }
}

impl Stage {
    fn new(rate: u32, start: usize) -> Option<Self> {
        let mut stage =
            Self { rate, resampler: None, waiting: Vec::new(), output: Vec::new(), pushed: 0, start, delay: 0 };
        if rate != SAMPLE_RATE {
            let (from, to) = (usize::try_from(rate).ok()?, usize::try_from(SAMPLE_RATE).ok()?);
            let window = WindowFunction::BlackmanHarris2;
            let fft = Fft::<f32>::new_custom(from, to, CHUNK, SUB_CHUNKS, 1, window, FixedSync::Input).ok()?;
            stage.delay = fft.output_delay();
            stage.output = vec![0.0; fft.output_frames_max()];
            stage.resampler = Some(fft);
        }
        Some(stage)
    }

    fn push(&mut self, mono: &[f32], samples: &mut Samples) -> Option<()> {
        self.pushed += mono.len() as u64;
        if self.resampler.is_none() {
            samples.extend(mono);
            return Some(());
        }
        self.waiting.extend_from_slice(mono);
        let mut done = 0;
        while self.waiting.len() - done >= CHUNK {
            self.chunk(done, samples)?;
            done += CHUNK;
        }
        self.waiting.drain(..done);
        Some(())
    }

    /// Resamples the chunk that waits at `from`.
    fn chunk(&mut self, from: usize, samples: &mut Samples) -> Option<()> {
        let resampler = self.resampler.as_mut()?;
        let input = InterleavedSlice::new(&self.waiting[from..from + CHUNK], 1, CHUNK).ok()?;
        let room = self.output.len();
        let mut output = InterleavedSlice::new_mut(&mut self.output, 1, room).ok()?;
        let (_, count) = resampler.process_into_buffer(&input, &mut output, None).ok()?;
        let late = self.delay.min(count);
        self.delay -= late;
        samples.extend(&self.output[late..count]);
        Some(())
    }

    /// Pushes out what is still in the filter, to the length that the input had.
    fn finish(mut self, samples: &mut Samples) -> Option<()> {
        let rate = u64::from(self.rate);
        let length = (self.pushed * u64::from(SAMPLE_RATE) + rate / 2) / rate;
        let end = self.start.checked_add(usize::try_from(length).ok()?)?;
        while samples.len() < end {
            self.waiting.resize(CHUNK.max(self.waiting.len()), 0.0);
            self.chunk(0, samples)?;
            self.waiting.drain(..CHUNK);
        }
        samples.waiting.truncate(end.saturating_sub(samples.taken));
        Some(())
    }
}

/// Loudest is ±32768; what is beyond is clipped, and what is no number is silence.
#[expect(clippy::cast_possible_truncation, reason = "the cast clips, as it should")]
fn to_i16(sample: f32) -> i16 {
    (sample * 32768.0).round() as i16
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "small numbers"
    )]

    use super::*;
    use std::f32::consts::TAU;

    fn tone(rate: u32, seconds: f32) -> Vec<f32> {
        let count = (rate as f32 * seconds) as usize;
        (0..count).map(|n| (n as f32 * 440.0 / rate as f32 * TAU).sin() * 0.5).collect()
    }

    fn resampled(rate: u32, mono: &[f32], piece: usize) -> Vec<i16> {
        let mut collector = Collector::new(1_000_000);
        let mut samples = Vec::new();
        for piece in mono.chunks(piece) {
            collector.push(rate, piece).unwrap();
            samples.extend(collector.take());
        }
        collector.finish().unwrap();
        samples.extend(collector.take());
        samples
    }

    #[test]
    fn lengths_and_phase_are_kept_at_every_rate() {
        for rate in [8000, 11_025, 16_000, 22_050, 44_100, 44_101, 48_000, 96_000] {
            let samples = resampled(rate, &tone(rate, 1.0), 1152);
            assert_eq!(samples.len(), 16_000, "{rate}");
            // No delay: away from the edges each sample is where the tone has it.
            let exact = tone(SAMPLE_RATE, 1.0);
            let worst = (2000..14_000).map(|n| (f32::from(samples[n]) / 32768.0 - exact[n]).abs()).fold(0.0, f32::max);
            // A filter of an odd length has its middle half a frame aside.
            let half_a_frame = 0.5 * TAU * 440.0 / rate.min(SAMPLE_RATE) as f32 / 2.0;
            assert!(worst < half_a_frame * 1.1, "{rate}: {worst}");
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same_samples() {
        let mono = tone(44_100, 0.5);
        let whole = resampled(44_100, &mono, mono.len());
        assert_eq!(resampled(44_100, &mono, 1), whole);
        assert_eq!(resampled(44_100, &mono, 10_000), whole);
        assert_eq!(resampled(44_100, &mono[..3], 3).len(), 1);
    }

    #[test]
    fn a_change_of_rate_on_the_way_keeps_the_length() {
        let mut collector = Collector::new(100_000);
        collector.push(44_100, &tone(44_100, 1.0)).unwrap();
        collector.push(16_000, &tone(16_000, 1.0)).unwrap();
        collector.push(8000, &tone(8000, 1.0)).unwrap();
        collector.finish().unwrap();
        assert_eq!(collector.len(), 48_000);
    }

    #[test]
    fn more_than_is_wanted_is_refused_as_it_comes() {
        let mut collector = Collector::new(1000);
        assert!(matches!(collector.push(16_000, &[0.0; 1001]), Err(Some(Full))));
    }

    #[test]
    fn loud_samples_are_clipped() {
        assert_eq!([2.0, 1.0, -1.0, -9.0, f32::NAN, 0.5].map(to_i16), [32767, 32767, -32768, -32768, 0, 16384]);
    }
}
