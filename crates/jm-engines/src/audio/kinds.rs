//! Kinds of files that cannot be decoded, by the names under which people know them.

use std::{fmt::Display, fs::File, io, os::unix::fs::FileExt};

use symphonia::core::codecs::audio::{
    AudioCodecId,
    well_known::{
        CODEC_ID_AAC, CODEC_ID_AC3, CODEC_ID_AC4, CODEC_ID_DCA, CODEC_ID_EAC3, CODEC_ID_MONKEYS_AUDIO, CODEC_ID_OPUS,
        CODEC_ID_SPEEX, CODEC_ID_TRUEHD, CODEC_ID_TTA, CODEC_ID_WAVPACK, CODEC_ID_WMA,
    },
};

use super::mp4::Movie;

/// What can be decoded, for errors.
pub(super) const FORMATS: &str = "Opus, AAC, MP3, FLAC, ALAC, Vorbis, WAV, AIFF and CAF";
/// As much of a file as tells its kind.
const HEAD_BYTES: usize = 4096;

/// A packet of an MPEG transport stream, and what each begins with.
const TS_PACKET: usize = 188;
const TS_SYNC: u8 = 0x47;

/// Beginnings of files by which they are known, with the place where they stand.
const BEGINNINGS: [(usize, &[u8], &str); 23] = [
    (28, b"Speex   ", "Speex"),
    (0, b"#!AMR-WB", "AMR-WB"),
    (0, b"#!AMR", "AMR"),
    (0, b"\x02#!SILK_V3", "SILK (a WeChat voice message)"),
    (0, b"#!SILK_V3", "SILK"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA or WMV (ASF)"),
    (0, b".snd", "Sun audio"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "TTA"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b".RMF", "RealMedia"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"FLV\x01", "Flash video"),
    (0, b"MThd", "MIDI, which is notes and no recording"),
    (0, b"Creative Voice File", "Creative Voice"),
    (0, b"riff\x2e\x91\xcf\x11", "Wave64"),
    (0, b"DSD ", "DSD"),
    (0, b"ADIF", "AAC in ADIF"),
    (0, b"\x0b\x77", "AC-3"),
    (8, b"AVI ", "AVI"),
    (0, b"caff", "CAF of an unknown kind"),
];

/// Boxes of MP4 by which a codec is known that cannot be decoded.
const BOXES: [(&[u8; 4], &str); 10] = [
    (b"samr", "AMR"),
    (b"sawb", "AMR-WB"),
    (b"sawp", "AMR-WB+"),
    (b"ac-3", "AC-3"),
    (b"ec-3", "E-AC-3"),
    (b"ac-4", "AC-4"),
    (b"dtsc", "DTS"),
    (b"QDM2", "QDesign Music"),
    (b"agsm", "GSM"),
    (b"mha1", "MPEG-H"),
];

/// What the first frame of an MP3 file says of the others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    /// Their number.
    pub(super) told: bool,
    /// Nothing was joined to them, and nothing cut off: the file is as long as it says.
    pub(super) whole: bool,
}

impl Count {
    pub(super) fn read(file: &File, start: u64) -> io::Result<Self> {
        let head = head(file, start)?;
        let is_frame = head.first() == Some(&0xFF) && head.get(1).is_some_and(|byte| byte & 0xE0 == 0xE0);
        // Behind the frame's header and what depends on its channels.
        let names = head.get(4..44).filter(|_| is_frame).unwrap_or_default().windows(4);
        let found = |name: &[u8]| [b"Xing", b"Info", b"VBRI"].iter().any(|tag| name == *tag);
        let Some(tag) = names.clone().position(found) else { return Ok(Self::default()) };
        // Flags, the number of frames, the number of bytes.
        let number = |place: usize| head.get(4 + tag + place..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let bytes = number(12).filter(|_| number(4).is_some_and(|flags| flags & 3 == 3)).map(u64::from);
        let there = file.metadata()?.len() - start;
        let whole = bytes.is_none_or(|bytes| bytes.abs_diff(there) <= bytes.min(there) / 16);
        Ok(Self { told: true, whole })
    }
}

/// A file whose format nothing here can read.
pub(super) fn unreadable(file: &File, start: u64, movie: Option<&Movie>, error: &dyn Display) -> io::Result<String> {
    if movie.is_some_and(|movie| movie.tracks.is_empty()) {
        return Ok("cut off before its index; send the whole file".to_owned());
    }
    let head = head(file, start)?;
    if (0..4).all(|packet| head.get(packet * TS_PACKET) == Some(&TS_SYNC)) {
        return Ok(cannot("MPEG transport stream"));
    }
    let known = |(place, beginning, name): &(usize, &[u8], &'static str)| {
        head.get(*place..)?.starts_with(beginning).then_some(*name)
    };
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WAVE") {
        return Ok(format!("WAV of a kind that cannot be decoded ({error}); {}", remedy()));
    }
    Ok(match BEGINNINGS.iter().find_map(known) {
        Some(name) => cannot(name),
        None => format!("not a recording that can be read ({error}); {FORMATS} can"),
    })
}

/// A file none of whose tracks can be decoded, by the first one that was refused.
pub(super) fn without_sound(
    refusal: Option<(AudioCodecId, String)>,
    movie: Option<&Movie>,
    has_picture: bool,
) -> String {
    let tracks = movie.map_or(&[][..], |movie| &movie.tracks);
    let mut sound = tracks.iter().filter(|track| &track.kind == b"soun");
    if sound.clone().any(|track| &track.codec == b"enca") {
        return "the recording is encrypted; send a copy without copy protection".to_owned();
    }
    let of_movie = sound.find_map(|track| {
        let known = |(name, _): &&(&[u8; 4], &str)| **name == track.codec;
        BOXES.iter().find(known).map(|(_, name)| *name)
    });
    if let Some(name) = of_movie {
        return cannot(name);
    }
    match refusal {
        Some((codec, error)) => match name(codec) {
            Some(name) => format!("{name} cannot be decoded ({error}); {}", remedy()),
            None => format!("its codec cannot be decoded ({error}); {}", remedy()),
        },
        None if has_picture || tracks.iter().any(|track| &track.kind == b"vide") => {
            "the file has a picture and no sound; send a recording with sound".to_owned()
        }
        None => format!("no sound in the file that can be decoded; {}", remedy()),
    }
}

fn cannot(name: &str) -> String {
    format!("{name} cannot be decoded; {}", remedy())
}

fn remedy() -> String {
    format!("convert it to one that can: {FORMATS}")
}

fn name(codec: AudioCodecId) -> Option<&'static str> {
    Some(match codec {
        CODEC_ID_AAC => "AAC of this profile",
        CODEC_ID_OPUS => "Opus",
        CODEC_ID_SPEEX => "Speex",
        CODEC_ID_AC3 => "AC-3",
        CODEC_ID_AC4 => "AC-4",
        CODEC_ID_EAC3 => "E-AC-3",
        CODEC_ID_DCA => "DTS",
        CODEC_ID_TRUEHD => "TrueHD",
        CODEC_ID_WMA => "WMA",
        CODEC_ID_WAVPACK => "WavPack",
        CODEC_ID_MONKEYS_AUDIO => "Monkey's Audio",
        CODEC_ID_TTA => "TTA",
        _ => return None,
    })
}

fn head(file: &File, start: u64) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES];
    let mut length = 0;
    while length < head.len() {
        match file.read_at(&mut head[length..], start + length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    head.truncate(length);
    Ok(head)
}
