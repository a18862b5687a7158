//! What Whisper hears: the loudness of 80 (or 128) bands, a hundred times a second.

use std::{f64::consts::TAU, ops::Range, sync::Arc};

use candle_core::{Device, Tensor};
use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex32};

use crate::audio::SAMPLE_RATE;

/// Samples between two frames: 10 ms.
pub(super) const HOP: usize = 160;
/// Frames in what Whisper hears at once: 30 s.
pub(super) const WINDOW_FRAMES: usize = 3000;
/// The same in samples.
pub(super) const WINDOW_SAMPLES: usize = WINDOW_FRAMES * HOP;
/// Samples that a frame is computed from: 25 ms.
const FRAME: usize = 400;
/// The quietest power told from none, before it is turned into a logarithm.
const FLOOR: f32 = 1e-10;
/// What is quieter than the loudest by more than this is raised to it: 8 tenths of bels, 80 dB.
const RANGE: f32 = 8.0;

/// Slaney's mel scale: a mel is so many Hz up to 1 kHz,
const LINEAR_HZ: f64 = 200.0 / 3.0;
/// which is here,
const LINEAR_MELS: f64 = 15.0;
/// and above it 27 mels are a factor of 6.4.
const LOG_STEP: f64 = 0.068_751_777_420_949_12;

/// Computes spectrograms.
pub(super) struct Spectrogram {
    transform: Arc<dyn RealToComplex<f32>>,
    taper: Vec<f32>,
    bands: Vec<Band>,
}

/// A triangle over a few of the frequencies.
struct Band {
    bins: Range<usize>,
    weights: Vec<f32>,
}

impl Spectrogram {
    /// For a model that hears so many bands.
    pub(super) fn new(bands: usize) -> Self {
        Self { transform: RealFftPlanner::new().plan_fft_forward(FRAME), taper: taper(), bands: bank(bands) }
    }

    /// The 30 s from the sample `start` on, as bands × frames; silence follows the recording's end.
    pub(super) fn window(&self, samples: &[i16], start: usize) -> candle_core::Result<Tensor> {
        let mut input = self.transform.make_input_vec();
        let mut output = self.transform.make_output_vec();
        let mut scratch = self.transform.make_scratch_vec();
        let mut loudness = vec![FLOOR.log10(); self.bands.len() * WINDOW_FRAMES];
        for frame in 0..WINDOW_FRAMES {
            let middle = start + frame * HOP;
            if middle >= samples.len().saturating_add(FRAME / 2) {
                break;
            }
            for (offset, (value, taper)) in input.iter_mut().zip(&self.taper).enumerate() {
                *value = sample(samples, middle + offset) * taper;
            }
            self.transform
                .process_with_scratch(&mut input, &mut output, &mut scratch)
                .map_err(candle_core::Error::wrap)?;
            for (index, band) in self.bands.iter().enumerate() {
                loudness[index * WINDOW_FRAMES + frame] = band.power(&output).max(FLOOR).log10();
            }
        }
        let least = loudness.iter().copied().fold(f32::NEG_INFINITY, f32::max) - RANGE;
        for value in &mut loudness {
            *value = (value.max(least) + 4.0) / 4.0;
        }
        Tensor::from_vec(loudness, (self.bands.len(), WINDOW_FRAMES), &Device::Cpu)
    }
}

impl Band {
    fn power(&self, spectrum: &[Complex32]) -> f32 {
        spectrum[self.bins.clone()].iter().zip(&self.weights).map(|(bin, weight)| bin.norm_sqr() * weight).sum()
    }
}

/// A sample as a number between -1 and 1. `place` counts from half a frame before the first, where the recording is
/// mirrored, as it was in training.
fn sample(samples: &[i16], place: usize) -> f32 {
    let index = place.abs_diff(FRAME / 2);
    samples.get(index).map_or(0.0, |&sample| f32::from(sample) / 32_768.0)
}

/// Hann's window.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small numbers; f32 is enough")]
fn taper() -> Vec<f32> {
    (0..FRAME).map(|n| (0.5 - 0.5 * (n as f64 / FRAME as f64 * TAU).cos()) as f32).collect()
}

/// Triangles that overlap by half, evenly spaced in mels from 0 to 8 kHz, each of the same area.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small numbers; f32 is enough")]
fn bank(bands: usize) -> Vec<Band> {
    let nyquist = f64::from(SAMPLE_RATE) / 2.0;
    let step = mels(nyquist) / (bands + 1) as f64;
    let bins = FRAME / 2 + 1;
    let frequency = |bin: usize| bin as f64 * f64::from(SAMPLE_RATE) / FRAME as f64;
    let band = |index: usize| {
        let [low, middle, high] = [0, 1, 2].map(|edge| hz((index + edge) as f64 * step));
        let height = |bin: usize| {
            let frequency = frequency(bin);
            let slope = ((frequency - low) / (middle - low)).min((high - frequency) / (high - middle));
            slope.max(0.0) * 2.0 / (high - low)
        };
        let first = (0..bins).find(|&bin| height(bin) > 0.0).unwrap_or(bins);
        let weights: Vec<f32> =
            (first..bins).map(|bin| height(bin) as f32).take_while(|&height| height > 0.0).collect();
        Band { bins: first..first + weights.len(), weights }
    };
    (0..bands).map(band).collect()
}

fn mels(hz: f64) -> f64 {
    let linear = hz / LINEAR_HZ;
    if linear < LINEAR_MELS { linear } else { LINEAR_MELS + (linear / LINEAR_MELS).ln() / LOG_STEP }
}

fn hz(mels: f64) -> f64 {
    if mels < LINEAR_MELS {
        mels * LINEAR_HZ
    } else {
        LINEAR_MELS * LINEAR_HZ * ((mels - LINEAR_MELS) * LOG_STEP).exp()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "small numbers")]

    use super::*;

    #[test]
    fn a_tone_is_loudest_in_its_band() {
        let tone: Vec<i16> = (0..16_000).map(|n| ((f64::from(n) / 16.0 * TAU).sin() * 8000.0) as i16).collect();
        let window = Spectrogram::new(80).window(&tone, 0).unwrap();
        let frame: Vec<f32> = window.narrow(1, 50, 1).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let loudest = (0..80).max_by(|&a, &b| frame[a].total_cmp(&frame[b])).unwrap();
        // 1 kHz is mel 15 of 45.2, and the bands' middles are 0.56 mel apart.
        assert!((25..=26).contains(&loudest), "{loudest}");
    }

    #[test]
    fn beyond_the_end_there_is_silence_80_db_below_the_loudest() {
        let window = Spectrogram::new(80).window(&[8000, -8000].repeat(8000), 0).unwrap();
        let all: Vec<f32> = window.flatten_all().unwrap().to_vec1().unwrap();
        let loudest = all.iter().copied().fold(f32::MIN, f32::max);
        assert!((loudest - all[WINDOW_FRAMES - 1] - RANGE / 4.0).abs() < 1e-6);
    }

    #[test]
    fn a_window_that_begins_later_hears_what_is_there() {
        let samples: Vec<i16> = (0..64_000).map(|n| (n * 7919 % 20_011 - 10_000) as i16).collect();
        let spectrogram = Spectrogram::new(80);
        let [from_start, later] =
            [0, 16_000].map(|start| spectrogram.window(&samples, start).unwrap().to_vec2::<f32>().unwrap());
        assert_eq!(from_start[40][110..390], later[40][10..290]);
    }

    #[test]
    fn a_window_after_the_end_is_even() {
        let window = Spectrogram::new(80).window(&[1000; 100], 48_000).unwrap();
        let all: Vec<f32> = window.flatten_all().unwrap().to_vec1().unwrap();
        assert!(all.iter().all(|&value| (value - all[0]).abs() < 1e-6));
    }
}
