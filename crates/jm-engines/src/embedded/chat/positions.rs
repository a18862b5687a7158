//! Where a token is in its text, as the network is told.

use candle_core::{Device, Tensor};
use candle_nn::rotary_emb::{rope, rope_i};
use jm_mq_core::OptionsError;

use super::gguf::Gguf;

/// How a token's position is told: by turning pairs of numbers, each at a speed of its own.
pub(crate) struct Positions {
    speeds: Vec<f32>,
    /// Whether pairs are neighbours (llama) or half a head apart (qwen).
    neighbours: bool,
}

impl Positions {
    pub(crate) fn read(gguf: &mut Gguf<'_>, architecture: &str, head_width: usize) -> Result<Self, OptionsError> {
        let scaling = gguf.text(&format!("{architecture}.rope.scaling.type"))?;
        if let Some(scaling) = scaling.filter(|&scaling| scaling != "none") {
            return Err(gguf.unusable(format_args!("its positions are scaled ({scaling}), which is not computed")));
        }
        let base = gguf.number(&format!("{architecture}.rope.freq_base"))?.unwrap_or(10_000.0);
        #[expect(clippy::cast_precision_loss, reason = "a head is some hundred numbers wide")]
        let speed = |pair: usize| base.powf(-((2 * pair) as f32) / head_width as f32);
        let mut speeds: Vec<f32> = (0..head_width / 2).map(speed).collect();
        // Newer llamas slow some pairs down, to read longer texts than they were first trained with.
        if gguf.has("rope_freqs.weight") {
            let slower = gguf.tensor("rope_freqs.weight", &[speeds.len()])?.to_vec1::<f32>();
            let slower = slower.map_err(|error| gguf.unusable(error))?;
            if slower.iter().any(|&slower| slower <= 0.0) {
                return Err(gguf.unusable(format_args!("its rope_freqs.weight has a number that is not above 0")));
            }
            speeds.iter_mut().zip(slower).for_each(|(speed, slower)| *speed /= slower);
        }
        Ok(Self { speeds, neighbours: architecture == "llama" })
    }

    /// Turns for so many tokens from a position on.
    pub(crate) fn turn(&self, first: usize, count: usize) -> candle_core::Result<Turn> {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 16 million, which is the longest context")]
        let angles =
            (first..first + count).flat_map(|position| self.speeds.iter().map(move |speed| position as f32 * speed));
        let angles = Tensor::from_iter(angles, &Device::Cpu)?.reshape((count, self.speeds.len()))?;
        Ok(Turn { cos: angles.cos()?, sin: angles.sin()?, neighbours: self.neighbours })
    }
}

/// Turns for some tokens.
pub(crate) struct Turn {
    cos: Tensor,
    sin: Tensor,
    neighbours: bool,
}

impl Turn {
    /// Of `[heads, tokens, head width]`.
    pub(crate) fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = x.unsqueeze(0)?;
        let turned = if self.neighbours { rope_i(&x, &self.cos, &self.sin) } else { rope(&x, &self.cos, &self.sin) };
        turned?.squeeze(0)
    }
}
