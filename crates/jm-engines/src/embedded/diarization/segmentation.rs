//! pyannote's segmentation 3.0: which of up to three voices are heard in each frame of ten seconds.
//!
//! It answers with a class for each set of voices, of two at most (Plaquet and Bredin, 2023): that two speak at once is
//! something it has learnt, and needs no threshold. Which voice is the first is of no meaning, and differs from one
//! window to the next.

use candle_core::Tensor;
use candle_nn::{Linear, Module, ops};
use jm_mq_core::OptionsError;

use super::{
    lstm::{self, Lstm},
    sincnet::{self, SincNet},
    weights::Weights,
};

/// Samples of a window: ten seconds, what the model was trained on.
pub(super) const WINDOW: usize = 160_000;
/// Frames of a window.
pub(super) const FRAMES: usize = 589;
/// Samples from one frame to the next.
pub(super) const FRAME_STEP: usize = 270;
/// The sample in the middle of what the first frame looks at.
pub(super) const FIRST_CENTRE: usize = 495;
/// Voices told apart in a window.
pub(super) const VOICES: usize = 3;

const LAYERS: usize = 4;
const HIDDEN: usize = 128;
/// For each class, the voices that are heard: a bit each.
const CLASSES: [Voices; 7] = [0b000, 0b001, 0b010, 0b100, 0b011, 0b101, 0b110];

/// The voices heard in a frame: a bit each.
pub(super) type Voices = u8;

pub(super) struct Segmentation {
    sincnet: SincNet,
    lstm: Vec<Lstm>,
    hidden: [Linear; 2],
    classes: Linear,
}

impl Segmentation {
    pub(super) fn load(weights: &Weights) -> Result<Self, OptionsError> {
        let inputs = |layer| if layer == 0 { sincnet::FEATURES } else { lstm::OUTPUTS };
        let linear = |name: &str, outputs, inputs| {
            let weight = weights.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
            Ok(Linear::new(weight, Some(weights.tensor(&format!("{name}.bias"), &[outputs])?)))
        };
        Ok(Self {
            sincnet: SincNet::load(weights)?,
            lstm: (0..LAYERS).map(|layer| Lstm::load(weights, layer, inputs(layer))).collect::<Result<_, _>>()?,
            hidden: [linear("linear.0", HIDDEN, lstm::OUTPUTS)?, linear("linear.1", HIDDEN, HIDDEN)?],
            classes: linear("classifier", CLASSES.len(), HIDDEN)?,
        })
    }

    /// The voices of each frame of a window, of which there are [`FRAMES`].
    pub(super) fn voices(&self, samples: &[f32]) -> candle_core::Result<Vec<Voices>> {
        let likeliest = self.scores(samples)?.argmax(1)?.to_vec1::<u32>()?;
        Ok(likeliest.into_iter().map(|class| CLASSES[class as usize]).collect())
    }

    /// A row of classes for each frame; the likelier one is, the higher.
    pub(super) fn scores(&self, samples: &[f32]) -> candle_core::Result<Tensor> {
        let mut frames = self.sincnet.forward(samples)?.t()?.contiguous()?;
        for layer in &self.lstm {
            frames = layer.forward(&frames)?;
        }
        for linear in &self.hidden {
            frames = ops::leaky_relu(&linear.forward(&frames)?, 0.01)?;
        }
        self.classes.forward(&frames)
    }
}
