//! Real files of every format.

use std::{io::Cursor, path::PathBuf, time::Duration};

use jm_engines::{
    EngineError, ErrorClass,
    audio::{Audio, AudioOptions},
};

use crate::sources::fetch;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

async fn fixture(name: &str, options: AudioOptions) -> Result<Audio, EngineError> {
    let options = AudioOptions { folder: Some(fixtures()), ..options };
    fetch(&options, &format!("file://{}/{name}", fixtures().display())).await
}

/// Decodes bytes that are in a file.
pub(crate) async fn decoded(bytes: &[u8], options: AudioOptions) -> Result<Audio, EngineError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), bytes).unwrap();
    let options = AudioOptions { folder: Some(folder.path().into()), ..options };
    fetch(&options, &format!("file://{}/f", folder.path().display())).await
}

/// A WAV file of a tone.
fn wav(spec: hound::WavSpec, seconds: f64) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    let rate = f64::from(spec.sample_rate);
    for n in 0..(seconds * rate) as u32 {
        let sample = (f64::from(n) * 440.0 / rate * std::f64::consts::TAU).sin() * 0.5;
        for _ in 0..spec.channels {
            match spec.sample_format {
                hound::SampleFormat::Float => writer.write_sample(sample as f32).unwrap(),
                hound::SampleFormat::Int => {
                    let full = f64::from(1 << (spec.bits_per_sample - 1));
                    writer.write_sample((sample * full) as i32).unwrap();
                }
            }
        }
    }
    writer.finalize().unwrap();
    file.into_inner()
}

/// The tone's frequency by its zero crossings, away from the ends, and its peak.
fn tone(audio: &Audio) -> (f64, i16) {
    let samples = &audio.samples()[1600..audio.samples().len() - 3200];
    let crossings = samples.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count();
    (crossings as f64 / 2.0 / (samples.len() as f64 / 16_000.0), *samples.iter().max().unwrap())
}

fn check(name: &str, audio: &Audio, seconds: f64, loudest: f64) {
    let length = audio.duration().as_secs_f64();
    assert!((length - seconds).abs() < 0.06, "{name}: {length} s");
    let (frequency, peak) = tone(audio);
    assert!((frequency - 440.0).abs() < 5.0, "{name}: {frequency} Hz");
    // Mixed down by the mean it is as loud as it was.
    assert!((f64::from(peak) / 32768.0 - loudest).abs() < 0.06, "{name}: {peak}");
}

#[tokio::test]
async fn files_of_every_format_are_decoded_to_16_khz_mono() {
    for name in [
        "tone.mp3",
        "tone-id3.mp3",
        "tone.m4a",
        "tone-alac.m4a",
        "tone.aac",
        "tone.flac",
        "tone.ogg",
        "tone.opus",
        "tone.webm",
    ] {
        let audio = fixture(name, AudioOptions::default()).await.unwrap_or_else(|error| panic!("{error}"));
        check(name, &audio, 1.0, 0.35);
    }
}

#[tokio::test]
async fn wav_files_of_every_rate_and_depth_are_decoded() {
    let int = hound::SampleFormat::Int;
    for (sample_rate, channels, bits_per_sample, sample_format) in [
        (8000, 1, 16, int),
        (16_000, 1, 16, int),
        (44_100, 2, 16, int),
        (48_000, 6, 24, int),
        (96_000, 2, 32, int),
        (22_050, 1, 32, hound::SampleFormat::Float),
        (44_100, 1, 8, int),
    ] {
        let spec = hound::WavSpec { channels, sample_rate, bits_per_sample, sample_format };
        let audio = decoded(&wav(spec, 1.5), AudioOptions::default()).await.unwrap_or_else(|error| panic!("{error}"));
        check(&format!("{spec:?}"), &audio, 1.5, 0.5);
        assert_eq!(audio.samples().len(), 24_000, "{spec:?}");
    }
}

#[tokio::test]
async fn a_recording_longer_than_allowed_is_permanent_whether_its_header_says_so_or_not() {
    let options = AudioOptions { max_duration: Duration::from_secs(2), ..AudioOptions::default() };
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 44_100,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    assert!(decoded(&wav(spec, 1.9), options.clone()).await.is_ok());
    let mut long = wav(spec, 2.1);
    for streamed in [false, true] {
        if streamed {
            long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
            long[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
        }
        let error = decoded(&long, options.clone()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent);
        assert!(error.to_string().contains("longer than 2s, which `max_duration` allows"), "{error}");
    }
    // The same header, which a recorder leaves that does not know the length beforehand, is no error in itself.
    check("streamed", &decoded(&long, AudioOptions::default()).await.unwrap(), 2.1, 0.5);
}

#[tokio::test]
async fn a_wav_file_whose_length_was_left_open_is_decoded_to_its_end() {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 44_100,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let file = wav(spec, 2.0);
    for (riff, data) in [
        (0x7FFF_FFFF, 0x7FFF_FFFF),
        (0x7FFF_F024, 0x7FFF_F000),
        (0x8000_0024, 0x8000_0000),
        (0xFFFF_FFFF, 0xFFFF_FFDB),
        (u32::MAX, u32::MAX),
        (u32::MAX, 0),
        (36, 0),
        (0, 0),
        // The recorder went back to one of them only.
        (0, 176_400),
        (176_436, u32::MAX),
        (0x7FFF_FFFF, 176_400),
    ] {
        let mut open = file.clone();
        open[4..8].copy_from_slice(&u32::to_le_bytes(riff));
        open[40..44].copy_from_slice(&u32::to_le_bytes(data));
        let audio = decoded(&open, AudioOptions::default()).await.unwrap_or_else(|error| panic!("{data:x}: {error}"));
        assert_eq!(audio.samples().len(), 32_000, "{riff:x} {data:x}");
    }
}

#[tokio::test]
async fn covers_of_16_mib_are_passed_over() {
    // Bytes that no search for the beginning of MP3's frames must see.
    let cover = vec![0xFF; 16 * 1024 * 1024];
    let syncsafe = |length: usize| [21, 14, 7, 0].map(|bits| (length >> bits & 0x7f) as u8);
    let frame = [&b"APIC"[..], &syncsafe(cover.len()), b"\0\0", &cover].concat();
    let tag = [&b"ID3\x04\0\0"[..], &syncsafe(frame.len()), &frame].concat();
    let picture = [&[6][..], &(0xFF_FFFF_u32.to_be_bytes())[1..], &cover[1..]].concat();
    for name in ["tone.mp3", "tone.aac", "tone.flac"] {
        let file = std::fs::read(fixtures().join(name)).unwrap();
        check(name, &decoded(&[&tag[..], &file].concat(), AudioOptions::default()).await.unwrap(), 1.0, 0.35);
        if name == "tone.flac" {
            let file = [&file[..4], &[file[4] & 0x7f], &file[5..42], &picture, &file[42..]].concat();
            check("picture", &decoded(&file, AudioOptions::default()).await.unwrap(), 1.0, 0.35);
        }
    }
}

#[tokio::test]
async fn a_recording_that_is_cut_off_is_permanent() {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let whole = wav(spec, 6.0);
    let error = decoded(&whole[..whole.len() / 2], AudioOptions::default()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Permanent);
    assert!(error.to_string().contains("cut off: 3.0s of 6.0s are there"), "{error}");
    // The last moment is often missing, and no loss.
    check("short", &decoded(&whole[..whole.len() - 10_000], AudioOptions::default()).await.unwrap(), 5.69, 0.5);
}
