//! Recordings: fetched, decoded, resampled to 16 kHz mono.
//!
//! ```text
//! https, s3, file ──> file in memory (capped) ──> a process with limits: symphonia ──> mono ──> rubato ──> Audio
//! ```

mod aac;
mod address;
mod adts;
mod decode;
mod decoder;
mod dialer;
mod fetch;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guarded;
mod header;
mod kinds;
mod memory_file;
mod mp4;
mod options;
mod opus;
mod pieces;
mod resample;
mod resolver;
mod s3;
mod sandbox;
mod source;
mod status;
mod timeline;
mod web;

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;

pub use address::is_public;
pub use fetch::AudioFetcher;
pub use options::{AudioOptions, S3Options};
pub use sandbox::{Decoder, decode_if_asked};

/// Samples a second of every [`Audio`]: what speech models want.
pub const SAMPLE_RATE: u32 = 16_000;
/// Bytes a second of an [`Audio`] as a WAV file.
const BYTES_PER_SECOND: u32 = SAMPLE_RATE * 2;
/// What a WAV file has before its samples.
pub(crate) const WAV_HEADER_BYTES: usize = 44;

/// A recording in memory: 16 kHz, one channel, 16 bits; 115 MB an hour. Cheap to clone and to cut.
#[derive(Clone)]
pub struct Audio {
    // A vector behind the pointer, not a slice: it is moved there without a copy.
    samples: Arc<Vec<i16>>,
    range: Range<usize>,
}

impl Audio {
    /// Takes samples at [`SAMPLE_RATE`].
    pub fn from_samples(samples: impl Into<Vec<i16>>) -> Self {
        let samples = samples.into();
        Self { range: 0..samples.len(), samples: Arc::new(samples) }
    }

    /// The samples.
    pub fn samples(&self) -> &[i16] {
        &self.samples[self.range.clone()]
    }

    /// How long it is.
    pub fn duration(&self) -> Duration {
        duration_of(self.samples().len())
    }

    /// A part of it, by times from its beginning; what lies beyond its end is left out. Copies nothing.
    #[must_use]
    pub fn piece(&self, range: Range<Duration>) -> Self {
        self.cut(samples_in(range.start)..samples_in(range.end))
    }

    /// Itself in pieces no longer than `max`, each with its place in the whole; none if it is empty.
    ///
    /// A cut is made at the quietest 50 ms of a piece's last tenth, of at most 15 s: in a pause, if there is one.
    /// Less than a second is taken for a second: speech in shorter pieces means nothing. So no piece is shorter either,
    /// unless the whole is, or `max` is below two seconds.
    pub fn pieces(&self, max: Duration) -> Vec<(Duration, Self)> {
        let lengths = pieces::lengths(self.samples(), samples_in(max));
        let mut start = 0;
        let place = lengths.into_iter().map(|length| {
            let piece = (duration_of(start), self.cut(start..start + length));
            start += length;
            piece
        });
        place.collect()
    }

    /// A WAV file of it: 16 bits, one channel.
    pub fn to_wav(&self) -> Bytes {
        let data_len = u32::try_from(self.samples().len() * 2).unwrap_or(u32::MAX);
        let mut wav = Vec::with_capacity(self.wav_len());
        wav.extend(b"RIFF");
        wav.extend((data_len.saturating_add(36)).to_le_bytes());
        wav.extend(b"WAVEfmt ");
        wav.extend(16_u32.to_le_bytes());
        wav.extend(1_u16.to_le_bytes()); // plain samples
        wav.extend(1_u16.to_le_bytes()); // channels
        wav.extend(SAMPLE_RATE.to_le_bytes());
        wav.extend(BYTES_PER_SECOND.to_le_bytes());
        wav.extend(2_u16.to_le_bytes()); // bytes a sample
        wav.extend(16_u16.to_le_bytes()); // bits a sample
        wav.extend(b"data");
        wav.extend(data_len.to_le_bytes());
        wav.extend(self.samples().iter().flat_map(|sample| sample.to_le_bytes()));
        wav.into()
    }

    /// The length of [`to_wav`](Self::to_wav) in bytes.
    pub(crate) fn wav_len(&self) -> usize {
        WAV_HEADER_BYTES + self.samples().len() * 2
    }

    /// At least this long, with silence at its end if need be.
    pub(crate) fn padded(&self, least: Duration) -> Self {
        let least = samples_in(least);
        if self.samples().len() >= least {
            return self.clone();
        }
        let mut samples = self.samples().to_vec();
        samples.resize(least, 0);
        Self::from_samples(samples)
    }

    fn cut(&self, range: Range<usize>) -> Self {
        let end = self.range.start.saturating_add(range.end).min(self.range.end);
        let start = self.range.start.saturating_add(range.start).min(end);
        Self { samples: Arc::clone(&self.samples), range: start..end }
    }
}

/// Its length alone: nobody reads millions of samples.
impl fmt::Debug for Audio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audio").field("duration", &self.duration()).finish_non_exhaustive()
    }
}

pub(crate) fn duration_of(samples: usize) -> Duration {
    // Exact: a sample takes 62.5 µs.
    Duration::from_nanos((samples as u64).saturating_mul(62_500))
}

fn samples_in(duration: Duration) -> usize {
    usize::try_from(duration.as_nanos() / 62_500).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "small numbers"
    )]

    use super::*;

    #[test]
    fn a_piece_is_what_lies_within_and_pieces_of_pieces_count_from_their_own_beginning() {
        let audio = Audio::from_samples((0..32_000).map(|n| (n % 1000) as i16).collect::<Vec<_>>());
        assert_eq!(audio.duration(), Duration::from_secs(2));
        let second = audio.piece(Duration::from_secs(1)..Duration::from_secs(9));
        assert_eq!(second.samples(), &audio.samples()[16_000..]);
        let within = second.piece(Duration::from_millis(500)..Duration::from_millis(501));
        assert_eq!(within.samples(), &audio.samples()[24_000..24_016]);
        let none = audio.piece(Duration::MAX..Duration::ZERO);
        assert!(none.samples().is_empty());
    }

    #[test]
    fn a_wav_file_is_read_by_others_as_what_it_was() {
        let samples: Vec<i16> = (0..1000).map(|n| (n * 31) as i16).collect();
        let wav = Audio::from_samples(samples.clone()).to_wav();
        assert_eq!(wav.len(), WAV_HEADER_BYTES + 2000);
        let mut reader = hound::WavReader::new(wav.as_ref()).unwrap();
        let spec = reader.spec();
        assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 16_000, 16));
        assert_eq!(reader.samples::<i16>().map(Result::unwrap).collect::<Vec<_>>(), samples);
    }
}
