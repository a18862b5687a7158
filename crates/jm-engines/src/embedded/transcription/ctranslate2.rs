//! Weights as `CTranslate2` keeps them: its `model.bin`.
//!
//! | part | form |
//! |---|---|
//! | version of the format | u32: 6 |
//! | what it describes | string, and the description's revision as u32 |
//! | variables | u32; then each: name, u8 rank, u32 for each dimension, u8 type, u32 bytes, the numbers |
//! | aliases | u32; then each: two names |
//!
//! A string is a u16 with its length and as many bytes, a zero at the end. All numbers are little-endian. The file may
//! be anybody's, so that no length is believed before it was held against what is left of the file.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use candle_core::{DType, Device, Tensor};

use crate::embedded::model::is_finite;

/// The only version of the format that is read; version 5 had no aliases in this place.
const VERSION: u32 = 6;
/// What `CTranslate2` calls the description of a Whisper model.
const DESCRIPTION: &str = "WhisperSpec";
/// Whisper large has some 1500 variables.
const MAX_VARIABLES: u32 = 10_000;
/// A convolution's weights have three dimensions, and nothing has more.
const MAX_RANK: u8 = 4;

/// Why a file is no model.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormatError {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("it is cut off in {0}")]
    CutOff(String),
    #[error("{0} bytes follow where it should end")]
    TooLong(u64),
    #[error("it is version {0} of the format; {VERSION} is needed: convert the model with CTranslate2 4")]
    Version(u32),
    #[error("it describes `{0}`, not `{DESCRIPTION}`")]
    Description(String),
    #[error("{0} variables; no Whisper has more than {MAX_VARIABLES}")]
    Variables(u32),
    #[error("a name in it is no text")]
    Name,
    #[error("`{0}` is in it twice")]
    Twice(String),
    #[error("`{name}` has {bytes} bytes, which its shape and type do not")]
    Bytes { name: String, bytes: u32 },
    #[error("`{name}` is {kind}; float16 or float32 is needed: convert the model with `--quantization float16`")]
    Type { name: String, kind: String },
    #[error("`{0}` has numbers that are none")]
    NotFinite(String),
    #[error("`{0}` is in it, and in no Whisper")]
    Unknown(String),
    #[error("`{0}` is missing")]
    Missing(String),
    #[error("`{name}` is {found:?}, where {wanted:?} is needed")]
    Shape { name: String, found: Vec<usize>, wanted: Vec<usize> },
    #[error("`{name}` is {found}; {wanted} is needed")]
    Setting { name: String, found: i64, wanted: &'static str },
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
}

/// A model's variables by their names. What is taken out is gone, so that nothing is in memory twice.
#[derive(Debug, Default)]
pub(super) struct Weights {
    tensors: HashMap<String, Tensor>,
    /// Single whole numbers: how many heads there are, which activation is used.
    settings: HashMap<String, i64>,
}

impl Weights {
    /// Reads a file, turning all its numbers into f32.
    pub(super) fn open(path: &Path) -> Result<Self, FormatError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Self::read(BufReader::new(file), length)
    }

    fn read(input: impl Read, length: u64) -> Result<Self, FormatError> {
        let mut source = Source { input, left: length };
        let version = source.u32("the version")?;
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let description = source.string("the description")?;
        if description != DESCRIPTION {
            return Err(FormatError::Description(description));
        }
        source.u32("the description's revision")?;
        let variables = source.u32("the number of variables")?;
        if variables > MAX_VARIABLES {
            return Err(FormatError::Variables(variables));
        }
        let mut weights = Self::default();
        for _ in 0..variables {
            weights.read_variable(&mut source)?;
        }
        // The one alias says that the output's weights are the embedding's, which is so in every Whisper.
        let aliases = source.u32("the number of aliases")?;
        for _ in 0..aliases {
            source.string("an alias")?;
            source.string("an alias")?;
        }
        if source.left > 0 { Err(FormatError::TooLong(source.left)) } else { Ok(weights) }
    }

    fn read_variable(&mut self, source: &mut Source<impl Read>) -> Result<(), FormatError> {
        let name = source.string("a variable's name")?;
        if self.tensors.contains_key(&name) || self.settings.contains_key(&name) {
            return Err(FormatError::Twice(name));
        }
        let rank = source.u8(&name)?;
        if rank > MAX_RANK {
            return Err(FormatError::Type { name, kind: format!("of {rank} dimensions") });
        }
        let mut shape = Vec::with_capacity(rank.into());
        for _ in 0..rank {
            shape.push(source.u32(&name)? as usize);
        }
        let kind = source.u8(&name)?;
        let bytes = source.u32(&name)?;
        let item = match kind {
            INT8 => 1,
            INT16 | FLOAT16 | BFLOAT16 => 2,
            FLOAT32 | INT32 => 4,
            other => return Err(FormatError::Type { name, kind: format!("of the unknown type {other}") }),
        };
        let items = shape.iter().try_fold(1_usize, |items, &size| items.checked_mul(size));
        if items.and_then(|items| items.checked_mul(item)) != Some(bytes as usize) {
            return Err(FormatError::Bytes { name, bytes });
        }
        let data = source.bytes(bytes.into(), &name)?;
        let float = match kind {
            FLOAT32 => DType::F32,
            FLOAT16 => DType::F16,
            _ if shape.is_empty() && kind != BFLOAT16 => {
                let negative = data.last().is_some_and(|&byte| byte >= 0x80);
                let mut wide = [if negative { 0xff } else { 0 }; 8];
                wide[..data.len()].copy_from_slice(&data);
                self.settings.insert(name, i64::from_le_bytes(wide));
                return Ok(());
            }
            _ => return Err(FormatError::Type { name, kind: kind_name(kind).into() }),
        };
        let tensor = Tensor::from_raw_buffer(&data, float, &shape, &Device::Cpu)?.to_dtype(DType::F32)?;
        if !is_finite(&tensor)? {
            return Err(FormatError::NotFinite(name));
        }
        self.tensors.insert(name, tensor);
        Ok(())
    }

    /// Takes a tensor out. A size of 0 in `wanted` stands for any.
    pub(super) fn take(&mut self, name: &str, wanted: &[usize]) -> Result<Tensor, FormatError> {
        let tensor = self.tensors.remove(name).ok_or_else(|| FormatError::Missing(name.into()))?;
        let found = tensor.dims();
        let fits = found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| f == w || *w == 0);
        if fits && found.iter().all(|&size| size > 0) {
            return Ok(tensor);
        }
        Err(FormatError::Shape { name: name.into(), found: found.to_vec(), wanted: wanted.to_vec() })
    }

    /// Whether a tensor of this name is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Fails if there is a tensor that nothing has taken: a network that is not all of it would write nonsense.
    pub(super) fn all_taken(&self) -> Result<(), FormatError> {
        self.tensors.keys().min().map_or(Ok(()), |name| Err(FormatError::Unknown(name.clone())))
    }

    /// A single whole number.
    pub(super) fn setting(&self, name: &str) -> Result<i64, FormatError> {
        self.settings.get(name).copied().ok_or_else(|| FormatError::Missing(name.into()))
    }
}

// CTranslate2's numbers for types.
const FLOAT32: u8 = 0;
const INT8: u8 = 1;
const INT16: u8 = 2;
const INT32: u8 = 3;
const FLOAT16: u8 = 4;
const BFLOAT16: u8 = 5;

fn kind_name(kind: u8) -> &'static str {
    match kind {
        INT8 => "int8",
        INT16 => "int16",
        INT32 => "int32",
        _ => "bfloat16",
    }
}

/// What is left of a file.
struct Source<R> {
    input: R,
    left: u64,
}

impl<R: Read> Source<R> {
    /// The next bytes, which are a part of `what`.
    fn bytes(&mut self, count: u64, what: &str) -> Result<Vec<u8>, FormatError> {
        let cut_off = || FormatError::CutOff(format!("`{what}`"));
        self.left = self.left.checked_sub(count).ok_or_else(cut_off)?;
        let mut bytes = vec![0; usize::try_from(count).map_err(|_| cut_off())?];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes(N as u64, what)?);
        Ok(array)
    }

    fn u8(&mut self, what: &str) -> Result<u8, FormatError> {
        self.array(what).map(u8::from_le_bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, FormatError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn string(&mut self, what: &str) -> Result<String, FormatError> {
        let length = self.array(what).map(u16::from_le_bytes)?;
        let mut bytes = self.bytes(length.into(), what)?;
        if bytes.pop() != Some(0) {
            return Err(FormatError::Name);
        }
        String::from_utf8(bytes).map_err(|_| FormatError::Name)
    }
}

#[cfg(test)]
mod tests;
