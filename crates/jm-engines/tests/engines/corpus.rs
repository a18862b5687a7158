//! Kinds of files that people have: each decoded as ffmpeg decodes it, or refused as the documentation says.

mod kinds;

use std::{fmt::Write, fs, path::Path, process::Stdio};

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, stream};
use jm_engines::{ErrorClass, audio::AudioOptions};
use tokio::process::Command;

use crate::sources::fetch;
use kinds::{KINDS, Kind, Outcome};

/// Speech of Debian's pocketsphinx-testdata.
const SPEECH: &str = "/usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-0880.wav";
/// How much longer or shorter than ffmpeg's a recording may be: 50 ms.
const LENGTH_SAMPLES: usize = 800;
/// A second, which is compared at once.
const WINDOW: usize = 16_000;
/// How alike it has to be.
const CORRELATION: f64 = 0.95;
/// Kinds that are made and decoded at a time.
const AT_A_TIME: usize = 4;
/// Where the outcomes are told.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/recordings.md");

#[tokio::test]
async fn every_kind_of_file_is_decoded_as_ffmpeg_does_it_or_refused_by_its_name() {
    assert!(KINDS.len() >= 100, "{}", KINDS.len());
    let checked = stream::iter(KINDS).map(|kind| async move { (kind.name, check(kind).await) });
    let failures: Vec<String> = checked
        .buffer_unordered(AT_A_TIME)
        .filter_map(async |(name, checked)| Some(format!("{name}: {:#}", checked.err()?)))
        .collect()
        .await;
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), KINDS.len(), failures.join("\n"));
}

/// To write it anew: `JM_WRITE_DOCS=1 cargo test -p jm-engines the_table_of_kinds`.
#[test]
fn the_table_of_kinds_in_the_documentation_has_every_outcome() {
    let mut table = String::from("| Kind | Outcome |\n|---|---|\n");
    for kind in KINDS {
        let outcome = match kind.outcome {
            Outcome::DecodedLike(options) if options.contains("async") => "decoded, with its pauses".to_owned(),
            Outcome::Decoded | Outcome::DecodedLike(_) => "decoded".to_owned(),
            Outcome::Refused(text) => format!("dead letter: `{text}`"),
        };
        writeln!(table, "| {} | {outcome} |", kind.name).unwrap();
    }
    let page = fs::read_to_string(PAGE).unwrap();
    let begin = page.find("| Kind |").expect("the page has the table");
    let new = format!("{}{table}", &page[..begin]);
    if std::env::var_os("JM_WRITE_DOCS").is_some() {
        fs::write(PAGE, &new).unwrap();
    } else {
        assert!(page == new, "docs/recordings.md is not what this test makes of the kinds; JM_WRITE_DOCS=1 writes it");
    }
}

async fn check(kind: &Kind) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(kind.file);
    let script = format!("set -e; f() {{ ffmpeg -nostdin -v error -y -threads 1 \"$@\"; }}; {}", kind.script);
    let mut make = Command::new("sh");
    make.args(["-c", &script]).current_dir(&folder).env("S", SPEECH).env("O", &path).stdin(Stdio::null());
    let made = make.output().await?;
    ensure!(made.status.success(), "could not be made: {}", String::from_utf8_lossy(&made.stderr));
    let options = AudioOptions { folder: Some(folder.path().into()), ..AudioOptions::default() };
    let decoded = fetch(&options, &format!("file://{}", path.display())).await;
    let like = match kind.outcome {
        Outcome::Refused(text) => {
            let Err(error) = decoded else { bail!("decoded") };
            ensure!(error.class() == ErrorClass::Permanent && error.to_string().contains(text), "{error}");
            return Ok(());
        }
        Outcome::Decoded => "",
        Outcome::DecodedLike(options) => options,
    };
    let ours = decoded.map_err(|error| anyhow::anyhow!("{error}"))?;
    let theirs = ffmpeg(&path, like).await?;
    ensure!(theirs.len() > 16_000, "ffmpeg decodes {} samples", theirs.len());
    let (ours, lengths) = (ours.samples(), (ours.samples().len(), theirs.len()));
    ensure!(lengths.0.abs_diff(lengths.1) <= LENGTH_SAMPLES, "{} samples; ffmpeg: {}", lengths.0, lengths.1);
    let alike = correlation(ours, &theirs);
    ensure!(alike >= CORRELATION, "correlation {alike:.3}");
    Ok(())
}

/// What ffmpeg decodes a file to.
async fn ffmpeg(path: &Path, options: &str) -> Result<Vec<i16>> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-threads", "1", "-i"]).arg(path).args(options.split_whitespace());
    let output = command.args(["-vn", "-ac", "1", "-ar", "16000", "-f", "s16le", "-"]).output().await;
    let output = output.context("ffmpeg is needed: scripts/install-system-packages")?;
    Ok(output.stdout.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]])).collect())
}

/// How alike two recordings are, second by second: where files were joined, each decoder has its own few milliseconds.
fn correlation(a: &[i16], b: &[i16]) -> f64 {
    let length = a.len().min(b.len());
    let (mut alike, mut weight) = (0.0, 0.0);
    for begin in (0..length).step_by(WINDOW) {
        let window = &a[begin..length.min(begin + WINDOW)];
        let energy: f64 = window.iter().map(|&sample| f64::from(sample).powi(2)).sum();
        alike += best(window, b, begin) * energy;
        weight += energy;
    }
    alike / weight.max(1.0)
}

/// The best correlation of a part of a recording with one as long of another, near the same place.
fn best(window: &[i16], other: &[i16], begin: usize) -> f64 {
    let at = |place: usize, step| {
        let Some(there) = other.get(place..place + window.len()) else { return (0.0, place) };
        let (mut both, mut of_a, mut of_b) = (0.0, 1.0, 1.0);
        for (&a, &b) in window.iter().zip(there).step_by(step) {
            let (a, b) = (f64::from(a), f64::from(b));
            both += a * b;
            of_a += a * a;
            of_b += b * b;
        }
        (both / f64::sqrt(of_a * of_b), place)
    };
    let best = |places: &mut dyn Iterator<Item = usize>, step| {
        places.map(|place| at(place, step)).max_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap_or((0.0, 0))
    };
    // Speech changes little within a quarter of a millisecond.
    let (_, near) = best(&mut (begin.saturating_sub(LENGTH_SAMPLES)..=begin + LENGTH_SAMPLES).step_by(4), 7);
    best(&mut (near.saturating_sub(4)..=near + 4), 1).0
}
