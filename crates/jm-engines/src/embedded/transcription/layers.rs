//! The parts that encoder and decoder are made of. Rows are moments or tokens, columns are features: one recording at
//! a time, so that there is no dimension for a batch.

use candle_core::{D, Tensor};
use candle_nn::{LayerNorm, Module, ops::softmax_last_dim};

use super::ctranslate2::{FormatError, Weights};

/// Keeps a division from being one by zero.
const NORM_EPSILON: f64 = 1e-5;

/// A matrix and what is added to its product.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub(super) fn load(weights: &mut Weights, name: &str, inputs: usize, outputs: usize) -> Result<Self, FormatError> {
        // In the file as outputs × inputs, and left like that: a product with one row then reads memory in its order.
        let weight = weights.take(&format!("{name}/weight"), &[outputs, inputs])?.t()?;
        Ok(Self { weight, bias: weights.take(&format!("{name}/bias"), &[outputs])? })
    }
}

impl Module for Linear {
    fn forward(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        input.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

pub(super) fn norm(weights: &mut Weights, name: &str, width: usize) -> Result<LayerNorm, FormatError> {
    let scale = weights.take(&format!("{name}/gamma"), &[width])?;
    let shift = weights.take(&format!("{name}/beta"), &[width])?;
    Ok(LayerNorm::new(scale, shift, NORM_EPSILON))
}

/// The two layers that look at each row for itself, with their norm.
#[derive(Debug)]
pub(super) struct FeedForward {
    norm: LayerNorm,
    wide: Linear,
    narrow: Linear,
}

impl FeedForward {
    pub(super) fn load(weights: &mut Weights, name: &str, width: usize) -> Result<Self, FormatError> {
        // Four times as wide as the rest in every Whisper.
        let inner = 4 * width;
        Ok(Self {
            norm: norm(weights, &format!("{name}/layer_norm"), width)?,
            wide: Linear::load(weights, &format!("{name}/linear_0"), width, inner)?,
            narrow: Linear::load(weights, &format!("{name}/linear_1"), inner, width)?,
        })
    }
}

impl Module for FeedForward {
    fn forward(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        let wide = self.wide.forward(&self.norm.forward(input)?)?;
        input + self.narrow.forward(&wide.gelu_erf()?)?
    }
}

/// Columns of `input` as one of its equal parts, a matrix for each head: heads × rows × features. Copies nothing.
pub(super) fn heads(input: &Tensor, part: usize, parts: usize, heads: usize) -> candle_core::Result<Tensor> {
    let (rows, columns) = input.dims2()?;
    let width = columns / parts;
    input.narrow(1, part * width, width)?.reshape((rows, heads, width / heads))?.transpose(0, 1)
}

/// The values, mixed by how well their keys fit the queries; `mask` is added to the fits.
pub(super) fn attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let mut fits = queries.matmul(&keys.transpose(D::Minus1, D::Minus2)?)?;
    if let Some(mask) = mask {
        fits = fits.broadcast_add(mask)?;
    }
    softmax_last_dim(&fits)?.matmul(values)
}

/// What queries are multiplied by, so that fits do not grow with the number of features.
#[expect(clippy::cast_precision_loss, reason = "a head has 64 features")]
pub(super) fn query_scale(width: usize, heads: usize) -> f64 {
    1.0 / ((width / heads) as f64).sqrt()
}
