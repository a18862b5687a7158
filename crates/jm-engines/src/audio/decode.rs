//! From a file to samples. It runs in a process of its own: see `sandbox.rs`.

use std::{
    fs::File,
    io,
    ops::Range,
    sync::{Arc, LazyLock},
    time::Duration,
};

use symphonia::{
    core::{
        codecs::{
            CodecParameters,
            audio::well_known::{CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3},
        },
        errors::Error,
        formats::{
            FormatId, FormatOptions, FormatReader, Track, TrackFlags,
            probe::{Hint, Probe},
            well_known::{
                FORMAT_ID_AIFF, FORMAT_ID_CAF, FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_MKV, FORMAT_ID_OGG,
                FORMAT_ID_WAVE,
            },
        },
        io::MediaSourceStream,
        meta::MetadataOptions,
        packet::Packet,
    },
    default::formats::{
        AdtsReader, AiffReader, CafReader, FlacReader, IsoMp4Reader, MkvReader, MpaReader, OggReader, WavReader,
    },
};

use super::{
    adts,
    decoder::{Decoder, Undecoded},
    guarded::{Allowance, Guarded},
    header,
    kinds::{self, Count},
    mp4::Movie,
    resample::{Collector, Full},
    samples_in,
    timeline::{OutOfOrder, Played, Timeline},
};

/// Broken packets in a row that are passed over, as players do: some seconds. After more, nothing good will follow.
const MAX_BAD_PACKETS: u32 = 100;
/// Recordings in one file, one after the other, as Ogg has them.
const MAX_CHAINED: u32 = 1000;
/// How much shorter than its header says a recording may be, before it counts as cut off: the headers are not exact. And
/// how much of it may be broken.
const MISSING_TOLERATED: f64 = 1.0;
/// Samples that are handed on at once: half a second.
const CHUNK: usize = 8000;
/// Silence that is made at once, in frames.
const SILENCE: [f32; 4096] = [0.0; 4096];

/// Finds the format. It knows no tags, unlike the one that symphonia has ready: those before the sound are gone when it
/// begins, and any others would be collected without a limit.
static PROBE: LazyLock<Probe> = LazyLock::new(|| {
    let mut probe = Probe::new();
    probe.register_format::<AdtsReader<'_>>();
    probe.register_format::<AiffReader<'_>>();
    probe.register_format::<CafReader<'_>>();
    probe.register_format::<FlacReader<'_>>();
    probe.register_format::<IsoMp4Reader<'_>>();
    probe.register_format::<MkvReader<'_>>();
    probe.register_format::<MpaReader<'_>>();
    probe.register_format::<OggReader<'_>>();
    probe.register_format::<WavReader<'_>>();
    probe
});

/// Why a file has become no recording.
#[derive(Debug)]
pub(super) enum Failure {
    /// What is wrong with it, and what can be done.
    File(String),
    /// The samples are not wanted any more, or the file cannot be read.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Decodes a whole file, whose header it mends in place. `heard` gets the samples at 16 kHz as they come.
pub(super) fn decode(
    file: File,
    max_duration: Duration,
    heard: &mut dyn FnMut(&[i16]) -> io::Result<()>,
) -> Result<(), Failure> {
    // Shared, since this process can open nothing more.
    let file = Arc::new(file);
    let start = header::mend(&file)?;
    let movie = Movie::read(&file, start)?;
    let count = Count::read(&file, start)?;
    let allowance = Allowance::new();
    let mut output = Output { collector: Collector::new(samples_in(max_duration)), max_duration, rate: 0, heard };
    for part in adts::parts(&file, start)? {
        let stream = Guarded::new(Arc::clone(&file), &part, allowance.clone());
        let stream = MediaSourceStream::new(Box::new(stream), <_>::default());
        let options = (FormatOptions::default(), MetadataOptions::default());
        let format = match PROBE.probe(&Hint::new(), stream, options.0, options.1) {
            Ok(format) => format,
            Err(error) => return Err(Failure::File(kinds::unreadable(&file, start, movie.as_ref(), &error)?)),
        };
        let id = format.format_info().format;
        let playing = Playing::start(format.as_ref(), movie.as_ref(), count)?;
        let promise = playing.promise(format.as_ref(), count);
        if promise.is_some_and(|promise| promise > max_duration.as_secs_f64()) {
            return Err(too_long(max_duration));
        }
        let (movie, allowance, output) = (movie.as_ref(), &allowance, &mut output);
        Decoding { format, id, movie, allowance, playing, output, reached: 0.0 }.run(promise)?;
    }
    if output.finish()? == 0 {
        return Err(Failure::File("a recording without a sample".to_owned()));
    }
    Ok(())
}

struct Decoding<'a, 'b> {
    format: Box<dyn FormatReader + 'a>,
    id: FormatId,
    movie: Option<&'a Movie>,
    allowance: &'a Allowance,
    playing: Playing,
    output: &'a mut Output<'b>,
    /// Seconds of the track that there were packets for.
    reached: f64,
}

impl Decoding<'_, '_> {
    fn run(mut self, promise: Option<f64>) -> Result<(), Failure> {
        let (mut bad, mut chained) = (0, 0);
        while !self.playing.timeline.is_over() {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => {
                    self.allowance.renew();
                    packet
                }
                Ok(None) => break,
                Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(Error::ResetRequired) if chained < MAX_CHAINED => {
                    chained += 1;
                    // The tags of those before are not kept.
                    self.format.metadata().skip_to_latest();
                    self.end_of_track()?;
                    self.playing = Playing::start(self.format.as_ref(), self.movie, Count::default())?;
                    continue;
                }
                Err(error @ (Error::DecodeError(_) | Error::IoError(_))) if bad < MAX_BAD_PACKETS => {
                    bad += 1;
                    _ = error;
                    continue;
                }
                Err(error) => return Err(undecodable(&error)),
            };
            if packet.track_id != self.playing.track {
                continue;
            }
            if self.packet(packet)? {
                bad = 0;
            } else {
                bad += 1;
                if bad > MAX_BAD_PACKETS {
                    return Err(undecodable(&"too many broken packets in a row"));
                }
            }
        }
        self.end_of_track()?;
        match promise {
            Some(promise) if self.reached + MISSING_TOLERATED < promise => {
                Err(Failure::File(format!("cut off: {:.1}s of {promise:.1}s are there", self.reached)))
            }
            _ => Ok(()),
        }
    }

    /// Plays a packet; `false` if it is broken.
    fn packet(&mut self, mut packet: Packet) -> Result<bool, Failure> {
        let Self { playing, output, .. } = self;
        let seconds = |ticks: i64| playing.seconds(ticks);
        let begin = seconds(packet.pts.get());
        let length = seconds(packet.block_dur().get().cast_signed());
        // Matroska may begin anywhere.
        let begin = begin - *playing.begin.get_or_insert(if self.id == FORMAT_ID_ISOMP4 { 0.0 } else { begin });
        // What an encoder added at the end is told in the last packet. It is known to be the last when no other comes.
        // Others' demuxers estimate it.
        let added = if self.id == FORMAT_ID_OGG { packet.trim_end.get() } else { 0 };
        let added = usize::try_from(added).unwrap_or(usize::MAX);
        packet.trim_end = <_>::default();
        let timed = [FORMAT_ID_ISOMP4, FORMAT_ID_MKV].contains(&self.id);
        if timed {
            playing.timeline.reach(begin, &mut |played| output.play(&played))?;
        }
        self.reached = if timed { self.reached.max(begin + length) } else { self.reached + length };
        match playing.decoder.decode(&packet) {
            Ok((rate, mono)) => {
                let within = |place: u64| {
                    usize::try_from(place.saturating_sub(playing.frames)).unwrap_or(usize::MAX).min(mono.len())
                };
                let (sound, more) = (&mono[..within(playing.padding.start)], &mono[within(playing.padding.end)..]);
                playing.frames += mono.len() as u64;
                if rate != 0 {
                    output.rate = rate;
                }
                playing.padded = added > 0;
                for sound in [sound, more] {
                    playing.timeline.push(rate, sound, added, &mut |played| output.play(&played))?;
                }
                Ok(true)
            }
            Err(Undecoded::Packet(error)) => {
                playing.timeline.lost += length;
                if playing.timeline.lost > MISSING_TOLERATED {
                    return Err(Failure::File(format!("damaged: more than a second cannot be decoded ({error})")));
                }
                playing.timeline.silence(length, &mut |played| output.play(&played))?;
                Ok(false)
            }
            Err(Undecoded::Track(error)) => Err(Failure::File(error)),
        }
    }

    /// Plays what was held back of the track's end, if that is sound.
    fn end_of_track(&mut self) -> Result<(), Failure> {
        let Self { playing, output, .. } = self;
        playing.timeline.finish(output.rate, playing.padded, &mut |played| output.play(&played))
    }
}

/// Samples on their way out.
struct Output<'a> {
    collector: Collector,
    max_duration: Duration,
    /// That of the sound before, for silence.
    rate: u32,
    heard: &'a mut dyn FnMut(&[i16]) -> io::Result<()>,
}

impl Output<'_> {
    fn play(&mut self, played: &Played<'_>) -> Result<(), Failure> {
        match played {
            Played::Sound(mono) => self.push(mono),
            Played::Silence(seconds) => {
                let rate = if self.rate == 0 { super::SAMPLE_RATE } else { self.rate };
                let most = self.max_duration.as_secs_f64() + 1.0;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "limited, and not negative"
                )]
                let mut frames = (seconds.clamp(0.0, most) * f64::from(rate)).round() as usize;
                self.rate = rate;
                while frames > 0 {
                    let count = frames.min(SILENCE.len());
                    self.push(&SILENCE[..count])?;
                    frames -= count;
                }
                Ok(())
            }
        }
    }

    fn push(&mut self, mono: &[f32]) -> Result<(), Failure> {
        let (rate, max_duration) = (self.rate, self.max_duration);
        self.collector.push(rate, mono).map_err(|full| collecting(full.as_ref(), max_duration))?;
        if self.collector.waiting() >= CHUNK { self.hand_on() } else { Ok(()) }
    }

    /// The number of all samples.
    fn finish(&mut self) -> Result<usize, Failure> {
        let max_duration = self.max_duration;
        self.collector.finish().map_err(|full| collecting(full.as_ref(), max_duration))?;
        self.hand_on()?;
        Ok(self.collector.len())
    }

    fn hand_on(&mut self) -> Result<(), Failure> {
        Ok((self.heard)(&self.collector.take())?)
    }
}

/// The track that is decoded.
struct Playing {
    track: u32,
    decoder: Decoder,
    timeline: Timeline,
    /// Seconds of a tick.
    tick: f64,
    /// When the first packet begins.
    begin: Option<f64>,
    /// Frames so far, as they came out of the decoder.
    frames: u64,
    /// Where among them is what the encoder of MP3 added at the end, by its count.
    padding: Range<u64>,
    /// The end of the last packet is no sound.
    padded: bool,
}

impl Playing {
    /// Begins with the track that a player plays: the first that is on and the default, or else the first that can be
    /// decoded.
    fn start(format: &dyn FormatReader, movie: Option<&Movie>, count: Count) -> Result<Self, Failure> {
        let of_movie = |track: &Track| movie?.tracks.iter().find(|of_movie| of_movie.id == track.id);
        let mut tracks: Vec<&Track> = format.tracks().iter().collect();
        let off = |track: &Track| of_movie(track).is_some_and(|of_movie| !of_movie.enabled);
        tracks.sort_by_key(|track| (off(track), !track.flags.contains(TrackFlags::DEFAULT)));
        let mut refusal = None;
        for track in tracks {
            let Some(CodecParameters::Audio(codec)) = &track.codec_params else { continue };
            let decoder = match Decoder::new(codec) {
                Ok(decoder) => decoder,
                Err(error) => {
                    _ = refusal.get_or_insert((codec.codec, error));
                    continue;
                }
            };
            let edits = of_movie(track).and_then(|of_movie| of_movie.edits.as_deref());
            let mut timeline = match edits.map(Timeline::edited) {
                None => Timeline::default(),
                Some(Ok(timeline)) => timeline,
                Some(Err(OutOfOrder)) => {
                    let text = "an edit list that plays its parts out of order; export it to a new file first";
                    return Err(Failure::File(text.to_owned()));
                }
            };
            let is_mpeg = [CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3].contains(&codec.codec);
            let encoders = if is_mpeg { (track.delay.unwrap_or(0), track.padding.unwrap_or(0)) } else { (0, 0) };
            if edits.is_none() {
                timeline.delay = decoder.delay().max(encoders.0.into());
            }
            let encoders_frames = u64::from(encoders.0) + u64::from(encoders.1);
            let whole = track.num_frames.filter(|_| count.whole).map_or(u64::MAX, |frames| frames + encoders_frames);
            return Ok(Self {
                track: track.id,
                decoder,
                timeline,
                tick: track.time_base.map_or(0.0, |base| f64::from(base.numer.get()) / f64::from(base.denom.get())),
                begin: None,
                frames: 0,
                padding: whole.saturating_sub(encoders.1.into())..whole,
                padded: false,
            });
        }
        let picture = format.tracks().iter().any(|track| matches!(track.codec_params, Some(CodecParameters::Video(_))));
        Err(Failure::File(kinds::without_sound(refusal, movie, picture)))
    }

    #[expect(clippy::cast_precision_loss, reason = "times in seconds")]
    fn seconds(&self, ticks: i64) -> f64 {
        ticks as f64 * self.tick
    }

    /// Seconds of packets that the container says there are, where it is exact.
    fn promise(&self, format: &dyn FormatReader, count: Count) -> Option<f64> {
        let id = format.format_info().format;
        let seconds = if id == FORMAT_ID_MKV {
            // That of the film, if there is one.
            let info = format.media_info();
            let only =
                format.tracks().iter().all(|track| matches!(track.codec_params, Some(CodecParameters::Audio(_))));
            let base = info.time_base.filter(|_| only)?;
            base.calc_duration(info.duration?)?.as_secs_f64()
        } else if count.told
            || [FORMAT_ID_WAVE, FORMAT_ID_AIFF, FORMAT_ID_CAF, FORMAT_ID_FLAC, FORMAT_ID_ISOMP4].contains(&id)
        {
            let track: &Track = format.tracks().iter().find(|candidate| candidate.id == self.track)?;
            track.time_base?.calc_duration(track.duration?)?.as_secs_f64()
        } else {
            return None;
        };
        // Of an edited track less is played, and less of it has to be there.
        let end = self.timeline.end().unwrap_or(f64::INFINITY);
        Some(seconds.min(end)).filter(|seconds| *seconds > 0.0)
    }
}

fn undecodable(error: &dyn std::fmt::Display) -> Failure {
    Failure::File(format!("cannot be decoded: {error}"))
}

fn collecting(full: Option<&Full>, max_duration: Duration) -> Failure {
    match full {
        Some(Full) => too_long(max_duration),
        None => Failure::File("cannot be resampled to 16 kHz".to_owned()),
    }
}

fn too_long(max_duration: Duration) -> Failure {
    Failure::File(format!("longer than {max_duration:?}, which `max_duration` allows"))
}
