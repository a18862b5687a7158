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
mod tests {
    use super::*;

    fn string(text: &str) -> Vec<u8> {
        let length = u16::try_from(text.len() + 1).unwrap();
        [&length.to_le_bytes()[..], text.as_bytes(), &[0]].concat()
    }

    fn variable(name: &str, shape: &[u32], kind: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes = string(name);
        bytes.push(u8::try_from(shape.len()).unwrap());
        bytes.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
        bytes.push(kind);
        bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        bytes.extend(data);
        bytes
    }

    fn model(variables: &[Vec<u8>]) -> Vec<u8> {
        let count = u32::try_from(variables.len()).unwrap();
        let mut bytes = [&6_u32.to_le_bytes()[..], &string("WhisperSpec"), &3_u32.to_le_bytes()].concat();
        bytes.extend(count.to_le_bytes());
        bytes.extend(variables.concat());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend([string("decoder/projection/weight"), string("decoder/embeddings/weight")].concat());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Weights, FormatError> {
        Weights::read(bytes, bytes.len() as u64)
    }

    fn refused(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    fn right() -> Vec<u8> {
        // 1.0 and -2.0 in 16 bits, 0.5 in 32.
        let halves = [0x00, 0x3c, 0x00, 0xc0];
        model(&[
            variable("halves", &[2, 1], FLOAT16, &halves),
            variable("single", &[1], FLOAT32, &0.5_f32.to_le_bytes()),
            variable("heads", &[], INT16, &8_i16.to_le_bytes()),
            variable("layer", &[], INT16, &(-1_i16).to_le_bytes()),
        ])
    }

    #[test]
    fn numbers_of_16_and_32_bits_become_f32() {
        let mut weights = read(&right()).unwrap();
        assert_eq!(weights.take("halves", &[2, 0]).unwrap().to_vec2::<f32>().unwrap(), [[1.0], [-2.0]]);
        assert_eq!(weights.take("single", &[1]).unwrap().to_vec1::<f32>().unwrap(), [0.5]);
        assert_eq!((weights.setting("heads").unwrap(), weights.setting("layer").unwrap()), (8, -1));
    }

    #[test]
    fn what_is_not_there_or_has_another_shape_is_named() {
        let error = read(&right()).unwrap().take("halves", &[1, 2]).unwrap_err().to_string();
        assert_eq!(error, "`halves` is [2, 1], where [1, 2] is needed");
        let error = read(&right()).unwrap().take("wholes", &[1]).unwrap_err().to_string();
        assert_eq!(error, "`wholes` is missing");
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_is_refused_and_so_is_a_longer_one() {
        let right = right();
        for length in 0..right.len() {
            let error = refused(&right[..length]);
            assert!(error.starts_with("it is cut off in `"), "{length}: {error}");
        }
        assert_eq!(refused(&[&right[..], &[0; 3]].concat()), "3 bytes follow where it should end");
    }

    #[test]
    fn lengths_that_lie_take_no_memory() {
        let mut bytes = model(&[variable("huge", &[u32::MAX, u32::MAX, u32::MAX, u32::MAX], FLOAT32, &[0; 4])]);
        assert_eq!(refused(&bytes), "`huge` has 4 bytes, which its shape and type do not");
        let few = model(&[variable("w", &[3], FLOAT32, &[0; 8])]);
        assert_eq!(refused(&few), "`w` has 8 bytes, which its shape and type do not");
        bytes = model(&[variable("huge", &[0x3fff_ffff], FLOAT32, &[])]);
        let place = bytes.len() - string("decoder/projection/weight").len() * 2 - 8;
        bytes[place..place + 4].copy_from_slice(&0xffff_fffc_u32.to_le_bytes());
        assert_eq!(refused(&bytes), "it is cut off in `huge`");
        let mut bytes = model(&[]);
        bytes[22..26].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(refused(&bytes), "4294967295 variables; no Whisper has more than 10000");
    }

    #[test]
    fn other_models_versions_and_types_are_refused_with_the_remedy() {
        let mut other = right();
        other[0] = 5;
        assert!(refused(&other).starts_with("it is version 5 of the format; 6 is needed"));
        let mut other = right();
        other[6] = b'B';
        assert_eq!(refused(&other), "it describes `BhisperSpec`, not `WhisperSpec`");
        let quantised = model(&[variable("w", &[2], INT8, &[1, 2])]);
        assert!(refused(&quantised).starts_with("`w` is int8; float16 or float32 is needed: convert"));
        let brain = model(&[variable("w", &[], BFLOAT16, &[1, 2])]);
        assert!(refused(&brain).starts_with("`w` is bfloat16;"));
        assert!(refused(&model(&[variable("w", &[1], 9, &[1])])).contains("unknown type 9"));
        assert!(refused(&model(&[variable("w", &[1; 5], FLOAT32, &[0; 4])])).contains("of 5 dimensions"));
        let infinite = model(&[variable("w", &[1], FLOAT32, &f32::NAN.to_le_bytes())]);
        assert_eq!(refused(&infinite), "`w` has numbers that are none");
        let once = variable("w", &[1], FLOAT32, &[0; 4]);
        assert_eq!(refused(&model(&[once.clone(), once])), "`w` is in it twice");
    }
}
