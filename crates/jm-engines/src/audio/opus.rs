//! Opus, which symphonia has no decoder for.

use rusty_opus::{Error, OpusDecoder};

/// Opus's own: all of it is decoded at this rate.
pub(super) const RATE: u32 = 48_000;
/// The longest packet: 120 ms.
const MAX_FRAMES: usize = 5760;
/// What the header begins with.
const HEAD: &[u8; 8] = b"OpusHead";

/// Decodes the packets of one track.
pub(super) struct Opus {
    decoder: Box<OpusDecoder>,
    channels: usize,
    /// Frames to be left out at the beginning.
    pub(super) pre_skip: u64,
    /// By how much the author wants it louder.
    gain: f32,
}

impl Opus {
    /// By the track's header, which live recordings in `WebM` and those in CAF may do without.
    pub(super) fn new(head: Option<&[u8]>, channels: Option<usize>) -> Result<Self, String> {
        let mut opus = Header { channels: channels.unwrap_or(2).clamp(1, 2), ..Header::default() };
        if let Some(&[_, channels, a, b, _, _, _, _, c, d, family]) =
            head.and_then(|head| head.strip_prefix(HEAD)).and_then(<[u8]>::first_chunk)
        {
            opus = Header {
                channels: channels.into(),
                family,
                pre_skip: u16::from_le_bytes([a, b]),
                gain: i16::from_le_bytes([c, d]),
            };
        }
        let Header { channels, family, pre_skip, gain } = opus;
        if !(1..=2).contains(&channels) || family > 1 {
            return Err(format!("{channels} channels by mapping {family}; 1 or 2 by 0 or 1 can"));
        }
        let decoder = OpusDecoder::new(RATE.cast_signed(), channels).map_err(|error| error.to_string())?;
        let gain = 10_f32.powf(f32::from(gain) / 256.0 / 20.0);
        Ok(Self { decoder: Box::new(decoder), channels, pre_skip: pre_skip.into(), gain })
    }

    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Decodes a packet. What it becomes is interleaved.
    pub(super) fn decode(&mut self, packet: &[u8], interleaved: &mut Vec<f32>) -> Result<(), Error> {
        interleaved.clear();
        interleaved.resize(MAX_FRAMES * self.channels, 0.0);
        let frames = self.decoder.decode(packet, MAX_FRAMES, interleaved);
        interleaved.truncate(*frames.as_ref().unwrap_or(&0) * self.channels);
        frames?;
        if (self.gain - 1.0).abs() > f32::EPSILON {
            for sample in interleaved.iter_mut() {
                *sample *= self.gain;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Header {
    channels: usize,
    family: u8,
    pre_skip: u16,
    gain: i16,
}
