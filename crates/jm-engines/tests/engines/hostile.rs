//! Files and servers that mean harm: an error within bounds, never a panic.

use std::{
    fs,
    time::{Duration, Instant},
};

use jm_engines::{ErrorClass, audio::AudioOptions};
use jm_testkit::{HttpResponse, HttpServer};
use nix::sys::resource::{UsageWho, getrusage};
use proptest::{
    collection::vec,
    prelude::{ProptestConfig, any},
    test_runner::TestRunner,
};

use crate::{
    decoding::decoded,
    sources::{fails, loopback, wav},
};

fn fixtures() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let names =
        ["tone.mp3", "tone-id3.mp3", "tone.m4a", "tone-alac.m4a", "tone.aac", "tone.flac", "tone.ogg", "tone.webm"];
    names.iter().map(|name| fs::read(format!("{folder}/{name}")).unwrap()).chain([wav()]).collect()
}

/// What may become of any file: at most its own length, or a permanent error, soon.
async fn harmless(bytes: &[u8]) {
    let begin = Instant::now();
    match decoded(bytes, AudioOptions::default()).await {
        Ok(audio) => assert!(audio.duration() < Duration::from_mins(1)),
        // A decoder's panic, should there be one, is caught, and one of these.
        Err(error) => assert_eq!(error.class(), ErrorClass::Permanent, "{error}"),
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn truncated_files_are_harmless() {
    for file in fixtures() {
        for tenth in 0..10 {
            harmless(&file[..file.len() * tenth / 10]).await;
        }
        for length in [1, 3, 11, 43, 44, 45] {
            harmless(&file[..length]).await;
        }
    }
}

#[test]
fn random_bytes_and_damaged_files_are_harmless() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases: 60, failure_persistence: None, ..<_>::default() });
    runner
        .run(&vec(any::<u8>(), 0..4000), |bytes| {
            runtime.block_on(harmless(&bytes));
            Ok(())
        })
        .unwrap();
    let files = fixtures();
    let damage = (0..files.len(), vec((any::<u16>(), any::<u8>()), 1..40));
    runner
        .run(&damage, |(file, changes)| {
            let mut bytes = files[file].clone();
            let length = bytes.len();
            for (place, value) in changes {
                // Most of it in the first kilobyte, where lengths and counts are.
                let place = if value % 4 == 0 { usize::from(place) % length } else { usize::from(place) % 1000 };
                bytes[place.min(length - 1)] = value;
            }
            runtime.block_on(harmless(&bytes));
            Ok(())
        })
        .unwrap();
}

/// Numbers that lengths and counts are set to.
const LIES: [u32; 8] = [0, 1, 0xFF, 0xFFFF, 0x00FF_FFFF, 0x1000_0000, 0x7FFF_FFFF, u32::MAX];
/// Files of each base that are made.
const LIES_EACH: u64 = 24;
/// What a child that decodes may take: memory, and time of the processor for one file.
const MOST_KILOBYTES: i64 = 400 * 1024;
const MOST_CPU: i64 = 30;

/// Files whose lengths and counts are lies, always the same, and some that are known to be bad.
pub(crate) fn lying_files() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let folder = tempfile::tempdir()?;
    let mut bases: Vec<(String, Vec<u8>)> =
        fixtures().into_iter().enumerate().map(|(number, file)| (format!("fixture {number}"), file)).collect();
    for (name, options) in [
        ("a.mov", "-c:a pcm_u8"),
        ("a.mp4", "-c:a aac -movflags empty_moov -frag_duration 200000"),
        ("b.mp4", "-c:a libopus"),
        ("a.aiff", "-c:a pcm_s16be"),
        ("a.caf", "-c:a alac"),
        ("b.caf", "-c:a libopus"),
        ("a.oga", "-c:a flac"),
        ("a.opus", "-c:a libopus"),
        ("a.webm", "-c:a libopus"),
        ("a.mka", "-c:a pcm_s16le"),
        ("a.mp2", "-c:a mp2"),
        ("a.wav", "-c:a adpcm_ms"),
        ("b.wav", "-c:a adpcm_ima_wav"),
    ] {
        let path = folder.path().join(name);
        let made = std::process::Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", "sine=duration=1:sample_rate=48000"])
            .args(options.split(' '))
            .arg(&path)
            .status()?;
        anyhow::ensure!(made.success(), "{name} could not be made");
        bases.push((name.to_owned(), fs::read(path)?));
    }
    // Samples of 4 GiB each: a table of one number.
    let mut lpcm = bases.iter().find(|(name, _)| name == "a.mov").unwrap().1.clone();
    let stsz = lpcm.windows(4).position(|name| name == b"stsz").unwrap() + 8;
    lpcm[stsz..stsz + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut files = vec![("samples of 4 GiB".to_owned(), lpcm)];
    // 256 code books in the header of Vorbis, each of the largest size.
    let mut vorbis = fixtures()[6].clone();
    let books = vorbis.windows(7).position(|name| name == b"\x05vorbis").unwrap() + 7;
    vorbis[books] = 0xFF;
    files.push(("256 code books".to_owned(), vorbis.clone()));
    vorbis[books + 4..books + 9].fill(0xFF);
    files.push(("256 large code books".to_owned(), vorbis));
    // Boxes in boxes, and elements in elements.
    let boxes: Vec<u8> =
        (0..100_000_u32).rev().flat_map(|n| [&(8 * n + 8).to_be_bytes()[..], b"moov"].concat()).collect();
    files.push(("boxes in boxes".to_owned(), [&b"\0\0\0\x10ftypM4A \0\0\0\0"[..], &boxes].concat()));
    let elements = b"\x18\x53\x80\x67\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF".repeat(50_000);
    files.push(("elements in elements".to_owned(), [&fixtures()[7][..40], &elements].concat()));
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |most: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % most as u64) as usize
    };
    for (name, base) in &bases {
        for number in 0..LIES_EACH {
            let mut file = base.clone();
            for _ in 0..=next(4) {
                // Headers are at the beginning, but for MP4's.
                let within = if next(3) == 0 { file.len() } else { file.len().min(1200) };
                let (place, lie) = (next(within.saturating_sub(4).max(1)), LIES[next(LIES.len())]);
                let bytes = if next(2) == 0 { lie.to_be_bytes() } else { lie.to_le_bytes() };
                let end = file.len().min(place + 4);
                file[place..end].copy_from_slice(&bytes[..end - place]);
            }
            files.push((format!("{name}, lie {number}"), file));
        }
    }
    Ok(files)
}

#[tokio::test]
async fn lies_about_lengths_cost_little_memory_and_time_and_kill_nothing() -> anyhow::Result<()> {
    crate::child::passes_alone("hostile::decodes_lies_about_lengths", &[]).await
}

#[tokio::test]
#[ignore = "run by lies_about_lengths_cost_little_memory_and_time_and_kill_nothing"]
async fn decodes_lies_about_lengths() -> anyhow::Result<()> {
    let children = || getrusage(UsageWho::RUSAGE_CHILDREN);
    for (name, file) in lying_files()? {
        let before = children()?.user_time().tv_sec();
        match decoded(&file, AudioOptions::default()).await {
            Ok(audio) => assert!(audio.duration() < Duration::from_mins(1), "{name}: {audio:?}"),
            Err(error) => {
                assert_eq!(error.class(), ErrorClass::Permanent, "{name}: {error}");
                assert!(error.to_string().len() > 40, "{name}: {error}");
            }
        }
        let after = children()?;
        assert!(after.max_rss() < MOST_KILOBYTES, "{name}: {} kB", after.max_rss());
        assert!(after.user_time().tv_sec() - before <= MOST_CPU, "{name}");
    }
    let own = getrusage(UsageWho::RUSAGE_SELF)?.max_rss();
    assert!(own < MOST_KILOBYTES, "{own} kB");
    println!("the largest child: {} kB; this process: {own} kB", children()?.max_rss());
    Ok(())
}

#[tokio::test]
async fn a_file_of_some_hundred_bytes_that_asks_for_gigabytes_says_so() -> anyhow::Result<()> {
    let file = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/samples-of-4-gib.m4a"))?;
    let error = decoded(&file, AudioOptions::default()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
    assert!(error.to_string().contains("needs more than 256 MiB to be decoded"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_header_that_claims_gigabytes_costs_nothing() {
    for (claimed, refusal) in
        [(0xFFFF_0000_u32, None), (0x7FFE_0000, Some("`max_duration`")), (400_000, Some("cut off"))]
    {
        let mut file = wav();
        file[4..8].copy_from_slice(&(claimed + 0x24).to_le_bytes());
        file[40..44].copy_from_slice(&claimed.to_le_bytes());
        let begin = Instant::now();
        match (decoded(&file, AudioOptions::default()).await, refusal) {
            // So recorders write that do not know the length.
            (Ok(audio), None) => assert_eq!(audio.to_wav(), wav()),
            (Err(error), Some(refusal)) => {
                assert_eq!(error.class(), ErrorClass::Permanent);
                assert!(error.to_string().contains(refusal), "{error}");
            }
            (decoded, _) => panic!("{claimed:x}: {decoded:?}"),
        }
        assert!(begin.elapsed() < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn a_body_without_end_is_read_up_to_the_limit() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("GET", "/a.wav", |_| HttpResponse::endless("audio/wav", vec![0; 65_536]));
    let options = AudioOptions { max_bytes: 4_000_000, ..loopback() };
    let error = fails(&options, &server.url("/a.wav")).await;
    assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
    assert!(error.to_string().contains("`max_bytes`"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_body_that_drips_ends_at_the_timeout() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let drip = HttpResponse::bytes("audio/wav", wav()).slowly(1, Duration::from_secs(1));
    for answer in [drip, HttpResponse::never()] {
        server.on("GET", "/a.wav", move |_| answer.clone());
        let options = AudioOptions { timeout: Duration::from_millis(400), ..loopback() };
        let begin = Instant::now();
        let error = fails(&options, &server.url("/a.wav")).await;
        assert_eq!(error.class(), ErrorClass::Retryable, "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn empty_files_and_files_without_sound_are_permanent() {
    let silent = &wav()[..44];
    for bytes in [&b""[..], b"<html>not found</html>", b"RIFF", silent] {
        let error = decoded(bytes, AudioOptions::default()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
    }
}
