//! Kinds of files that people have, and how each is made of the same speech.

/// One kind.
pub(crate) struct Kind {
    /// What it is called in the documentation.
    pub(crate) name: &'static str,
    /// How its file is called, by which ffmpeg knows the format.
    pub(crate) file: &'static str,
    /// Shell commands that make it of `$S`, the speech, at `$O`. `f` is ffmpeg.
    pub(crate) script: &'static str,
    pub(crate) outcome: Outcome,
}

/// What becomes of it.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    /// The same as ffmpeg makes of it.
    Decoded,
    /// The same as ffmpeg makes of it with these options, where its own are not what a player does.
    DecodedLike(&'static str),
    /// A permanent error with this in it.
    Refused(&'static str),
}

use Outcome::{Decoded, DecodedLike, Refused};

const fn kind(name: &'static str, file: &'static str, script: &'static str, outcome: Outcome) -> Kind {
    Kind { name, file, script, outcome }
}

const fn decoded(name: &'static str, file: &'static str, script: &'static str) -> Kind {
    kind(name, file, script, Decoded)
}

/// A pause in the times of a file's packets, which ffmpeg closes unless it is asked to keep it.
const PAUSES_KEPT: Outcome = DecodedLike("-af aresample=async=1:min_hard_comp=0.1:first_pts=0");

pub(crate) const KINDS: &[Kind] = &[
    // WAV
    decoded("WAV, 8 bits, 8 kHz", "a.wav", "f -i $S -ar 8000 -c:a pcm_u8 $O"),
    decoded("WAV, 16 bits, 8 kHz", "a.wav", "f -i $S -ar 8000 $O"),
    decoded("WAV, 16 bits, 11.025 kHz", "a.wav", "f -i $S -ar 11025 $O"),
    decoded("WAV, 16 bits, 16 kHz", "a.wav", "f -i $S $O"),
    decoded("WAV, 16 bits, 22.05 kHz", "a.wav", "f -i $S -ar 22050 $O"),
    decoded("WAV, 16 bits, 32 kHz", "a.wav", "f -i $S -ar 32000 $O"),
    decoded("WAV, 16 bits, 44.1 kHz, stereo", "a.wav", "f -i $S -ar 44100 -ac 2 $O"),
    decoded("WAV, 16 bits, 48 kHz, 5.1", "a.wav", "f -i $S -ar 48000 -ac 6 $O"),
    decoded("WAV, 24 bits, 48 kHz", "a.wav", "f -i $S -ar 48000 -c:a pcm_s24le $O"),
    decoded("WAV, 24 bits, 96 kHz, stereo", "a.wav", "f -i $S -ar 96000 -ac 2 -c:a pcm_s24le $O"),
    decoded("WAV, 32 bits, 44.1 kHz", "a.wav", "f -i $S -ar 44100 -c:a pcm_s32le $O"),
    decoded("WAV, 32 bits, floating", "a.wav", "f -i $S -ar 44100 -c:a pcm_f32le $O"),
    decoded("WAV, 64 bits, floating", "a.wav", "f -i $S -c:a pcm_f64le $O"),
    decoded("WAV, A-law, 8 kHz", "a.wav", "f -i $S -ar 8000 -c:a pcm_alaw $O"),
    decoded("WAV, µ-law, 8 kHz", "a.wav", "f -i $S -ar 8000 -c:a pcm_mulaw $O"),
    decoded("WAV, ADPCM of Microsoft", "a.wav", "f -i $S -ar 22050 -c:a adpcm_ms $O"),
    decoded("WAV, ADPCM of IMA", "a.wav", "f -i $S -ar 22050 -c:a adpcm_ima_wav $O"),
    decoded("WAV with tags", "a.wav", "f -i $S -metadata title=t -metadata artist=a $O"),
    decoded("WAV in its long form (RF64)", "a.wav", "f -i $S -rf64 always $O"),
    decoded("WAV whose length was left open", "a.wav", "f -i $S -f wav - | cat >$O"),
    kind(
        "WAV, GSM 6.10",
        "a.wav",
        "f -i $S -ar 8000 -c:a libgsm_ms $O",
        Refused("WAV of a kind that cannot be decoded"),
    ),
    kind("WAV, cut off", "a.wav", "f -i $S b.wav; head -c 50000 b.wav >$O", Refused("cut off")),
    kind("Wave64", "a.w64", "f -i $S $O", Refused("Wave64 cannot be decoded; convert it")),
    // AIFF, CAF, AU
    decoded("AIFF, 16 bits", "a.aiff", "f -i $S $O"),
    decoded("AIFF, 24 bits, 48 kHz, stereo", "a.aiff", "f -i $S -ar 48000 -ac 2 -c:a pcm_s24be $O"),
    decoded("AIFF-C, little endian (macOS)", "a.aiff", "f -i $S -c:a pcm_s16le $O"),
    decoded("AIFF-C, 32 bits, floating", "a.aiff", "f -i $S -c:a pcm_f32be $O"),
    decoded("CAF, 16 bits", "a.caf", "f -i $S -c:a pcm_s16le $O"),
    decoded("CAF, 16 bits, big endian, 44.1 kHz, stereo", "a.caf", "f -i $S -ar 44100 -ac 2 -c:a pcm_s16be $O"),
    decoded("CAF, 32 bits, floating", "a.caf", "f -i $S -c:a pcm_f32le $O"),
    kind("Sun audio", "a.au", "f -i $S $O", Refused("Sun audio cannot be decoded; convert it")),
    // MPEG
    decoded("MP2, 16 kHz (dictation machines)", "a.mp2", "f -i $S -ar 16000 -b:a 64k $O"),
    decoded("MP2, 48 kHz, stereo", "a.mp2", "f -i $S -ar 48000 -ac 2 -b:a 192k $O"),
    decoded("MP3, 8 kHz", "a.mp3", "f -i $S -ar 8000 -b:a 16k $O"),
    decoded("MP3, 11.025 kHz", "a.mp3", "f -i $S -ar 11025 -b:a 24k $O"),
    decoded("MP3, 12 kHz", "a.mp3", "f -i $S -ar 12000 -b:a 24k $O"),
    decoded("MP3, 16 kHz", "a.mp3", "f -i $S -ar 16000 -b:a 32k $O"),
    decoded("MP3, 22.05 kHz, stereo", "a.mp3", "f -i $S -ar 22050 -ac 2 -b:a 64k $O"),
    decoded("MP3, 24 kHz", "a.mp3", "f -i $S -ar 24000 -b:a 48k $O"),
    decoded("MP3, 32 kHz", "a.mp3", "f -i $S -ar 32000 -b:a 64k $O"),
    decoded("MP3, 44.1 kHz, stereo", "a.mp3", "f -i $S -ar 44100 -ac 2 -b:a 128k $O"),
    decoded("MP3, 48 kHz", "a.mp3", "f -i $S -ar 48000 -b:a 96k $O"),
    decoded("MP3, variable rate", "a.mp3", "f -i $S -ar 44100 -q:a 5 $O"),
    decoded(
        "MP3, constant rate, without a header",
        "a.mp3",
        "f -i $S -ar 44100 -b:a 64k -write_xing 0 -id3v2_version 0 $O",
    ),
    decoded(
        "MP3, variable rate, without a header",
        "a.mp3",
        "f -i $S -ar 44100 -q:a 5 -write_xing 0 -id3v2_version 0 $O",
    ),
    decoded("MP3 with ID3 tags before and behind", "a.mp3", "f -i $S -b:a 32k -metadata title=t -write_id3v1 1 $O"),
    decoded(
        "MP3 with a cover",
        "a.mp3",
        "f -f lavfi -i color=red:size=64x64 -frames:v 1 c.png; f -i $S -i c.png -map 0 -map 1 -c:v copy -b:a 32k $O",
    ),
    decoded(
        "MP3, cut out of a longer one",
        "a.mp3",
        "f -i $S -ar 44100 -q:a 5 -write_xing 0 -id3v2_version 0 b.mp3; tail -c +9000 b.mp3 | head -c 18000 >$O",
    ),
    decoded(
        "MP3 whose header counts too few frames",
        "a.mp3",
        "f -i $S -ar 44100 -q:a 5 -id3v2_version 0 b.mp3; perl -0777 -pe 's/(Xing|Info)(....)..../$1$2\\0\\0\\0\\x14/s' b.mp3 >$O",
    ),
    decoded("MP3, two joined", "a.mp3", "f -i $S -b:a 32k -id3v2_version 0 b.mp3; cat b.mp3 b.mp3 >$O"),
    decoded(
        "MP3, two of different rates joined",
        "a.mp3",
        "f -i $S -ar 44100 -ac 2 -b:a 64k -write_xing 0 -id3v2_version 0 b.mp3; f -i $S -ar 48000 -b:a 64k -write_xing 0 -id3v2_version 0 c.mp3; cat b.mp3 c.mp3 >$O",
    ),
    kind(
        "MP3, cut off",
        "a.mp3",
        "f -i $S -ar 44100 -b:a 64k -id3v2_version 0 b.mp3; head -c 10000 b.mp3 >$O",
        Refused("cut off"),
    ),
    // AAC
    decoded("AAC, 8 kHz", "a.aac", "f -i $S -ar 8000 -b:a 16k $O"),
    decoded("AAC, 16 kHz", "a.aac", "f -i $S -ar 16000 -b:a 32k $O"),
    decoded("AAC, 44.1 kHz, stereo", "a.aac", "f -i $S -ar 44100 -ac 2 -b:a 96k $O"),
    decoded("AAC, 48 kHz", "a.aac", "f -i $S -ar 48000 -b:a 64k $O"),
    decoded(
        "AAC, two of different rates joined",
        "a.aac",
        "f -i $S -ar 44100 -ac 2 -b:a 64k b.aac; f -i $S -ar 16000 -b:a 32k c.aac; cat b.aac c.aac >$O",
    ),
    kind("M4A, AAC, 8 kHz", "a.m4a", "f -i $S -ar 8000 -b:a 16k $O", DecodedLike("-t 2.99")),
    decoded("M4A, AAC, 16 kHz", "a.m4a", "f -i $S -ar 16000 -b:a 32k $O"),
    decoded("M4A, AAC, 22.05 kHz", "a.m4a", "f -i $S -ar 22050 -b:a 32k $O"),
    decoded("M4A, AAC, 24 kHz", "a.m4a", "f -i $S -ar 24000 -b:a 32k $O"),
    decoded("M4A, AAC, 32 kHz", "a.m4a", "f -i $S -ar 32000 -b:a 48k $O"),
    decoded("M4A, AAC, 44.1 kHz, stereo", "a.m4a", "f -i $S -ar 44100 -ac 2 -b:a 96k $O"),
    decoded("M4A, AAC, 48 kHz (phones)", "a.m4a", "f -i $S -ar 48000 -b:a 64k $O"),
    kind(
        "M4A, AAC 5.1",
        "a.m4a",
        "f -i $S -ar 48000 -ac 6 -b:a 256k $O",
        Refused("AAC of this profile cannot be decoded ("),
    ),
    decoded(
        "M4A, HE-AAC told before",
        "a.m4a",
        "f -i $S -ar 22050 -b:a 32k b.m4a; perl -0777 -pe 's/\\x05\\x80\\x80\\x80\\x05\\x13\\x88\\x56\\xe5\\x00/\\x05\\x80\\x80\\x80\\x05\\x2b\\x8a\\x08\\x00\\x00/' b.m4a >$O",
    ),
    decoded("M4A whose index comes first", "a.m4a", "f -i $S -b:a 32k -movflags +faststart $O"),
    decoded(
        "M4A in fragments",
        "a.mp4",
        "f -i $S -b:a 32k -movflags empty_moov+default_base_moof -frag_duration 500000 $O",
    ),
    decoded(
        "M4A in fragments with a segment index",
        "a.mp4",
        "f -i $S -b:a 32k -movflags dash -frag_duration 500000 $O",
    ),
    decoded(
        "M4A, trimmed by an edit list",
        "a.m4a",
        "f -i $S -ar 48000 -b:a 64k b.m4a; f -ss 1 -t 1.5 -i b.m4a -c copy $O",
    ),
    kind(
        "M4A with a pause in its times",
        "a.m4a",
        "f -i $S -ar 48000 -b:a 64k b.m4a; f -i b.m4a -c copy -bsf:a 'setts=ts=if(gt(N\\,50)\\,PTS+96000\\,PTS)' $O",
        PAUSES_KEPT,
    ),
    kind(
        "M4A whose first track is off",
        "a.m4a",
        "f -f lavfi -i anullsrc=r=44100:cl=mono -i $S -map 0 -map 1 -t 2.9 -c:a aac -ar 44100 -disposition:a:0 0 -disposition:a:1 default $O",
        DecodedLike("-map 0:a:1"),
    ),
    decoded("3GP, AAC", "a.3gp", "f -i $S -ar 16000 -c:a aac -b:a 32k $O"),
    decoded("MOV, AAC", "a.mov", "f -i $S -ar 44100 -c:a aac -b:a 64k $O"),
    decoded("MOV, 16 bits", "a.mov", "f -i $S -c:a pcm_s16le $O"),
    decoded("MOV, 16 bits, big endian, stereo", "a.mov", "f -i $S -ac 2 -ar 44100 -c:a pcm_s16be $O"),
    decoded("MP4, MP3", "a.mp4", "f -i $S -ar 44100 -c:a libmp3lame -b:a 64k $O"),
    decoded(
        "MP4 with a picture, AAC",
        "a.mp4",
        "f -f lavfi -i testsrc=size=64x64:rate=5 -i $S -shortest -c:v mpeg4 -c:a aac -b:a 32k $O",
    ),
    kind(
        "MP4 with a picture alone",
        "a.mp4",
        "f -f lavfi -i testsrc=size=64x64:rate=5 -t 2 -c:v mpeg4 $O",
        Refused("a picture and no sound"),
    ),
    kind(
        "MP4, encrypted",
        "a.mp4",
        "f -i $S -c:a aac -b:a 32k -encryption_scheme cenc-aes-ctr -encryption_key 76a6c65c5ea762046bd749a2e632ccbb -encryption_kid a7e61c373e219033c21091fa607bf3b8 $O",
        Refused("the recording is encrypted"),
    ),
    kind(
        "M4A, cut off",
        "a.m4a",
        "f -i $S -b:a 64k -movflags +faststart b.m4a; head -c 12000 b.m4a >$O",
        Refused("cut off"),
    ),
    kind(
        "M4A, cut off before its index",
        "a.m4a",
        "f -i $S -b:a 64k b.m4a; head -c 12000 b.m4a >$O",
        Refused("cut off before its index"),
    ),
    kind("MP4, AC-3", "a.mp4", "f -i $S -ar 48000 -c:a ac3 $O", Refused("AC-3 cannot be decoded; convert it")),
    kind(
        "MPEG transport stream",
        "a.ts",
        "f -i $S -c:a aac $O",
        Refused("MPEG transport stream cannot be decoded; convert it"),
    ),
    // ALAC, FLAC
    decoded("M4A, ALAC", "a.m4a", "f -i $S -c:a alac $O"),
    decoded("M4A, ALAC, 24 bits, 48 kHz, stereo", "a.m4a", "f -i $S -ar 48000 -ac 2 -c:a alac -sample_fmt s32p $O"),
    decoded("CAF, ALAC", "a.caf", "f -i $S -c:a alac $O"),
    decoded("FLAC, 16 kHz", "a.flac", "f -i $S $O"),
    decoded("FLAC, 44.1 kHz, stereo", "a.flac", "f -i $S -ar 44100 -ac 2 $O"),
    decoded("FLAC, 24 bits, 96 kHz", "a.flac", "f -i $S -ar 96000 -sample_fmt s32 $O"),
    decoded(
        "FLAC with a cover",
        "a.flac",
        "f -f lavfi -i color=red:size=64x64 -frames:v 1 c.png; f -i $S -i c.png -map 0 -map 1 -c:v copy -disposition:v attached_pic $O",
    ),
    decoded("Ogg, FLAC", "a.oga", "f -i $S -c:a flac $O"),
    decoded("MP4, FLAC", "a.mp4", "f -i $S -c:a flac -strict -2 $O"),
    decoded("Matroska, FLAC", "a.mka", "f -i $S -c:a flac $O"),
    kind("FLAC, cut off", "a.flac", "f -i $S -ar 44100 b.flac; head -c 20000 b.flac >$O", Refused("cut off")),
    // Vorbis
    decoded("Ogg, Vorbis, 16 kHz", "a.ogg", "f -i $S -ar 16000 -c:a libvorbis $O"),
    decoded("Ogg, Vorbis, 44.1 kHz, stereo", "a.ogg", "f -i $S -ar 44100 -ac 2 -c:a libvorbis -q:a 3 $O"),
    decoded(
        "Ogg, two Vorbis recordings joined",
        "a.ogg",
        "f -i $S -ar 16000 -c:a libvorbis b.ogg; f -i $S -ar 16000 -c:a libvorbis -serial_offset 7 c.ogg; cat b.ogg c.ogg >$O",
    ),
    decoded("WebM, Vorbis", "a.webm", "f -i $S -ar 48000 -c:a libvorbis $O"),
    // Opus
    decoded("Ogg, Opus, 12 kbit/s", "a.ogg", "f -i $S -c:a libopus -b:a 12k -application voip $O"),
    decoded("Ogg, Opus, 16 kbit/s (messengers)", "a.ogg", "f -i $S -c:a libopus -b:a 16k -application voip $O"),
    decoded("Ogg, Opus, 24 kbit/s, frames of 60 ms", "a.oga", "f -i $S -c:a libopus -b:a 24k -frame_duration 60 $O"),
    decoded("Ogg, Opus, 32 kbit/s, stereo", "a.opus", "f -i $S -ac 2 -c:a libopus -b:a 32k $O"),
    decoded(
        "Ogg, Opus, 64 kbit/s, frames of 2.5 ms",
        "a.opus",
        "f -i $S -c:a libopus -b:a 64k -frame_duration 2.5 -application lowdelay $O",
    ),
    decoded("Ogg, Opus, 128 kbit/s, stereo", "a.opus", "f -i $S -ac 2 -c:a libopus -b:a 128k $O"),
    decoded("Ogg, Opus, frames of 120 ms", "a.opus", "f -i $S -c:a libopus -b:a 48k -frame_duration 120 $O"),
    decoded(
        "Ogg, Opus, with redundancy",
        "a.opus",
        "f -i $S -c:a libopus -b:a 20k -application voip -fec 1 -packet_loss 20 $O",
    ),
    kind(
        "Ogg, Opus 5.1",
        "a.opus",
        "f -i $S -ar 48000 -ac 6 -c:a libopus -mapping_family 1 -b:a 192k $O",
        Refused("Opus cannot be decoded (6 channels"),
    ),
    decoded(
        "Ogg, Opus, cut off",
        "a.opus",
        "f -i $S -c:a libopus -b:a 32k -page_duration 200000 b.opus; head -c 8000 b.opus >$O",
    ),
    decoded("WebM, Opus", "a.webm", "f -i $S -c:a libopus -b:a 32k $O"),
    decoded("WebM, Opus, live (browsers)", "a.webm", "f -i $S -c:a libopus -b:a 32k -live 1 -f webm - | cat >$O"),
    decoded(
        "WebM with a picture, Opus",
        "a.webm",
        "f -f lavfi -i testsrc=size=64x64:rate=5 -i $S -shortest -c:v libvpx -b:v 50k -c:a libopus -b:a 32k $O",
    ),
    kind(
        "WebM, Opus, with a pause in its times",
        "a.webm",
        "f -i $S -c:a libopus -b:a 32k b.webm; f -i b.webm -c copy -bsf:a 'setts=ts=if(gt(N\\,60)\\,PTS+1500\\,PTS)' $O",
        PAUSES_KEPT,
    ),
    decoded("Matroska, Opus", "a.mka", "f -i $S -c:a libopus -b:a 32k $O"),
    decoded("MP4, Opus", "a.mp4", "f -i $S -c:a libopus -b:a 32k $O"),
    decoded("CAF, Opus (iOS)", "a.caf", "f -i $S -ar 48000 -c:a libopus -b:a 32k $O"),
    decoded("Matroska, AAC", "a.mka", "f -i $S -ar 44100 -c:a aac -b:a 64k $O"),
    decoded("Matroska, MP3", "a.mka", "f -i $S -ar 44100 -c:a libmp3lame -b:a 64k $O"),
    decoded("Matroska, 16 bits", "a.mka", "f -i $S -c:a pcm_s16le $O"),
    kind(
        "Matroska with a picture alone",
        "a.mkv",
        "f -f lavfi -i testsrc=size=64x64:rate=5 -t 2 -c:v mpeg4 $O",
        Refused("a picture and no sound"),
    ),
    kind("Matroska, AC-3", "a.mka", "f -i $S -ar 48000 -c:a ac3 $O", Refused("AC-3 cannot be decoded")),
    // What is left
    kind("AMR", "a.amr", "sox $S -r 8000 -c 1 -t amr-nb $O", Refused("AMR cannot be decoded; convert it")),
    kind("AMR-WB", "a.awb", "printf '#!AMR-WB\\n\\004' >$O", Refused("AMR-WB cannot be decoded; convert it")),
    kind("Ogg, Speex", "a.spx", "f -i $S -c:a libspeex $O", Refused("Speex cannot be decoded; convert it")),
    kind("WMA", "a.wma", "f -i $S -ar 44100 -c:a wmav2 $O", Refused("WMA or WMV (ASF) cannot be decoded; convert it")),
    kind("AC-3", "a.ac3", "f -i $S -ar 48000 $O", Refused("AC-3 cannot be decoded; convert it")),
    kind("WavPack", "a.wv", "f -i $S -c:a wavpack $O", Refused("WavPack cannot be decoded; convert it")),
    kind("TTA", "a.tta", "f -i $S $O", Refused("TTA cannot be decoded; convert it")),
    kind("AVI", "a.avi", "f -i $S -ar 44100 -c:a libmp3lame $O", Refused("AVI cannot be decoded; convert it")),
    kind(
        "Flash video",
        "a.flv",
        "f -i $S -ar 44100 -c:a libmp3lame $O",
        Refused("Flash video cannot be decoded; convert it"),
    ),
    kind(
        "SILK (WeChat)",
        "a.silk",
        "printf '\\002#!SILK_V3\\014\\000' >$O",
        Refused("SILK (a WeChat voice message) cannot be decoded; convert it"),
    ),
    kind(
        "A web page",
        "a.html",
        "printf '<!doctype html><title>Not found</title>' >$O",
        Refused("not a recording that can be read"),
    ),
];
