//! GGUF files: what they say of their model, and its tensors.

use std::{fs::File, io::BufReader, path::Path};

use candle_core::{
    Device, Tensor,
    quantized::{
        QTensor,
        gguf_file::{Content, Value},
    },
};
use jm_mq_core::OptionsError;

use super::matrix::{Matrix, MatrixError};
use crate::embedded::model::{is_finite, unusable};

/// What error messages call a file that can be used.
const WANTED: &str = "a GGUF file of the llama, qwen2 or qwen3 family";

/// An open GGUF file.
pub(crate) struct Gguf<'a> {
    path: &'a Path,
    content: Content,
    reader: BufReader<File>,
}

impl<'a> Gguf<'a> {
    /// Reads the file's head.
    pub(crate) fn open(path: &'a Path) -> Result<Self, OptionsError> {
        let file = File::open(path).map_err(|error| unusable(path, WANTED, error))?;
        let mut reader = BufReader::new(file);
        let content = Content::read(&mut reader).map_err(|error| unusable(path, WANTED, error))?;
        Ok(Self { path, content, reader })
    }

    /// The error for a file that is not what it should be.
    pub(crate) fn unusable(&self, why: impl std::fmt::Display) -> OptionsError {
        unusable(self.path, WANTED, why)
    }

    /// A text of the metadata.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, OptionsError> {
        self.value(key, "text", |value| value.to_string().ok().map(String::as_str))
    }

    /// A whole number of the metadata, of whatever width.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, OptionsError> {
        self.value(key, "a number from 0", count)
    }

    /// A fraction of the metadata.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f32>, OptionsError> {
        self.value(key, "a number", |value| value.to_f32().ok().filter(|number| number.is_finite()))
    }

    /// A yes or no of the metadata.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, OptionsError> {
        self.value(key, "true or false", |value| value.to_bool().ok())
    }

    /// A list of texts of the metadata.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, OptionsError> {
        let text = |value| Value::to_string(value).ok().map(String::as_str);
        self.value(key, "a list of texts", |value| value.to_vec().ok()?.iter().map(text).collect())
    }

    /// A list of whole numbers of the metadata.
    pub(crate) fn counts(&self, key: &str) -> Result<Option<Vec<usize>>, OptionsError> {
        self.value(key, "a list of numbers from 0", |value| value.to_vec().ok()?.iter().map(count).collect())
    }

    /// What the metadata has to say.
    pub(crate) fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T, OptionsError> {
        value.ok_or_else(|| self.unusable(format_args!("it says nothing of {key}")))
    }

    fn value<'b, T>(
        &'b self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'b Value) -> Option<T>,
    ) -> Result<Option<T>, OptionsError> {
        let Some(value) = self.content.metadata.get(key) else { return Ok(None) };
        // The value itself may be a list of all the tokens there are.
        read(value).map(Some).ok_or_else(|| self.unusable(format_args!("its {key} should be {wanted}")))
    }

    /// Whether there is such a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// A tensor as the file has it, which is to have this shape.
    pub(crate) fn quantised(&mut self, name: &str, shape: &[usize]) -> Result<QTensor, OptionsError> {
        let found = self.content.tensor_infos.get(name).map(|info| info.shape.dims());
        let found = found.ok_or_else(|| self.unusable(format_args!("it has no tensor {name}")))?;
        if found != shape {
            return Err(self.unusable(format_args!("its tensor {name} is {found:?} and should be {shape:?}")));
        }
        let tensor = self.content.tensor(&mut self.reader, name, &Device::Cpu);
        tensor.map_err(|error| self.unusable(format_args!("its tensor {name}: {error}")))
    }

    /// A tensor's numbers.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, OptionsError> {
        let tensor = self.quantised(name, shape)?.dequantize(&Device::Cpu);
        let tensor = tensor.map_err(|error| self.unusable(format_args!("its tensor {name}: {error}")))?;
        if !is_finite(&tensor).map_err(|error| self.unusable(error))? {
            return Err(self.unusable(format_args!("its tensor {name} has a number that is none")));
        }
        Ok(tensor)
    }

    /// A matrix of weights of so many rows and columns.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, OptionsError> {
        let weights = self.quantised(name, &[rows, columns])?;
        Matrix::rounded(&weights)
            .map_err(|error: MatrixError| self.unusable(format_args!("its tensor {name}: {error}")))
    }

    /// How many rows a tensor has.
    pub(crate) fn rows(&self, name: &str) -> Option<usize> {
        self.content.tensor_infos.get(name)?.shape.dims().first().copied()
    }
}

fn count(value: &Value) -> Option<usize> {
    let signed = match *value {
        Value::I8(number) => i64::from(number),
        Value::I16(number) => i64::from(number),
        Value::I32(number) => i64::from(number),
        Value::I64(number) => number,
        Value::Bool(_) => return None,
        ref other => return usize::try_from(other.to_u64().ok()?).ok(),
    };
    usize::try_from(signed).ok()
}
