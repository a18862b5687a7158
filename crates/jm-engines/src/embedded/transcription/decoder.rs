//! Whisper's decoder: which token comes next, given what was heard and what is written so far.
//!
//! Keys and values of what is written are kept, so that each token costs the same, and so are those of what was heard.

use candle_core::{Device, Module, Tensor};
use candle_nn::LayerNorm;

use super::{
    ctranslate2::{FormatError, Weights},
    encoder::head_count,
    layers::{FeedForward, Linear, attention, heads, norm, query_scale},
};

/// `CTranslate2`'s number for the exact GELU, the activation of every Whisper.
const GELU: i64 = 3;
/// Tokens that one window can have, what Whisper is told before included: the same in all its versions.
pub(super) const MAX_TOKENS: usize = 448;

/// The decoder's weights.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Tokens × features; multiplied by features, it also says which token is meant.
    embedding: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    heads: usize,
    width: usize,
}

#[derive(Debug)]
struct Block {
    norm: LayerNorm,
    /// Queries, keys and values, one beside the other.
    inputs: Linear,
    output: Linear,
    heard_norm: LayerNorm,
    heard_queries: Linear,
    /// Keys and values, one beside the other.
    heard_inputs: Linear,
    heard_output: Linear,
    feed_forward: FeedForward,
}

/// What is known of one window: what was heard, and what is written so far.
#[derive(Debug)]
pub(super) struct Context<'a> {
    decoder: &'a Decoder,
    memories: Vec<Memory>,
    length: usize,
}

/// One block's keys and values.
#[derive(Debug)]
struct Memory {
    /// Heads × room for all tokens × features, filled up to the context's length.
    written: [Tensor; 2],
    /// Heads × rows × features.
    heard: [Tensor; 2],
}

impl Decoder {
    /// For an encoder of this width.
    pub(super) fn load(weights: &mut Weights, width: usize) -> Result<Self, FormatError> {
        for (name, value, wanted) in [("decoder/activation", GELU, "3, GELU"), ("decoder/pre_norm", 1, "1")] {
            let found = weights.setting(name)?;
            if found != value {
                return Err(FormatError::Setting { name: name.into(), found, wanted });
            }
        }
        let heads = head_count(weights, "decoder/num_heads", width)?;
        let mut blocks = Vec::new();
        while weights.has(&format!("decoder/layer_{}/ffn/linear_0/weight", blocks.len())) {
            let name = format!("decoder/layer_{}", blocks.len());
            blocks.push(Block::load(weights, &name, width)?);
        }
        Ok(Self {
            embedding: weights.take("decoder/embeddings/weight", &[0, width])?,
            positions: weights.take("decoder/position_encodings/encodings", &[MAX_TOKENS, width])?,
            blocks,
            norm: norm(weights, "decoder/layer_norm", width)?,
            heads,
            width,
        })
    }

    /// How many tokens there are.
    pub(super) fn vocabulary_size(&self) -> usize {
        self.embedding.dims()[0]
    }

    /// A context in which nothing is written yet, with what the encoder heard.
    pub(super) fn listen(&self, heard: &Tensor) -> candle_core::Result<Context<'_>> {
        let room = (self.heads, MAX_TOKENS, self.width / self.heads);
        let empty = || Tensor::zeros(room, heard.dtype(), &Device::Cpu);
        let memory = |block: &Block| {
            let inputs = block.heard_inputs.forward(heard)?;
            let of_heads = |part| heads(&inputs, part, 2, self.heads)?.contiguous();
            Ok(Memory { written: [empty()?, empty()?], heard: [of_heads(0)?, of_heads(1)?] })
        };
        let memories = self.blocks.iter().map(memory).collect::<candle_core::Result<_>>()?;
        Ok(Context { decoder: self, memories, length: 0 })
    }
}

impl Context<'_> {
    /// Forgets all but the first tokens.
    pub(super) fn forget_from(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Writes tokens; tells the features after each of them, as tokens × features.
    pub(super) fn write(&mut self, tokens: &[u32]) -> candle_core::Result<Tensor> {
        let decoder = self.decoder;
        let places = decoder.positions.narrow(0, self.length, tokens.len())?;
        let tokens = Tensor::new(tokens, &Device::Cpu)?;
        let mut features = (decoder.embedding.index_select(&tokens, 0)? + places)?;
        let mask = self.mask(tokens.elem_count())?;
        for (block, memory) in decoder.blocks.iter().zip(&self.memories) {
            features = block.forward(&features, memory, self.length, mask.as_ref(), decoder.heads)?;
        }
        self.length += tokens.elem_count();
        decoder.norm.forward(&features)
    }

    /// How likely each token is to come after these features: one number for each, of which only differences count.
    pub(super) fn logits(&self, features: &Tensor, row: usize) -> candle_core::Result<Vec<f32>> {
        features.narrow(0, row, 1)?.matmul(&self.decoder.embedding.t()?)?.squeeze(0)?.to_vec1()
    }

    /// Hides what comes after each of several tokens; one token alone comes after all others.
    fn mask(&self, tokens: usize) -> candle_core::Result<Option<Tensor>> {
        if tokens == 1 {
            return Ok(None);
        }
        let known = self.length;
        let hidden = (0..tokens).flat_map(|row| {
            (0..known + tokens).map(move |column| if column > known + row { f32::NEG_INFINITY } else { 0.0 })
        });
        Tensor::from_vec(hidden.collect(), (tokens, known + tokens), &Device::Cpu).map(Some)
    }
}

impl Block {
    fn load(weights: &mut Weights, name: &str, width: usize) -> Result<Self, FormatError> {
        let (written, heard) = (format!("{name}/self_attention"), format!("{name}/attention"));
        Ok(Self {
            norm: norm(weights, &format!("{written}/layer_norm"), width)?,
            inputs: Linear::load(weights, &format!("{written}/linear_0"), width, 3 * width)?,
            output: Linear::load(weights, &format!("{written}/linear_1"), width, width)?,
            heard_norm: norm(weights, &format!("{heard}/layer_norm"), width)?,
            heard_queries: Linear::load(weights, &format!("{heard}/linear_0"), width, width)?,
            heard_inputs: Linear::load(weights, &format!("{heard}/linear_1"), width, 2 * width)?,
            heard_output: Linear::load(weights, &format!("{heard}/linear_2"), width, width)?,
            feed_forward: FeedForward::load(weights, &format!("{name}/ffn"), width)?,
        })
    }

    fn forward(
        &self,
        input: &Tensor,
        memory: &Memory,
        known: usize,
        mask: Option<&Tensor>,
        count: usize,
    ) -> candle_core::Result<Tensor> {
        let (rows, width) = input.dims2()?;
        let scale = query_scale(width, count);
        let joined = |mixed: Tensor| mixed.transpose(0, 1)?.reshape((rows, width));

        let inputs = self.inputs.forward(&self.norm.forward(input)?)?;
        let queries = (heads(&inputs, 0, 3, count)? * scale)?;
        for (part, written) in memory.written.iter().enumerate() {
            written.slice_set(&heads(&inputs, part + 1, 3, count)?.contiguous()?, 1, known)?;
        }
        let [keys, values] = &memory.written;
        let (keys, values) = (keys.narrow(1, 0, known + rows)?, values.narrow(1, 0, known + rows)?);
        let features = (input + self.output.forward(&joined(attention(&queries, &keys, &values, mask)?)?)?)?;

        let queries = (self.heard_queries.forward(&self.heard_norm.forward(&features)?)? * scale)?;
        let [keys, values] = &memory.heard;
        let mixed = attention(&heads(&queries, 0, 1, count)?, keys, values, None)?;
        let features = (&features + self.heard_output.forward(&joined(mixed)?)?)?;
        self.feed_forward.forward(&features)
    }
}
