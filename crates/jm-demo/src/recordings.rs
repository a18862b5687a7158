//! The folder from which the workers read recordings.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use jm_tasks::{AudioSource, RecordId};
use url::Url;

/// The workers' own limit, `audio.max_bytes` of `config/asr-worker.yaml`: what they would refuse is not copied.
const MAX_BYTES: u64 = 200 * 1024 * 1024;

/// What a file's ending may have, to be kept in the copy's name.
const MAX_ENDING: usize = 8;

/// Copies of the users' files, each by its record's id.
#[derive(Clone, Debug)]
pub struct Recordings {
    folder: PathBuf,
}

impl Recordings {
    /// In this folder, which is there.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Whether a file can be a recording, as far as that is seen from outside.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it is too large.
    pub fn check(file: &Path) -> Result<()> {
        let metadata =
            fs::metadata(file).with_context(|| format!("could not find the recording {}", file.display()))?;
        if !metadata.is_file() {
            bail!("the recording {} is not a file", file.display());
        }
        if metadata.len() > MAX_BYTES {
            let (has, most) = (metadata.len() / 1_048_576, MAX_BYTES / 1_048_576);
            bail!("the recording {} has {has} MiB; the workers take {most} MiB at most", file.display());
        }
        Ok(())
    }

    /// Copies a file; its address is what records say.
    ///
    /// # Errors
    ///
    /// When it cannot be a recording, or cannot be read.
    pub fn admit(&self, file: &Path, record: &RecordId) -> Result<AudioSource> {
        Self::check(file)?;
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let plain = (1..=MAX_ENDING).contains(&ending.len()) && ending.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let name = if plain { format!("{record}.{ending}") } else { record.to_string() };
        let copy = self.folder.join(name);
        fs::copy(file, &copy).with_context(|| format!("could not copy the recording {}", file.display()))?;
        let url = Url::from_file_path(&copy).map_err(|()| anyhow!("no absolute path: {}", copy.display()))?;
        Ok(AudioSource { url: url.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_copied_under_its_records_id_and_what_is_none_is_named() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (recordings, record) = (Recordings::in_folder(kept.path()), RecordId::new("note-1").unwrap());
        let file = folder.path().join("会议 1.m4a");
        fs::write(&file, b"sound").unwrap();
        let source = recordings.admit(&file, &record).unwrap();
        assert_eq!(source.url, format!("file://{}/note-1.m4a", kept.path().display()));
        assert_eq!(fs::read(kept.path().join("note-1.m4a")).unwrap(), b"sound");

        let error = recordings.admit(&folder.path().join("gone.wav"), &record).unwrap_err();
        assert!(
            format!("{error:#}").contains("gone.wav") && format!("{error:#}").contains("No such file"),
            "{error:#}"
        );
        let error = recordings.admit(folder.path(), &record).unwrap_err().to_string();
        assert!(error.ends_with("is not a file"), "{error}");
        let large = folder.path().join("large.wav");
        fs::File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let error = recordings.admit(&large, &record).unwrap_err().to_string();
        assert!(error.contains("large.wav has 200 MiB; the workers take 200 MiB at most"), "{error}");
    }
}
