//! The first part of CAM++: convolutions over time and frequency, as in a picture.

use candle_core::{Device, Tensor};
use jm_mq_core::OptionsError;

use crate::embedded::diarization::{fbank::BANDS, weights::Weights};

/// Maps that every layer makes.
const MAPS: usize = 32;
/// The bands are halved so often.
const HALVINGS: usize = 3;
/// Rows that come out.
pub(super) const OUTPUTS: usize = MAPS * (BANDS >> HALVINGS);
/// Most of the columns that are multiplied at once, so that the copies of their neighbours fit into the cache.
const COLUMNS: usize = 4096;

pub(super) struct Head {
    first: Convolution,
    residuals: Vec<Residual>,
    last: Convolution,
}

/// Two convolutions, and what they add to.
struct Residual {
    first: Convolution,
    second: Convolution,
    /// Where the bands are halved, what they add to is as well.
    shortcut: Option<Convolution>,
}

/// A convolution and the normalisation after it.
struct Convolution {
    /// A row for each map that comes out; in it, for each map that goes in, the taps by band and then by time.
    kernel: Tensor,
    shift: Vec<f32>,
    /// Taps each way: 3, or 1.
    taps: usize,
    /// From one band to the next that comes out: 1, or 2.
    stride: usize,
}

/// Maps of bands over time.
struct Picture {
    values: Vec<f32>,
    bands: usize,
    length: usize,
}

impl Head {
    pub(super) fn load(weights: &Weights) -> Result<Self, OptionsError> {
        let load = |convolution: &str, norm: &str, maps, taps, stride| {
            Convolution::load(weights, &format!("head.{convolution}"), &format!("head.{norm}"), maps, taps, stride)
        };
        let residual = |name: &str, stride| {
            let shortcut = || load(&format!("{name}.shortcut.0"), &format!("{name}.shortcut.1"), MAPS, 1, stride);
            Ok(Residual {
                first: load(&format!("{name}.conv1"), &format!("{name}.bn1"), MAPS, 3, stride)?,
                second: load(&format!("{name}.conv2"), &format!("{name}.bn2"), MAPS, 3, 1)?,
                shortcut: if stride == 1 { None } else { Some(shortcut()?) },
            })
        };
        Ok(Self {
            first: load("conv1", "bn1", 1, 3, 1)?,
            residuals: vec![
                residual("layer1.0", 2)?,
                residual("layer1.1", 1)?,
                residual("layer2.0", 2)?,
                residual("layer2.1", 1)?,
            ],
            last: load("conv2", "bn2", MAPS, 3, 2)?,
        })
    }

    /// Takes a row of time for each band, and gives [`OUTPUTS`] rows and their length.
    pub(super) fn forward(&self, rows: &[f32], length: usize) -> candle_core::Result<(Vec<f32>, usize)> {
        let mut picture = Picture { values: rows.to_vec(), bands: BANDS, length };
        picture = self.first.forward(&picture)?;
        picture.rectify();
        for residual in &self.residuals {
            picture = residual.forward(picture)?;
        }
        picture = self.last.forward(&picture)?;
        picture.rectify();
        Ok((picture.values, length))
    }
}

impl Residual {
    fn forward(&self, input: Picture) -> candle_core::Result<Picture> {
        let mut output = self.first.forward(&input)?;
        output.rectify();
        output = self.second.forward(&output)?;
        let kept = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&input)?,
            None => input,
        };
        output.values.iter_mut().zip(&kept.values).for_each(|(value, kept)| *value += kept);
        output.rectify();
        Ok(output)
    }
}

impl Convolution {
    fn load(
        weights: &Weights,
        name: &str,
        norm: &str,
        maps: usize,
        taps: usize,
        stride: usize,
    ) -> Result<Self, OptionsError> {
        let norm = weights.batch_norm(norm, MAPS)?;
        let name = format!("{name}.weight");
        let kernel = weights.normalised(&name, &[MAPS, maps, taps, taps], &norm)?;
        let kernel = Tensor::from_vec(kernel, (MAPS, maps * taps * taps), &Device::Cpu);
        Ok(Self { kernel: kernel.map_err(|error| weights.wrong(&name, error))?, shift: norm.shift, taps, stride })
    }

    /// Some bands at a time: what each of their values is made of is copied into a column, and all are multiplied.
    fn forward(&self, input: &Picture) -> candle_core::Result<Picture> {
        let length = input.length;
        let bands = input.bands.div_ceil(self.stride);
        let mut values = vec![0.0; MAPS * bands * length];
        let at_once = (COLUMNS / length).max(1);
        for first in (0..bands).step_by(at_once) {
            let some = first..bands.min(first + at_once);
            let columns = some.len() * length;
            let copies = self.neighbours(input, some);
            let copies = Tensor::from_vec(copies, (self.kernel.dim(1)?, columns), &Device::Cpu)?;
            let output = self.kernel.matmul(&copies)?.flatten_all()?.to_vec1::<f32>()?;
            for ((map, shift), output) in
                values.chunks_exact_mut(bands * length).zip(&self.shift).zip(output.chunks_exact(columns))
            {
                let map = map[first * length..].iter_mut();
                map.zip(output).for_each(|(value, output)| *value = output + shift);
            }
        }
        Ok(Picture { values, bands, length })
    }

    /// A row for each tap: for each of the bands that come out, what the tap sees over time. Beyond the edges is nothing.
    fn neighbours(&self, input: &Picture, bands: std::ops::Range<usize>) -> Vec<f32> {
        let length = input.length;
        let reach = self.taps / 2;
        let mut copies = Vec::with_capacity(self.kernel.elem_count() / MAPS * bands.len() * length);
        for map in input.values.chunks_exact(input.bands * length) {
            for (band_tap, time_tap) in (0..self.taps).flat_map(|band| (0..self.taps).map(move |time| (band, time))) {
                for band in bands.clone() {
                    let band = (band * self.stride + band_tap).checked_sub(reach);
                    let Some(row) = band.and_then(|band| map.chunks_exact(length).nth(band)) else {
                        copies.resize(copies.len() + length, 0.0);
                        continue;
                    };
                    // As many as the tap is before the middle are missing at the beginning, or after it at the end.
                    let before = reach.saturating_sub(time_tap);
                    let after = time_tap.saturating_sub(reach);
                    copies.resize(copies.len() + before, 0.0);
                    copies.extend(&row[after..length - before]);
                    copies.resize(copies.len() + after, 0.0);
                }
            }
        }
        copies
    }
}

impl Picture {
    fn rectify(&mut self) {
        for value in &mut self.values {
            *value = value.max(0.0);
        }
    }
}
