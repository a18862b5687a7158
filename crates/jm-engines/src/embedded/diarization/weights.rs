//! The tensors of a model's file, by name.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use candle_core::{DType, Tensor, pickle::PthTensors};
use jm_mq_core::OptionsError;

use crate::embedded::model::{is_finite, unusable};

/// What PyTorch adds to a variance before it divides by its root, in every normalisation of these models.
pub(super) const EPSILON: f32 = 1e-5;

/// A `.pt` file that has been opened. Each tensor is read when it is asked for.
pub(super) struct Weights {
    path: PathBuf,
    tensors: PthTensors,
}

/// A normalisation with the statistics of the training, as what is left of it: `x * scale + shift` for each channel.
pub(super) struct Affine {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

impl Weights {
    /// Opens a file; `key` is where in it the tensors are, if not at the top.
    pub(super) fn open(path: &Path, key: Option<&str>) -> Result<Self, OptionsError> {
        let tensors = PthTensors::new(path, key).map_err(|error| unusable(path, "a file of PyTorch tensors", error))?;
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// A tensor of 32-bit numbers that has to have this shape.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, OptionsError> {
        let wanted = || format!("tensor {name} of shape {shape:?}");
        let Some(info) = self.tensors.tensor_infos().get(name) else {
            return Err(unusable(&self.path, &wanted(), "there is none of that name"));
        };
        let found = info.layout.dims();
        if found != shape || info.dtype != DType::F32 {
            return Err(unusable(&self.path, &wanted(), format_args!("it has {found:?}, {:?}", info.dtype)));
        }
        let tensor = self.tensors.get(name).map_err(|error| unusable(&self.path, &wanted(), error))?;
        let tensor = tensor.ok_or_else(|| unusable(&self.path, &wanted(), "there is none of that name"))?;
        if is_finite(&tensor).map_err(|error| self.wrong(name, error))? {
            Ok(tensor)
        } else {
            Err(self.wrong(name, "it has a number that is none"))
        }
    }

    /// The numbers of a tensor, the last dimension's next to each other.
    pub(super) fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, OptionsError> {
        let numbers = self.tensor(name, shape)?.flatten_all().and_then(|tensor| tensor.to_vec1());
        numbers.map_err(|error| self.wrong(name, error))
    }

    /// A batch normalisation that was trained with a scale and a shift of its own.
    pub(super) fn batch_norm(&self, name: &str, channels: usize) -> Result<Affine, OptionsError> {
        let mut norm = self.plain_batch_norm(name, channels)?;
        let weight = self.numbers(&format!("{name}.weight"), &[channels])?;
        let bias = self.numbers(&format!("{name}.bias"), &[channels])?;
        for ((scale, shift), (weight, bias)) in norm.scale.iter_mut().zip(&mut norm.shift).zip(weight.iter().zip(bias))
        {
            *scale *= weight;
            *shift = *shift * weight + bias;
        }
        Ok(norm)
    }

    /// A batch normalisation of mean and variance alone.
    pub(super) fn plain_batch_norm(&self, name: &str, channels: usize) -> Result<Affine, OptionsError> {
        let mean = self.numbers(&format!("{name}.running_mean"), &[channels])?;
        let variance = self.numbers(&format!("{name}.running_var"), &[channels])?;
        let scale: Vec<f32> = variance.iter().map(|variance| 1.0 / (variance + EPSILON).sqrt()).collect();
        let shift = mean.iter().zip(&scale).map(|(mean, scale)| -mean * scale).collect();
        Ok(Affine { scale, shift })
    }

    /// The weights of a convolution that looks at one frame, which is a product of matrices. `shape` ends with 1.
    pub(super) fn matrix(&self, name: &str, shape: &[usize; 3]) -> Result<Tensor, OptionsError> {
        let matrix = self.tensor(name, shape)?.squeeze(2);
        matrix.map_err(|error| self.wrong(name, error))
    }

    /// A convolution's weights with the normalisation that follows it, which then is no more than a bias.
    ///
    /// `shape` begins with the channels that come out.
    pub(super) fn normalised(&self, name: &str, shape: &[usize], norm: &Affine) -> Result<Vec<f32>, OptionsError> {
        let mut weights = self.numbers(name, shape)?;
        for (row, scale) in weights.chunks_exact_mut(shape[1..].iter().product()).zip(&norm.scale) {
            for weight in row.iter_mut() {
                *weight *= scale;
            }
        }
        Ok(weights)
    }

    /// What came of computing with a tensor while it was loaded.
    pub(super) fn wrong(&self, name: &str, error: impl fmt::Display) -> OptionsError {
        unusable(&self.path, &format!("a usable tensor {name}"), error)
    }
}

impl Affine {
    /// Applies it to rows, one for each channel, and makes nothing of what is negative.
    pub(super) fn rectify(&self, rows: &mut [f32], length: usize) {
        for (row, (scale, shift)) in rows.chunks_exact_mut(length).zip(self.scale.iter().zip(&self.shift)) {
            for value in row.iter_mut() {
                *value = (*value * scale + shift).max(0.0);
            }
        }
    }
}
