//! Kaldi's filter bank: how loud eighty bands are, a hundred times a second, as the voice model was trained on it.
//!
//! No dither, so that the same recording gives the same numbers. Checked against kaldi-native-fbank.

use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex};

use crate::audio::SAMPLE_RATE;

/// Bands.
pub(super) const BANDS: usize = 80;
/// Samples from one frame to the next: 10 ms.
pub(super) const STEP: usize = 160;
/// Samples of a frame: 25 ms.
pub(super) const FRAME: usize = 400;

/// The next power of two: Kaldi pads a frame to it.
const FFT: usize = 512;
/// Each sample loses so much of the one before it, which brings out the high frequencies.
const PREEMPHASIS: f32 = 0.97;
/// Povey's window is Hann's to this power: it does not quite fall to zero.
const POVEY: f64 = 0.85;
/// Where the lowest band begins, in Hz; the highest ends at half the sample rate.
const LOWEST_HZ: f64 = 20.0;

pub(super) struct FilterBank {
    window: Vec<f32>,
    fft: Arc<dyn RealToComplex<f32>>,
    bands: Vec<Band>,
}

/// A triangle over some of the spectrum.
struct Band {
    first: usize,
    weights: Vec<f32>,
}

impl FilterBank {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "indices into a frame")]
    pub(super) fn new() -> Self {
        let hann = |n| 0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / (FRAME - 1) as f64).cos();
        let low = mel(LOWEST_HZ);
        // Each band reaches from the middle of the one below it to the middle of the one above.
        let width = (mel(f64::from(SAMPLE_RATE) / 2.0) - low) / (BANDS + 1) as f64;
        Self {
            window: (0..FRAME).map(|n| hann(n).powf(POVEY) as f32).collect(),
            fft: RealFftPlanner::new().plan_fft_forward(FFT),
            bands: (0..BANDS).map(|band| Band::new(low + width * band as f64, width)).collect(),
        }
    }

    /// A row of [`BANDS`] for each frame that lies within the samples, which are from -1 to 1.
    pub(super) fn frames(&self, samples: &[f32]) -> Vec<[f32; BANDS]> {
        let mut frame = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        samples
            .windows(FRAME)
            .step_by(STEP)
            .map(|samples| {
                self.prepare(samples, &mut frame);
                // It refuses buffers of other lengths than its own.
                _ = self.fft.process_with_scratch(&mut frame, &mut spectrum, &mut scratch);
                std::array::from_fn(|band| self.bands[band].loudness(&spectrum))
            })
            .collect()
    }

    /// Without the mean, with stronger high frequencies, faded at both ends, and padded.
    #[expect(clippy::cast_precision_loss, reason = "a frame's length")]
    fn prepare(&self, samples: &[f32], frame: &mut [f32]) {
        let mean = samples.iter().sum::<f32>() / FRAME as f32;
        let mut before = samples[0] - mean;
        for ((out, sample), window) in frame.iter_mut().zip(samples).zip(&self.window) {
            let sample = sample - mean;
            *out = (sample - PREEMPHASIS * before) * window;
            before = sample;
        }
        frame[FRAME..].fill(0.0);
    }
}

impl Band {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "indices into a spectrum")]
    fn new(left: f64, width: f64) -> Self {
        let weight = |bin: usize| {
            let place = (mel(f64::from(SAMPLE_RATE) * bin as f64 / FFT as f64) - left) / width;
            // Up from 0 to the middle at 1, and down to 2.
            (place.min(2.0 - place)) as f32
        };
        // Kaldi leaves out the last bin, at half the sample rate.
        let bins = 0..FFT / 2;
        let first = bins.clone().find(|&bin| weight(bin) > 0.0).unwrap_or(0);
        let weights = (first..bins.end).map(weight).take_while(|&weight| weight > 0.0).collect();
        Self { first, weights }
    }

    fn loudness(&self, spectrum: &[Complex<f32>]) -> f32 {
        let power: f32 =
            spectrum[self.first..].iter().zip(&self.weights).map(|(bin, weight)| bin.norm_sqr() * weight).sum();
        // The logarithm of silence would be infinite.
        power.max(f32::EPSILON).ln()
    }
}

/// A frequency on the scale on which equal steps sound equally large.
fn mel(hz: f64) -> f64 {
    1127.0 * (1.0 + hz / 700.0).ln()
}
