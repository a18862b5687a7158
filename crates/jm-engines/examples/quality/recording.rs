//! The recordings that are at hand, read in the way a worker reads them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use jm_engines::{
    Call,
    audio::{Audio, AudioFetcher, AudioOptions, Decoder},
};
use jm_models::{Cache, Catalogue};
use jm_tasks::{AudioSource, SpeakerTurn};
use url::Url;

use crate::diarization_error::rttm;

/// Where Debian's pocketsphinx-testdata is.
const TEST_DATA: &str = "/usr/share/pocketsphinx/test/data";
/// What the catalogue calls the telephone call.
const CALL: &str = "two-speaker-call";

/// A recording of which is known what is said.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    /// The last part of its name: `0870`.
    pub(crate) name: String,
    pub(crate) audio: Audio,
    pub(crate) words: String,
}

/// One reader's sentences from Sense and Sensibility, of `LibriVox`.
pub(crate) async fn librivox() -> Result<Vec<Read>> {
    let folder = Path::new(TEST_DATA).join("librivox");
    let transcription = read_text(&folder.join("transcription"))?;
    let mut recordings = Vec::new();
    for id in read_text(&folder.join("fileids"))?.split_whitespace() {
        // A line is: <s> the words </s> (the id)
        let line = transcription.lines().find_map(|line| line.trim().strip_suffix(&format!("({id})")));
        let words = line.and_then(|line| line.trim().strip_prefix("<s>")?.strip_suffix("</s>"));
        recordings.push(Read {
            name: id.rsplit('-').next().unwrap_or(id).to_owned(),
            audio: sound(&folder.join(format!("{id}.wav"))).await?,
            words: words.with_context(|| format!("no words for {id}"))?.trim().to_owned(),
        });
    }
    ensure!(!recordings.is_empty(), "no recordings in {}", folder.display());
    Ok(recordings)
}

/// Another file of the test data: `cards/001.wav`, or samples without a header, `numbers.raw`.
pub(crate) async fn test_data(name: &str) -> Result<Audio> {
    let path = Path::new(TEST_DATA).join(name);
    if path.extension().is_some_and(|extension| extension == "raw") {
        let bytes = fs::read(&path).with_context(|| missing(&path))?;
        let samples: Vec<i16> = bytes.as_chunks().0.iter().map(|&bytes| i16::from_le_bytes(bytes)).collect();
        return Ok(Audio::from_samples(samples));
    }
    sound(&path).await
}

/// The telephone call, and who speaks when.
pub(crate) async fn call() -> Result<(Audio, Vec<SpeakerTurn>)> {
    let model = Catalogue::built_in().model(CALL).with_context(|| format!("the catalogue has no {CALL}"))?;
    let folder = Cache::from_environment().find(model)?;
    let turns = rttm(&fs::read_to_string(folder.join("sample.rttm"))?);
    Ok((sound(&folder.join("sample.wav")).await?, turns))
}

async fn sound(path: &Path) -> Result<Audio> {
    ensure!(path.exists(), missing(path));
    let folder = path.parent().map(PathBuf::from);
    let fetcher = AudioFetcher::new(AudioOptions { folder, ..AudioOptions::default() }, Decoder::this_program()?)?;
    let url = Url::from_file_path(path).map_err(|()| anyhow!("{} is not an absolute path", path.display()))?;
    let fetched = fetcher.fetch(&AudioSource { url: url.into() }, &Call::default()).await;
    fetched.map_err(|error| anyhow!("{error}"))
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| missing(path))
}

fn missing(path: &Path) -> String {
    format!("{} cannot be read; Debian's package pocketsphinx-testdata has it", path.display())
}
