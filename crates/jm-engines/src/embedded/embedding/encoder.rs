//! The network: layers of attention, in which every token of a text looks at all of its tokens.
//!
//! A batch's sequences are filled up to the length of its longest. What they are filled up with is computed along, but
//! no token looks at it, and no mean contains it.

use std::io::{self, BufRead, Seek};

use candle_core::{Device, Module, Result, Tensor, quantized::QTensor};
use candle_nn::{LayerNorm, Linear, ops::softmax_last_dim};

use super::file::ModelFile;
use crate::{embedded::compute::Stop, error::EngineError};

/// The network with its weights.
///
/// The words' vectors, most of the file, stay in 4 bits, and are looked up. The matrices become plain numbers, 85 MB of
/// them: candle multiplies those four times as fast, on threads that do not spin while they wait for each other.
pub(super) struct Encoder {
    words: QTensor,
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    attention: Attention,
    attention_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    norm: LayerNorm,
}

struct Attention {
    heads: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl Encoder {
    pub(super) fn read<R: BufRead + Seek>(file: &mut ModelFile<R>) -> io::Result<Self> {
        let sizes = file.sizes;
        let positions = file.floats("emb.pos", &[sizes.positions, sizes.hidden])?;
        let kind = file.first_kind("emb.type")?;
        Ok(Self {
            words: file.matrix("emb.word", sizes.vocabulary, sizes.hidden)?,
            positions: positions.broadcast_add(&kind).map_err(io::Error::other)?,
            norm: norm(file, "emb.ln")?,
            layers: (0..sizes.layers).map(|number| Layer::read(file, number)).collect::<io::Result<_>>()?,
        })
    }

    /// The mean of the vectors that each sequence's tokens end as. Quickest with sequences of about the same length.
    pub(super) fn means(&self, sequences: &[&[u32]], stop: &Stop) -> std::result::Result<Vec<Vec<f32>>, EngineError> {
        let longest = sequences.iter().map(|sequence| sequence.len()).max().unwrap_or_default();
        let mut tokens = self.embed(sequences, longest)?;
        let mask = mask(sequences, longest)?;
        for layer in &self.layers {
            stop.check()?;
            tokens = layer.forward(&tokens, &mask)?;
        }
        let mean =
            |(index, sequence): (usize, &&[u32])| tokens.get(index)?.narrow(0, 0, sequence.len())?.mean(0)?.to_vec1();
        Ok(sequences.iter().enumerate().map(mean).collect::<Result<_>>()?)
    }

    fn embed(&self, sequences: &[&[u32]], longest: usize) -> Result<Tensor> {
        let mut tokens = Vec::with_capacity(sequences.len() * longest);
        for (sequence, ends) in sequences.iter().zip((longest..).step_by(longest)) {
            tokens.extend_from_slice(sequence);
            // Any token does.
            tokens.resize(ends, 0);
        }
        let tokens = Tensor::from_vec(tokens, (sequences.len(), longest), &Device::Cpu)?;
        self.norm.forward(&self.words.embedding(&tokens)?.broadcast_add(&self.positions.narrow(0, 0, longest)?)?)
    }
}

/// What is added to a token's interest in others: nothing, or for those beyond its sequence's end, minus infinity.
fn mask(sequences: &[&[u32]], longest: usize) -> Result<Tensor> {
    let mut mask = Vec::with_capacity(sequences.len() * longest);
    for (sequence, ends) in sequences.iter().zip((longest..).step_by(longest)) {
        mask.resize(mask.len() + sequence.len(), 0.0);
        mask.resize(ends, f32::NEG_INFINITY);
    }
    Tensor::from_vec(mask, (sequences.len(), 1, 1, longest), &Device::Cpu)
}

impl Layer {
    fn read<R: BufRead + Seek>(file: &mut ModelFile<R>, number: usize) -> io::Result<Self> {
        let sizes = file.sizes;
        let name = |part: &str| format!("l{number}.{part}");
        let square = |file: &mut _, part| linear(file, &name(part), sizes.hidden, sizes.hidden);
        Ok(Self {
            attention: Attention {
                heads: sizes.heads,
                query: square(file, "q")?,
                key: square(file, "k")?,
                value: square(file, "v")?,
                output: square(file, "ao")?,
            },
            attention_norm: norm(file, &name("aln"))?,
            widen: linear(file, &name("fi"), sizes.wide, sizes.hidden)?,
            narrow: linear(file, &name("fo"), sizes.hidden, sizes.wide)?,
            norm: norm(file, &name("oln"))?,
        })
    }

    fn forward(&self, tokens: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let attended = self.attention_norm.forward(&(tokens + self.attention.forward(tokens, mask)?)?)?;
        let wide = self.widen.forward(&attended)?.gelu_erf()?;
        self.norm.forward(&(attended + self.narrow.forward(&wide)?)?)
    }
}

impl Attention {
    fn forward(&self, tokens: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (sequences, longest, hidden) = tokens.dims3()?;
        let size = hidden / self.heads;
        // sequence, head, token, number
        let heads = |part: &Linear| {
            let all = part.forward(tokens)?.reshape((sequences, longest, self.heads, size))?;
            all.transpose(1, 2)?.contiguous()
        };
        #[expect(clippy::cast_precision_loss, reason = "a head has tens of numbers")]
        let scale = (size as f64).sqrt().recip();
        let interest = (heads(&self.query)?.matmul(&heads(&self.key)?.t()?)? * scale)?;
        let shares = softmax_last_dim(&interest.broadcast_add(mask)?)?;
        self.output.forward(&shares.matmul(&heads(&self.value)?)?.transpose(1, 2)?.flatten_from(2)?)
    }
}

fn linear<R: BufRead + Seek>(file: &mut ModelFile<R>, name: &str, rows: usize, columns: usize) -> io::Result<Linear> {
    let weights = file.matrix(&format!("{name}.w"), rows, columns)?;
    let weights = weights.dequantize(&Device::Cpu).map_err(io::Error::other)?;
    Ok(Linear::new(weights, Some(file.floats(&format!("{name}.b"), &[rows])?)))
}

fn norm<R: BufRead + Seek>(file: &mut ModelFile<R>, name: &str) -> io::Result<LayerNorm> {
    let size = file.sizes.hidden;
    let weights = file.floats(&format!("{name}.w"), &[size])?;
    Ok(LayerNorm::new(weights, file.floats(&format!("{name}.b"), &[size])?, file.sizes.epsilon.into()))
}
