//! Whisper's encoder: what is heard in 30 s becomes 1500 rows of features.

use candle_core::{Module, Tensor};
use candle_nn::{Conv1d, Conv1dConfig, LayerNorm};

use super::{
    ctranslate2::{FormatError, Weights},
    layers::{FeedForward, Linear, attention, heads, norm, query_scale},
    spectrogram::WINDOW_FRAMES,
};
use crate::{embedded::compute::Stop, error::EngineError};

/// Rows for 30 s: the second convolution takes every second frame.
pub(super) const ROWS: usize = WINDOW_FRAMES / 2;
/// Bands that Whisper's versions hear.
const BANDS: [usize; 2] = [80, 128];
/// Frames a convolution looks at.
const KERNEL: usize = 3;

/// The encoder's weights.
#[derive(Debug)]
pub(super) struct Encoder {
    convolutions: [Conv1d; 2],
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    pub(super) bands: usize,
    pub(super) width: usize,
}

#[derive(Debug)]
struct Block {
    norm: LayerNorm,
    /// Queries, keys and values, one beside the other.
    inputs: Linear,
    output: Linear,
    feed_forward: FeedForward,
    heads: usize,
}

impl Encoder {
    pub(super) fn load(weights: &mut Weights) -> Result<Self, FormatError> {
        let first = weights.take("encoder/conv1/weight", &[0, 0, KERNEL])?;
        let (width, bands, _) = first.dims3()?;
        if !BANDS.contains(&bands) {
            let name = "encoder/conv1/weight".into();
            return Err(FormatError::Shape {
                name,
                found: first.dims().to_vec(),
                wanted: vec![width, BANDS[0], KERNEL],
            });
        }
        let heads = head_count(weights, "encoder/num_heads", width)?;
        let second = weights.take("encoder/conv2/weight", &[width, width, KERNEL])?;
        let biases = [weights.take("encoder/conv1/bias", &[width])?, weights.take("encoder/conv2/bias", &[width])?];
        let [first_bias, second_bias] = biases;
        let config = |stride| Conv1dConfig { padding: 1, stride, ..Conv1dConfig::default() };
        let mut blocks = Vec::new();
        while weights.has(&format!("encoder/layer_{}/ffn/linear_0/weight", blocks.len())) {
            let name = format!("encoder/layer_{}", blocks.len());
            blocks.push(Block::load(weights, &name, width, heads)?);
        }
        Ok(Self {
            convolutions: [
                Conv1d::new(first, Some(first_bias), config(1)),
                Conv1d::new(second, Some(second_bias), config(2)),
            ],
            positions: weights.take("encoder/position_encodings/encodings", &[ROWS, width])?,
            blocks,
            norm: norm(weights, "encoder/layer_norm", width)?,
            bands,
            width,
        })
    }

    /// From bands × frames to rows × features.
    pub(super) fn forward(&self, spectrogram: &Tensor, stop: &Stop) -> Result<Tensor, EngineError> {
        let mut features = spectrogram.unsqueeze(0)?;
        for convolution in &self.convolutions {
            features = convolution.forward(&features)?.gelu_erf()?;
            stop.check()?;
        }
        let mut features = (features.squeeze(0)?.t()?.contiguous()? + &self.positions)?;
        for block in &self.blocks {
            features = block.forward(&features)?;
            stop.check()?;
        }
        Ok(self.norm.forward(&features)?)
    }
}

impl Block {
    fn load(weights: &mut Weights, name: &str, width: usize, heads: usize) -> Result<Self, FormatError> {
        let attention = format!("{name}/self_attention");
        Ok(Self {
            norm: norm(weights, &format!("{attention}/layer_norm"), width)?,
            inputs: Linear::load(weights, &format!("{attention}/linear_0"), width, 3 * width)?,
            output: Linear::load(weights, &format!("{attention}/linear_1"), width, width)?,
            feed_forward: FeedForward::load(weights, &format!("{name}/ffn"), width)?,
            heads,
        })
    }

    fn forward(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        let width = input.dim(1)?;
        let inputs = self.inputs.forward(&self.norm.forward(input)?)?;
        let queries = (heads(&inputs, 0, 3, self.heads)? * query_scale(width, self.heads))?;
        let [keys, values] = [heads(&inputs, 1, 3, self.heads)?, heads(&inputs, 2, 3, self.heads)?];
        // One head after the other: the fits of all at once are 72 MB, which no cache holds.
        let mixed = (0..self.heads)
            .map(|head| attention(&queries.get(head)?, &keys.get(head)?, &values.get(head)?, None))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let attended = (input + self.output.forward(&Tensor::cat(&mixed, 1)?)?)?;
        self.feed_forward.forward(&attended)
    }
}

/// How many heads the file names, if the width can be shared among them.
pub(super) fn head_count(weights: &Weights, name: &str, width: usize) -> Result<usize, FormatError> {
    let found = weights.setting(name)?;
    let heads = usize::try_from(found).ok().filter(|&heads| heads > 0 && width.is_multiple_of(heads));
    heads.ok_or_else(|| FormatError::Setting { name: name.into(), found, wanted: "a part of the model's width" })
}
