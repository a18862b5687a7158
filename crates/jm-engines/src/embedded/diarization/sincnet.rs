//! SincNet: from the sound itself to sixty features, 59 times a second.
//!
//! Its first convolution is a bank of band-pass filters of which only the edges were learnt
//! (Ravanelli and Bengio, 2018); the second and the third are plain ones.

use candle_core::{Device, Tensor};
use jm_mq_core::OptionsError;

use super::weights::{EPSILON, Weights};
use crate::audio::SAMPLE_RATE;

/// Features of a frame.
pub(super) const FEATURES: usize = 60;
/// Two for each band: in phase, and a quarter of a period off.
const FILTERS: usize = 80;
const BANDS: usize = FILTERS / 2;
/// Samples that a filter looks at, and half of those beside the one in the middle.
const TAPS: usize = 251;
const HALF: usize = TAPS / 2;
/// Frames that the other convolutions look at.
const KERNEL: usize = 5;
/// Samples from one of a filter's outputs to the next.
const STRIDE: usize = 10;
/// No band begins lower, and none is narrower, in Hz.
const LEAST_HZ: f32 = 50.0;
/// Frames a pooling makes one of.
const POOL: usize = 3;
/// What is left of a negative number.
const LEAK: f32 = 0.01;

pub(super) struct SincNet {
    sound: Norm,
    filters: Layer,
    convolutions: [Layer; 2],
}

/// A convolution, and the normalisation after it.
struct Layer {
    /// A row for each output; in it the taps of one input after those of another.
    kernel: Tensor,
    taps: usize,
    /// Samples or frames from one output to the next.
    stride: usize,
    /// Empty: none.
    bias: Vec<f32>,
    norm: Norm,
}

/// Makes mean 0 and variance 1 of what a channel has in a window.
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl SincNet {
    pub(super) fn load(weights: &Weights) -> Result<Self, OptionsError> {
        let convolution = |index: usize, inputs| {
            let name = format!("sincnet.conv1d.{index}");
            let kernel_name = format!("{name}.weight");
            let kernel =
                weights.tensor(&kernel_name, &[FEATURES, inputs, KERNEL])?.reshape((FEATURES, inputs * KERNEL));
            Ok(Layer {
                kernel: kernel.map_err(|error| weights.wrong(&kernel_name, error))?,
                taps: KERNEL,
                stride: 1,
                bias: weights.numbers(&format!("{name}.bias"), &[FEATURES])?,
                norm: Norm::load(weights, &format!("sincnet.norm1d.{index}"), FEATURES)?,
            })
        };
        Ok(Self {
            sound: Norm::load(weights, "sincnet.wav_norm1d", 1)?,
            filters: Layer {
                kernel: band_passes(weights)?,
                taps: TAPS,
                stride: STRIDE,
                bias: Vec::new(),
                norm: Norm::load(weights, "sincnet.norm1d.0", FILTERS)?,
            },
            convolutions: [convolution(1, FILTERS)?, convolution(2, FEATURES)?],
        })
    }

    /// A row of time for each feature.
    pub(super) fn forward(&self, samples: &[f32]) -> candle_core::Result<Tensor> {
        let mut sound = samples.to_vec();
        self.sound.apply(0, &mut sound);
        // How strong a band is, not where its wave is just now.
        let mut rows = self.filters.forward(&sound, samples.len(), f32::abs)?;
        for convolution in &self.convolutions {
            rows = convolution.forward(&rows, rows.len() / convolution.inputs()?, |value| value)?;
        }
        let length = rows.len() / FEATURES;
        Tensor::from_vec(rows, (FEATURES, length), &Device::Cpu)
    }
}

impl Layer {
    fn inputs(&self) -> candle_core::Result<usize> {
        Ok(self.kernel.dim(1)? / self.taps)
    }

    /// Convolution, pooling, normalisation, and what is left of the negative: of rows of this length.
    fn forward(&self, rows: &[f32], length: usize, rectify: fn(f32) -> f32) -> candle_core::Result<Vec<f32>> {
        let outputs = (length - self.taps) / self.stride + 1;
        let mut seen: Vec<f32> = Vec::with_capacity(self.kernel.dim(1)? * outputs);
        for row in rows.chunks_exact(length) {
            for tap in 0..self.taps {
                seen.extend(row[tap..].iter().step_by(self.stride).take(outputs));
            }
        }
        let seen = Tensor::from_vec(seen, (self.kernel.dim(1)?, outputs), &Device::Cpu)?;
        let output = self.kernel.matmul(&seen)?.flatten_all()?.to_vec1::<f32>()?;
        let pooled = outputs / POOL;
        let mut values = Vec::with_capacity(output.len() / POOL);
        for (channel, row) in output.chunks_exact(outputs).enumerate() {
            let bias = self.bias.get(channel).copied().unwrap_or(0.0);
            let loudest = |triple: &[f32]| triple.iter().map(|value| rectify(value + bias)).fold(f32::MIN, f32::max);
            values.extend(row.chunks_exact(POOL).map(loudest));
            let row = &mut values[channel * pooled..];
            self.norm.apply(channel, row);
            for value in row.iter_mut() {
                *value = value.max(*value * LEAK);
            }
        }
        Ok(values)
    }
}

impl Norm {
    fn load(weights: &Weights, name: &str, channels: usize) -> Result<Self, OptionsError> {
        Ok(Self {
            weight: weights.numbers(&format!("{name}.weight"), &[channels])?,
            bias: weights.numbers(&format!("{name}.bias"), &[channels])?,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "at most a window's samples")]
    #[expect(clippy::cast_possible_truncation, reason = "the sums need the precision, the result does not")]
    fn apply(&self, channel: usize, row: &mut [f32]) {
        let length = row.len() as f64;
        let mean = row.iter().map(|&value| f64::from(value)).sum::<f64>() / length;
        let variance = row.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / length;
        let scale = self.weight[channel] / (variance as f32 + EPSILON).sqrt();
        let (mean, bias) = (mean as f32, self.bias[channel]);
        for value in row.iter_mut() {
            *value = (*value - mean) * scale + bias;
        }
    }
}

/// The filters, made from the edges of their bands: a band-pass is the difference of two low-passes.
#[expect(clippy::cast_precision_loss, reason = "the sample rate")]
fn band_passes(weights: &Weights) -> Result<Tensor, OptionsError> {
    let name = |tensor: &str| format!("sincnet.conv1d.0.filterbank.{tensor}");
    let lows = weights.numbers(&name("low_hz_"), &[BANDS, 1])?;
    let widths = weights.numbers(&name("band_hz_"), &[BANDS, 1])?;
    // The left half of a window, and of the time in radians for each Hz.
    let window = weights.numbers(&name("window_"), &[HALF])?;
    let times = weights.numbers(&name("n_"), &[1, HALF])?;
    let mut even = Vec::with_capacity(FILTERS * TAPS);
    let mut odd = Vec::with_capacity(BANDS * TAPS);
    for (low, width) in lows.iter().zip(&widths) {
        let low = LEAST_HZ + low.abs();
        let high = (low + LEAST_HZ + width.abs()).clamp(LEAST_HZ, SAMPLE_RATE as f32 / 2.0);
        // What they are divided by, so that every band's loudest frequency comes out as loud.
        let gain = 2.0 * (high - low);
        let taps = || {
            times.iter().zip(&window).map(move |(time, window)| (low * time, high * time, window * 2.0 / time / gain))
        };
        let left: Vec<f32> = taps().map(|(low, high, window)| (high.sin() - low.sin()) * window).collect();
        even.extend(&left);
        even.push(1.0);
        even.extend(left.iter().rev());
        let left: Vec<f32> = taps().map(|(low, high, window)| (low.cos() - high.cos()) * window).collect();
        odd.extend(&left);
        odd.push(0.0);
        odd.extend(left.iter().rev().map(|tap| -tap));
    }
    even.extend(odd);
    Tensor::from_vec(even, (FILTERS, TAPS), &Device::Cpu).map_err(|error| weights.wrong(&name("low_hz_"), error))
}
