//! Recordings for engines that only count their seconds.

use std::path::Path;

use anyhow::{Context, Result};
use hound::{SampleFormat, WavSpec, WavWriter};

/// Samples in a second.
const RATE: u32 = 16_000;

/// Samples after which the wave turns over: a tone of 400 Hz.
const HALF_WAVE: u32 = 20;

/// Writes a WAV file with a tone of so many seconds.
pub fn record_tone(path: impl AsRef<Path>, seconds: u32) -> Result<()> {
    let path = path.as_ref();
    let what = || format!("could not write {}", path.display());
    let spec = WavSpec { channels: 1, sample_rate: RATE, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut file = WavWriter::create(path, spec).with_context(what)?;
    for sample in 0..seconds * RATE {
        let is_up = (sample / HALF_WAVE).is_multiple_of(2);
        file.write_sample(if is_up { 5000_i16 } else { -5000 }).with_context(what)?;
    }
    file.finalize().with_context(what)
}
