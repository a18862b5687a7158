//! CAM++: from a stretch of speech to the voice it is said with, as 192 numbers (Wang et al., 2023).
//!
//! The nearer two of them are, by the cosine of the angle between them, the likelier is it one person.

mod block;
mod head;

use candle_core::{Device, Tensor};
use jm_mq_core::OptionsError;

use self::{block::Block, head::Head};
use super::{
    fbank::BANDS,
    weights::{Affine, Weights},
};

/// Numbers of a voice.
pub(super) const NUMBERS: usize = 192;

/// Channels after the first convolution over time.
const CHANNELS: usize = 128;
/// Frames that it looks at.
const KERNEL: usize = 5;
/// The dense blocks: layers, and how many frames the taps of their convolutions are apart.
const BLOCKS: [(usize, usize); 3] = [(12, 1), (24, 2), (16, 2)];

pub(super) struct VoiceModel {
    head: Head,
    kernel: Tensor,
    shift: Vec<f32>,
    blocks: Vec<Block>,
    last: Affine,
    dense: Tensor,
    norm: Affine,
}

impl VoiceModel {
    pub(super) fn load(weights: &Weights) -> Result<Self, OptionsError> {
        let norm = weights.batch_norm("xvector.tdnn.nonlinear.batchnorm", CHANNELS)?;
        let name = "xvector.tdnn.linear.weight";
        let shape = [CHANNELS, head::OUTPUTS, KERNEL];
        let kernel = Tensor::from_vec(weights.normalised(name, &shape, &norm)?, &shape, &Device::Cpu);
        let kernel = kernel.map_err(|error| weights.wrong(name, error))?;
        let mut channels = CHANNELS;
        let mut blocks = Vec::with_capacity(BLOCKS.len());
        for (index, (layers, dilation)) in BLOCKS.into_iter().enumerate() {
            let block = Block::load(weights, index + 1, channels, layers, dilation)?;
            channels = block.outputs();
            blocks.push(block);
        }
        Ok(Self {
            head: Head::load(weights)?,
            kernel,
            shift: norm.shift,
            blocks,
            last: weights.batch_norm("xvector.out_nonlinear.batchnorm", channels)?,
            dense: weights.matrix("xvector.dense.linear.weight", &[NUMBERS, 2 * channels, 1])?,
            norm: weights.plain_batch_norm("xvector.dense.nonlinear.batchnorm", NUMBERS)?,
        })
    }

    /// The voice of some frames, three at least, as a vector of length 1.
    pub(super) fn of(&self, frames: &[[f32; BANDS]]) -> candle_core::Result<Vec<f32>> {
        let (rows, length) = self.head.forward(&by_band(frames), frames.len())?;
        let rows = Tensor::from_vec(rows, (1, head::OUTPUTS, length), &Device::Cpu)?;
        let rows = rows.conv1d(&self.kernel, KERNEL / 2, 2, 1, 1)?;
        let length = rows.dim(2)?;
        let mut rows = rows.flatten_all()?.to_vec1::<f32>()?;
        for (row, shift) in rows.chunks_exact_mut(length).zip(&self.shift) {
            for value in row.iter_mut() {
                *value = (*value + shift).max(0.0);
            }
        }
        for block in &self.blocks {
            rows = block.forward(rows, length)?;
        }
        self.last.rectify(&mut rows, length);
        let summary = summary(&rows, length);
        let summary = Tensor::from_vec(summary, (2 * rows.len() / length, 1), &Device::Cpu)?;
        let mut voice = self.dense.matmul(&summary)?.flatten_all()?.to_vec1::<f32>()?;
        for (number, (scale, shift)) in voice.iter_mut().zip(self.norm.scale.iter().zip(&self.norm.shift)) {
            *number = *number * scale + shift;
        }
        normalise(&mut voice);
        Ok(voice)
    }
}

/// A row of time for each band, without the band's mean: what the microphone and the line do to all of a recording
/// is gone with it.
#[expect(clippy::cast_precision_loss, reason = "at most a window's frames")]
fn by_band(frames: &[[f32; BANDS]]) -> Vec<f32> {
    let mut rows = Vec::with_capacity(frames.len() * BANDS);
    for band in 0..BANDS {
        let mean = frames.iter().map(|frame| frame[band]).sum::<f32>() / frames.len() as f32;
        rows.extend(frames.iter().map(|frame| frame[band] - mean));
    }
    rows
}

/// Each row's mean, and then each row's standard deviation.
#[expect(clippy::cast_precision_loss, reason = "at most a window's frames")]
fn summary(rows: &[f32], length: usize) -> Vec<f32> {
    let mean = |row: &[f32]| row.iter().sum::<f32>() / length as f32;
    let deviation = |row: &[f32]| {
        let mean = mean(row);
        let squares: f32 = row.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / (length - 1) as f32).sqrt()
    };
    let rows = || rows.chunks_exact(length);
    rows().map(mean).chain(rows().map(deviation)).collect()
}

/// Makes a vector's length 1. One without any direction is left as it is.
pub(super) fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if length > 0.0 {
        for number in vector.iter_mut() {
            *number /= length;
        }
    }
}
