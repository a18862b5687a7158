//! The network that the llama, qwen2 and qwen3 families share.
//!
//! candle has one for each family, which are not used: llama's ends at 4096 tokens and does not know llama 3's positions,
//! qwen3's reckons positions in 16 bits, the others keep every mask they ever made and copy all they remember for each
//! token; each has its state inside, and uses candle's slow products (see [`Matrix`]). Here the weights are shared by
//! all calls, and a call has a [`Memory`].

use candle_core::{DType, Device, Tensor, quantized::QTensor};
use candle_nn::{
    kv_cache::KvCache,
    ops::{rms_norm, silu, softmax_last_dim},
};
use candle_transformers::utils::build_additive_causal_mask;
use jm_mq_core::OptionsError;

use super::{
    gguf::Gguf,
    matrix::Matrix,
    positions::{Positions, Turn},
};
use crate::{embedded::compute::Stop, error::EngineError};

/// The memory of a call grows by room for this many tokens.
const MEMORY_STEP: usize = 512;
/// No model known has more.
const MAX_LAYERS: usize = 512;
/// As large as the largest models' several times over, and small enough to be multiplied with each other.
const MAX_HEADS: usize = 1024;
const MAX_HEAD_WIDTH: usize = 4096;
/// No model known has more.
const MAX_CONTEXT: usize = 16_000_000;

/// The network's measures.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    width: usize,
    heads: usize,
    /// Heads that keys and values have; as many others share each of them.
    key_heads: usize,
    head_width: usize,
    layers: usize,
    epsilon: f32,
}

/// A network with its weights.
pub(crate) struct Transformer {
    shape: Shape,
    context: usize,
    positions: Positions,
    embedding: QTensor,
    layers: Vec<Layer>,
    norm: Tensor,
    output: Matrix,
}

/// What a call has read and written so far.
pub(crate) struct Memory {
    layers: Vec<KvCache>,
    tokens: usize,
}

struct Layer {
    attention_norm: Tensor,
    query: Projection,
    key: Projection,
    value: Projection,
    attention_output: Matrix,
    feed_norm: Tensor,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

/// A matrix with what some families have after it.
struct Projection {
    matrix: Matrix,
    bias: Option<Tensor>,
    norm: Option<Tensor>,
}

impl Transformer {
    /// The network of an architecture that is one of ours, for a vocabulary of so many tokens.
    pub(crate) fn load(gguf: &mut Gguf<'_>, architecture: &str, vocabulary: usize) -> Result<Self, OptionsError> {
        let shape = Shape::read(gguf, architecture)?;
        let context = gguf.count(&format!("{architecture}.context_length"))?;
        let context = gguf.needed("its context's length", context)?.min(MAX_CONTEXT);
        let positions = Positions::read(gguf, architecture, shape.head_width)?;
        let embedding = gguf.quantised("token_embd.weight", &[vocabulary, shape.width])?;
        // Some models use the same matrix for what goes in and what comes out.
        let output = if gguf.has("output.weight") { "output.weight" } else { "token_embd.weight" };
        let output = gguf.matrix(output, vocabulary, shape.width)?;
        let norm = gguf.tensor("output_norm.weight", &[shape.width])?;
        let layers = (0..shape.layers).map(|layer| Layer::load(gguf, layer, &shape)).collect::<Result<_, _>>()?;
        Ok(Self { shape, context, positions, embedding, layers, norm, output })
    }

    /// How many tokens it was made for.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    /// A memory without anything in it.
    pub(crate) fn memory(&self) -> Memory {
        Memory { layers: vec![KvCache::new(1, MEMORY_STEP); self.layers.len()], tokens: 0 }
    }

    /// Reads tokens, after those in the memory.
    pub(crate) fn read(&self, tokens: &[u32], memory: &mut Memory, stop: &Stop) -> Result<Hidden, EngineError> {
        let count = tokens.len();
        let turn = self.positions.turn(memory.tokens, count)?;
        let mask = (count > 1)
            .then(|| build_additive_causal_mask(count, memory.tokens, None, &Device::Cpu, DType::F32))
            .transpose()?;
        let mut x = self.embedding.embedding(&Tensor::new(tokens, &Device::Cpu)?)?;
        for (layer, cache) in self.layers.iter().zip(&mut memory.layers) {
            stop.check()?;
            let normed = rms_norm(&x, &layer.attention_norm, self.shape.epsilon)?;
            x = (x + self.attend(layer, &normed, cache, &turn, mask.as_ref())?)?;
            let normed = rms_norm(&x, &layer.feed_norm, self.shape.epsilon)?;
            x = (x + layer.feed_forward(&normed)?)?;
        }
        memory.tokens += count;
        Ok(Hidden(x.narrow(0, count - 1, 1)?))
    }

    /// How likely each token is to come next, as logits.
    pub(crate) fn logits(&self, last: &Hidden) -> candle_core::Result<Tensor> {
        let normed = rms_norm(&last.0.contiguous()?, &self.norm, self.shape.epsilon)?;
        self.output.forward(&normed)?.squeeze(0)
    }

    fn attend(
        &self,
        layer: &Layer,
        x: &Tensor,
        cache: &mut KvCache,
        turn: &Turn,
        mask: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        let Shape { heads, key_heads, head_width, epsilon, .. } = self.shape;
        let query = turn.apply(&layer.query.forward(x, heads, head_width, epsilon)?)?;
        let key = turn.apply(&layer.key.forward(x, key_heads, head_width, epsilon)?)?;
        let value = layer.value.forward(x, key_heads, head_width, epsilon)?;
        let (keys, values) = cache.append(&key, &value)?;
        // Those heads that share keys are computed as if they were more tokens of one head.
        let (count, all, sharing) = (x.dim(0)?, keys.dim(1)?, heads / key_heads);
        #[expect(clippy::cast_precision_loss, reason = "a head is some hundred numbers wide")]
        let query = (query.reshape((key_heads, sharing * count, head_width))? / (head_width as f64).sqrt())?;
        let mut scores = query.matmul(&keys.transpose(1, 2)?)?;
        if let Some(mask) = mask {
            let each = scores.reshape((key_heads, sharing, count, all))?;
            scores = each.broadcast_add(mask)?.reshape((key_heads, sharing * count, all))?;
        }
        let mixed = softmax_last_dim(&scores)?.matmul(&values)?;
        let mixed = mixed.reshape((heads, count, head_width))?.transpose(0, 1)?;
        layer.attention_output.forward(&mixed.reshape((count, heads * head_width))?)
    }
}

/// What the network has made of the last token it read.
pub(crate) struct Hidden(Tensor);

impl Shape {
    fn read(gguf: &Gguf<'_>, architecture: &str) -> Result<Self, OptionsError> {
        let count = |key: &str| gguf.count(&format!("{architecture}.{key}"));
        let needed = |key: &str| {
            gguf.needed(key, count(key)?).and_then(|count| match count {
                0 => Err(gguf.unusable(format_args!("its {key} is 0"))),
                count => Ok(count),
            })
        };
        let (width, heads, layers) =
            (needed("embedding_length")?, needed("attention.head_count")?, needed("block_count")?);
        let key_heads = count("attention.head_count_kv")?.unwrap_or(heads);
        let head_width = count("attention.key_length")?.unwrap_or(width / heads);
        let epsilon = gguf.number(&format!("{architecture}.attention.layer_norm_rms_epsilon"))?;
        let epsilon = gguf.needed("attention.layer_norm_rms_epsilon", epsilon)?;
        if heads > MAX_HEADS {
            return Err(gguf.unusable(format_args!("it has {heads} heads")));
        }
        if key_heads == 0 || !heads.is_multiple_of(key_heads) {
            return Err(gguf.unusable(format_args!("its {heads} heads cannot share {key_heads} for the keys")));
        }
        if head_width == 0 || !head_width.is_multiple_of(2) || head_width > MAX_HEAD_WIDTH {
            return Err(gguf.unusable(format_args!("its heads are {head_width} wide")));
        }
        if layers > MAX_LAYERS {
            return Err(gguf.unusable(format_args!("it has {layers} layers")));
        }
        for (key, plain) in
            [("attention.value_length", head_width), ("rope.dimension_count", head_width), ("expert_count", 0)]
        {
            if let Some(other) = count(key)?.filter(|&count| count != plain) {
                return Err(gguf.unusable(format_args!("its {key} is {other}; only {plain} is computed")));
            }
        }
        Ok(Self { width, heads, key_heads, head_width, layers, epsilon })
    }
}

impl Layer {
    fn load(gguf: &mut Gguf<'_>, layer: usize, shape: &Shape) -> Result<Self, OptionsError> {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let (width, heads) = (shape.width, shape.heads * shape.head_width);
        let inner = gguf.rows(&name("ffn_up"));
        let inner = gguf.needed("the feed forward network's width", inner)?;
        Ok(Self {
            attention_norm: gguf.tensor(&name("attn_norm"), &[width])?,
            query: Projection::load(gguf, layer, "q", shape.heads, shape)?,
            key: Projection::load(gguf, layer, "k", shape.key_heads, shape)?,
            value: Projection::load(gguf, layer, "v", shape.key_heads, shape)?,
            attention_output: gguf.matrix(&name("attn_output"), width, heads)?,
            feed_norm: gguf.tensor(&name("ffn_norm"), &[width])?,
            gate: gguf.matrix(&name("ffn_gate"), inner, width)?,
            up: gguf.matrix(&name("ffn_up"), inner, width)?,
            down: gguf.matrix(&name("ffn_down"), width, inner)?,
        })
    }

    fn feed_forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let opened = (silu(&self.gate.forward(x)?)? * self.up.forward(x)?)?;
        self.down.forward(&opened)
    }
}

impl Projection {
    fn load(gguf: &mut Gguf<'_>, layer: usize, part: &str, heads: usize, shape: &Shape) -> Result<Self, OptionsError> {
        let name = format!("blk.{layer}.attn_{part}");
        let rows = heads * shape.head_width;
        let mut optional =
            |name: String, length| if gguf.has(&name) { gguf.tensor(&name, &[length]).map(Some) } else { Ok(None) };
        let bias = optional(format!("{name}.bias"), rows)?;
        let norm = optional(format!("{name}_norm.weight"), shape.head_width)?;
        Ok(Self { matrix: gguf.matrix(&format!("{name}.weight"), rows, shape.width)?, bias, norm })
    }

    /// From `[tokens, width]` to `[heads, tokens, head width]`.
    fn forward(&self, x: &Tensor, heads: usize, head_width: usize, epsilon: f32) -> candle_core::Result<Tensor> {
        let mut projected = self.matrix.forward(x)?;
        if let Some(bias) = &self.bias {
            projected = projected.broadcast_add(bias)?;
        }
        let mut projected = projected.reshape(((), heads, head_width))?;
        if let Some(norm) = &self.norm {
            projected = rms_norm(&projected, norm, epsilon)?;
        }
        projected.transpose(0, 1)?.contiguous()
    }
}
