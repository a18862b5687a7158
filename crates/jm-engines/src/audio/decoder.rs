//! One track's packets to samples of one channel.

use symphonia::{
    core::{
        codecs::audio::{
            AudioCodecParameters, AudioDecoder, AudioDecoderOptions,
            well_known::{CODEC_ID_AAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3, CODEC_ID_OPUS, CODEC_ID_VORBIS},
        },
        errors::Error,
        packet::Packet,
    },
    default::get_codecs,
};

use super::{
    aac,
    opus::{self, Opus},
};

/// Rates that recordings have: from the telephone's, halved, to the studio's, doubled.
const RATES: std::ops::RangeInclusive<u32> = 4000..=384_000;
/// As many channels as any microphone array has.
const MAX_CHANNELS: usize = 64;

/// Decodes one track, and mixes its channels down.
pub(super) struct Decoder {
    codec: AudioCodecParameters,
    kind: Kind,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
}

enum Kind {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Opus),
}

/// Why a packet has become no sound.
pub(super) enum Undecoded {
    /// The packet is broken; the next one may be whole.
    Packet(String),
    /// There is no use in going on.
    Track(String),
}

impl Decoder {
    /// For a track of this codec.
    pub(super) fn new(codec: &AudioCodecParameters) -> Result<Self, String> {
        let mut codec = codec.clone();
        if codec.codec == CODEC_ID_AAC
            && let Some(core) = codec.extra_data.as_deref().and_then(aac::core)
        {
            codec.extra_data = Some(core);
        }
        let kind = if codec.codec == CODEC_ID_OPUS {
            let channels = codec.channels.as_ref().map(symphonia::core::audio::Channels::count);
            Kind::Opus(Opus::new(codec.extra_data.as_deref(), channels)?)
        } else {
            Kind::Symphonia(symphonia(&codec)?)
        };
        Ok(Self { codec, kind, interleaved: Vec::new(), mono: Vec::new() })
    }

    /// Frames that the codec itself wants to have left out at the beginning.
    pub(super) fn delay(&self) -> u64 {
        match &self.kind {
            Kind::Opus(opus) => opus.pre_skip,
            Kind::Symphonia(_) => 0,
        }
    }

    /// Its rate, and the mean of all channels. Nothing is an answer, too.
    pub(super) fn decode(&mut self, packet: &Packet) -> Result<(u32, &[f32]), Undecoded> {
        self.mono.clear();
        let (rate, channels) = match &mut self.kind {
            Kind::Opus(opus) => {
                opus.decode(&packet.data, &mut self.interleaved)
                    .map_err(|error| Undecoded::Packet(error.to_string()))?;
                (opus::RATE, opus.channels())
            }
            Kind::Symphonia(_) => self.symphonia(packet)?,
        };
        if self.interleaved.is_empty() || channels == 0 {
            return Ok((0, &[]));
        }
        if !RATES.contains(&rate) || channels > MAX_CHANNELS {
            return Err(Undecoded::Track(format!(
                "{channels} channels at {rate} Hz; {MAX_CHANNELS} at 4 to 384 kHz at most can be decoded"
            )));
        }
        #[expect(clippy::cast_precision_loss, reason = "there are 64 channels at most")]
        let share = 1.0 / channels as f32;
        self.mono.extend(self.interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * share));
        Ok((rate, &self.mono))
    }

    fn symphonia(&mut self, packet: &Packet) -> Result<(u32, usize), Undecoded> {
        let Kind::Symphonia(decoder) = &mut self.kind else { return Ok((0, 0)) };
        self.interleaved.clear();
        let failed = match decoder.decode(packet) {
            Ok(decoded) => {
                decoded.copy_to_vec_interleaved(&mut self.interleaved);
                return Ok((decoded.spec().rate(), decoded.num_planes()));
            }
            Err(error @ (Error::DecodeError(_) | Error::IoError(_))) => error,
            Err(error) => return Err(Undecoded::Track(error.to_string())),
        };
        // Files are joined, and their rates and channels differ. The decoder takes only what it was begun with.
        if [CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3].contains(&self.codec.codec)
            && let Ok(mut other) = symphonia(&self.codec)
        {
            let changed = other.decode(packet).is_ok_and(|decoded| {
                decoded.copy_to_vec_interleaved(&mut self.interleaved);
                decoded.spec() != decoder.last_decoded().spec()
            });
            if changed {
                let spec = (other.last_decoded().spec().rate(), other.last_decoded().num_planes());
                *decoder = other;
                return Ok(spec);
            }
            self.interleaved.clear();
        }
        Err(Undecoded::Packet(failed.to_string()))
    }
}

fn symphonia(codec: &AudioCodecParameters) -> Result<Box<dyn AudioDecoder>, String> {
    // What encoders put before and behind the sound is taken away by the timeline: of some formats the decoders would
    // go by an estimate. Vorbis has its first packet silenced so.
    let options = AudioDecoderOptions::default().gapless(codec.codec == CODEC_ID_VORBIS);
    get_codecs().make_audio_decoder(codec, &options).map_err(|error| error.to_string())
}
