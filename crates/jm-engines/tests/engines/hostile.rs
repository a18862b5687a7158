//! Files and servers that mean harm: an error within bounds, never a panic.

use std::{
    fs,
    time::{Duration, Instant},
};

use jm_engines::{ErrorClass, audio::AudioOptions};
use jm_testkit::{HttpResponse, HttpServer};
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
