//! The larger part of CAM++: blocks of convolutions over time, each of which sees what all before it have made.

use candle_core::{Device, Tensor};
use jm_mq_core::OptionsError;

use crate::embedded::diarization::weights::{Affine, Weights};

/// Rows that a layer adds.
const GROWTH: usize = 32;
/// Rows that a layer looks at, made of all that there are.
const NARROW: usize = 4 * GROWTH;
/// Rows in which what is round a frame is summed up.
const CONTEXT: usize = NARROW / 2;
/// Frames that a layer's convolution looks at.
const KERNEL: usize = 3;
/// Frames, two seconds, that are one context.
const STRETCH: usize = 100;

/// Layers, and what halves their rows at the end.
pub(super) struct Block {
    layers: Vec<Layer>,
    norm: Affine,
    halve: Tensor,
}

/// Makes [`GROWTH`] new rows.
struct Layer {
    norm: Affine,
    narrow: Tensor,
    narrow_shift: Vec<f32>,
    local: Tensor,
    dilation: usize,
    context: [(Tensor, Tensor); 2],
}

impl Block {
    pub(super) fn load(
        weights: &Weights,
        index: usize,
        channels: usize,
        layers: usize,
        dilation: usize,
    ) -> Result<Self, OptionsError> {
        let layer = |layer| {
            let name = format!("xvector.block{index}.tdnnd{}", layer + 1);
            Layer::load(weights, &name, channels + layer * GROWTH, dilation)
        };
        let channels = channels + layers * GROWTH;
        let transit = format!("xvector.transit{index}");
        Ok(Self {
            layers: (0..layers).map(layer).collect::<Result<_, _>>()?,
            norm: weights.batch_norm(&format!("{transit}.nonlinear.batchnorm"), channels)?,
            halve: weights.matrix(&format!("{transit}.linear.weight"), &[channels / 2, channels, 1])?,
        })
    }

    /// Rows that come out.
    pub(super) fn outputs(&self) -> usize {
        self.norm.scale.len() / 2
    }

    pub(super) fn forward(&self, mut rows: Vec<f32>, length: usize) -> candle_core::Result<Vec<f32>> {
        for layer in &self.layers {
            let new = layer.forward(&rows, length)?;
            rows.extend(new);
        }
        self.norm.rectify(&mut rows, length);
        self.halve.matmul(&matrix(rows, length)?)?.flatten_all()?.to_vec1()
    }
}

impl Layer {
    fn load(weights: &Weights, name: &str, channels: usize, dilation: usize) -> Result<Self, OptionsError> {
        let after = weights.batch_norm(&format!("{name}.nonlinear2.batchnorm"), NARROW)?;
        let narrow_name = format!("{name}.linear1.weight");
        let narrow = weights.normalised(&narrow_name, &[NARROW, channels, 1], &after)?;
        let narrow = Tensor::from_vec(narrow, (NARROW, channels), &Device::Cpu);
        let context = |part: &str, outputs, inputs| {
            let name = format!("{name}.cam_layer.{part}");
            let bias = format!("{name}.bias");
            let column = weights.tensor(&bias, &[outputs])?.reshape((outputs, 1));
            let column = column.map_err(|error| weights.wrong(&bias, error))?;
            Ok((weights.matrix(&format!("{name}.weight"), &[outputs, inputs, 1])?, column))
        };
        Ok(Self {
            norm: weights.batch_norm(&format!("{name}.nonlinear1.batchnorm"), channels)?,
            narrow: narrow.map_err(|error| weights.wrong(&narrow_name, error))?,
            narrow_shift: after.shift,
            local: weights.tensor(&format!("{name}.cam_layer.linear_local.weight"), &[GROWTH, NARROW, KERNEL])?,
            dilation,
            context: [context("linear1", CONTEXT, NARROW)?, context("linear2", GROWTH, CONTEXT)?],
        })
    }

    fn forward(&self, rows: &[f32], length: usize) -> candle_core::Result<Vec<f32>> {
        let mut seen = rows.to_vec();
        self.norm.rectify(&mut seen, length);
        let mut narrow = self.narrow.matmul(&matrix(seen, length)?)?.flatten_all()?.to_vec1::<f32>()?;
        for (row, shift) in narrow.chunks_exact_mut(length).zip(&self.narrow_shift) {
            for value in row.iter_mut() {
                *value = (*value + shift).max(0.0);
            }
        }
        let weights = self.weights(&narrow, length)?;
        let narrow = Tensor::from_vec(narrow, (1, NARROW, length), &Device::Cpu)?;
        let local = narrow.conv1d(&self.local, self.dilation, 1, self.dilation, 1)?;
        let mut local = local.flatten_all()?.to_vec1::<f32>()?;
        for (row, weights) in local.chunks_exact_mut(length).zip(&weights) {
            for (stretch, weight) in row.chunks_mut(STRETCH).zip(weights) {
                for value in stretch.iter_mut() {
                    *value *= weight;
                }
            }
        }
        Ok(local)
    }

    /// How much of each new row counts, for each stretch: from what the rows are on average in it, and in all.
    fn weights(&self, rows: &[f32], length: usize) -> candle_core::Result<Vec<Vec<f32>>> {
        let mut context = Vec::with_capacity(NARROW * length.div_ceil(STRETCH));
        for row in rows.chunks_exact(length) {
            let all = mean(row);
            context.extend(row.chunks(STRETCH).map(|stretch| mean(stretch) + all));
        }
        let [(first, first_bias), (second, second_bias)] = &self.context;
        let context = matrix(context, length.div_ceil(STRETCH))?;
        let context = first.matmul(&context)?.broadcast_add(first_bias)?.relu()?;
        candle_nn::ops::sigmoid(&second.matmul(&context)?.broadcast_add(second_bias)?)?.to_vec2()
    }
}

fn matrix(rows: Vec<f32>, length: usize) -> candle_core::Result<Tensor> {
    let count = rows.len() / length;
    Tensor::from_vec(rows, (count, length), &Device::Cpu)
}

#[expect(clippy::cast_precision_loss, reason = "at most a window's frames")]
fn mean(row: &[f32]) -> f32 {
    row.iter().sum::<f32>() / row.len() as f32
}
