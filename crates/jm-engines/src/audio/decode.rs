//! From a file's bytes to samples.

use std::{io, sync::LazyLock, time::Duration};

use symphonia::{
    core::{
        codecs::{
            CodecParameters,
            audio::{
                AudioCodecId, AudioDecoder, AudioDecoderOptions,
                well_known::{
                    CODEC_ID_AC3, CODEC_ID_EAC3, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_OPUS, CODEC_ID_SPEEX,
                    CODEC_ID_WAVPACK, CODEC_ID_WMA,
                },
            },
        },
        errors::Error,
        formats::{
            FormatOptions, FormatReader, Track, TrackType,
            probe::{Hint, Probe},
            well_known::{FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_WAVE},
        },
        io::MediaSourceStream,
        meta::MetadataOptions,
    },
    default::{
        formats::{AdtsReader, FlacReader, IsoMp4Reader, MkvReader, MpaReader, OggReader, WavReader},
        get_codecs,
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Audio, SAMPLE_RATE,
    guarded::{Allowance, Guarded},
    header,
    resample::Collector,
    samples_in,
};
use crate::error::EngineError;

/// What can be decoded, for errors.
const FORMATS: &str = "WAV, MP3, M4A (AAC, ALAC), AAC, FLAC, Ogg Vorbis, WebM (Vorbis)";
/// Rates that recordings have: from the telephone's, halved, to the studio's, doubled.
const RATES: std::ops::RangeInclusive<u32> = 4000..=384_000;
/// As many channels as any microphone array has.
const MAX_CHANNELS: usize = 64;
/// Broken packets in a row that are skipped, as players do: some seconds. After more, nothing good will follow.
const MAX_BAD_PACKETS: u32 = 100;
/// Recordings in one file, one after the other, as Ogg has them.
const MAX_CHAINED: u32 = 1000;
/// How much shorter than its header says a recording may be, before it counts as cut off: the headers are not exact.
const MISSING_TOLERATED: Duration = Duration::from_secs(1);

/// Finds the format. It knows no tags, unlike the one that symphonia has ready: those before the sound are gone when it
/// begins, and any others would be collected without a limit.
static PROBE: LazyLock<Probe> = LazyLock::new(|| {
    let mut probe = Probe::new();
    probe.register_format::<AdtsReader<'_>>();
    probe.register_format::<FlacReader<'_>>();
    probe.register_format::<IsoMp4Reader<'_>>();
    probe.register_format::<MkvReader<'_>>();
    probe.register_format::<MpaReader<'_>>();
    probe.register_format::<OggReader<'_>>();
    probe.register_format::<WavReader<'_>>();
    probe
});

/// Decodes a whole file. Every error but a cancellation is permanent.
///
/// In memory are the file, the samples at 16 kHz, a packet, and up to ten times 24 MiB of the file's own tables. The
/// file is gone when the samples are returned.
pub(super) fn decode(
    mut file: Vec<u8>,
    max_duration: Duration,
    stop: &CancellationToken,
) -> Result<Audio, EngineError> {
    header::mend(&mut file);
    let allowance = Allowance::new();
    let file = Guarded::new(file, allowance.clone(), stop.clone());
    let stream = MediaSourceStream::new(Box::new(file), <_>::default());
    let options = (FormatOptions::default(), MetadataOptions::default());
    let mut format = PROBE.probe(&Hint::new(), stream, options.0, options.1).map_err(|error| {
        if stop.is_cancelled() {
            return cancelled();
        }
        EngineError::permanent(format!("not a recording that can be read ({error}); {FORMATS} can"))
    })?;
    let mut playing = Playing::start(format.as_ref())?;

    let declared = declared(format.as_ref(), playing.track);
    if declared.is_some_and(|declared| declared > max_duration) {
        return Err(too_long(max_duration));
    }
    let max_samples = samples_in(max_duration);
    let mut collector = Collector::new(max_samples, declared.map_or(0, samples_in));
    let (mut interleaved, mut mono) = (Vec::new(), Vec::new());
    let (mut bad, mut chained) = (0, 0);
    loop {
        if stop.is_cancelled() {
            return Err(cancelled());
        }
        let packet = match format.next_packet() {
            Ok(Some(packet)) => {
                allowance.renew();
                if packet.track_id != playing.track {
                    continue;
                }
                packet
            }
            Ok(None) => break,
            Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(Error::ResetRequired) if chained < MAX_CHAINED => {
                chained += 1;
                // The tags of those before are not kept.
                format.metadata().skip_to_latest();
                playing = Playing::start(format.as_ref())?;
                continue;
            }
            Err(error) => {
                skip(&mut bad, &error)?;
                continue;
            }
        };
        let decoded = match playing.decoder.decode(&packet) {
            Ok(decoded) => decoded,
            Err(error) => {
                skip(&mut bad, &error)?;
                continue;
            }
        };
        let (rate, channels) = (decoded.spec().rate(), decoded.num_planes());
        if decoded.frames() == 0 || channels == 0 {
            continue;
        }
        if !RATES.contains(&rate) || channels > MAX_CHANNELS {
            return Err(EngineError::permanent(format!(
                "{channels} channels at {rate} Hz; 1 to 64 at 4 to 384 kHz can"
            )));
        }
        bad = 0;
        decoded.copy_to_vec_interleaved(&mut interleaved);
        mix_down(&interleaved, channels, &mut mono);
        collector.push(rate, &mono).map_err(|full| collecting(full.is_some(), max_duration))?;
    }
    let samples = collector.finish().map_err(|full| collecting(full.is_some(), max_duration))?;
    let audio = Audio::from_samples(samples);
    if audio.samples().is_empty() {
        return Err(EngineError::permanent("a recording without a sample"));
    }
    match declared {
        Some(declared) if audio.duration() + MISSING_TOLERATED < declared => {
            Err(EngineError::permanent(format!("cut off: {:.1?} of {declared:.1?} are there", audio.duration())))
        }
        _ => Ok(audio),
    }
}

/// The track that is decoded.
struct Playing {
    track: u32,
    decoder: Box<dyn AudioDecoder>,
}

impl Playing {
    /// Begins with the default track, or else with the first one that can be decoded.
    fn start(format: &dyn FormatReader) -> Result<Self, EngineError> {
        let default = format.default_track(TrackType::Audio).into_iter();
        let mut refusal = None;
        for track in default.chain(format.tracks()) {
            let Some(CodecParameters::Audio(codec)) = &track.codec_params else { continue };
            match get_codecs().make_audio_decoder(codec, &AudioDecoderOptions::default()) {
                Ok(decoder) => return Ok(Self { track: track.id, decoder }),
                Err(error) => _ = refusal.get_or_insert((codec.codec, error)),
            }
        }
        Err(EngineError::permanent(match refusal {
            Some((codec, error)) => format!("{} cannot be decoded ({error}); {FORMATS} can", name(codec)),
            None => format!("no sound in the file; {FORMATS} can be decoded"),
        }))
    }
}

/// The length in the file's header, in formats where it is exact. MP3's is an estimate, Matroska's that of the film.
fn declared(format: &dyn FormatReader, track: u32) -> Option<Duration> {
    if ![FORMAT_ID_WAVE, FORMAT_ID_FLAC, FORMAT_ID_ISOMP4].contains(&format.format_info().format) {
        return None;
    }
    let track: &Track = format.tracks().iter().find(|candidate| candidate.id == track)?;
    let seconds = track.time_base?.calc_duration(track.duration?)?.as_secs_f64();
    Duration::try_from_secs_f64(seconds).ok().filter(|declared| !declared.is_zero())
}

/// Counts a packet that cannot be used, up to the limit. What is no fault of a single packet is an error at once.
fn skip(bad: &mut u32, error: &Error) -> Result<(), EngineError> {
    *bad += 1;
    match error {
        Error::DecodeError(_) | Error::IoError(_) if *bad <= MAX_BAD_PACKETS => Ok(()),
        _ => Err(EngineError::permanent(format!("cannot be decoded: {error}"))),
    }
}

/// The mean of all channels.
#[expect(clippy::cast_precision_loss, reason = "there are 64 channels at most")]
fn mix_down(interleaved: &[f32], channels: usize, mono: &mut Vec<f32>) {
    mono.clear();
    mono.extend(interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32));
}

fn collecting(full: bool, max_duration: Duration) -> EngineError {
    if full {
        too_long(max_duration)
    } else {
        EngineError::permanent(format!("its rate cannot be turned into {SAMPLE_RATE} Hz"))
    }
}

fn cancelled() -> EngineError {
    EngineError::retryable("cancelled")
}

fn too_long(max_duration: Duration) -> EngineError {
    EngineError::permanent(format!("longer than {max_duration:?}, which `max_duration` allows"))
}

/// The name of a codec that is often met and cannot be decoded.
fn name(codec: AudioCodecId) -> &'static str {
    match codec {
        CODEC_ID_OPUS => "Opus",
        CODEC_ID_SPEEX => "Speex",
        CODEC_ID_AC3 => "AC-3",
        CODEC_ID_EAC3 => "E-AC-3",
        CODEC_ID_MP1 => "MPEG layer 1",
        CODEC_ID_MP2 => "MPEG layer 2",
        CODEC_ID_WMA => "WMA",
        CODEC_ID_WAVPACK => "WavPack",
        _ => "its codec",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorClass;

    #[test]
    fn looking_for_the_format_ends_when_nobody_waits_any_more() {
        let stop = CancellationToken::new();
        let error = |stop: &CancellationToken| decode(vec![0; 3_000_000], Duration::from_secs(1), stop).unwrap_err();
        assert_eq!(error(&stop).class(), ErrorClass::Permanent);
        stop.cancel();
        assert_eq!(error(&stop), EngineError::retryable("cancelled"));
    }
}
