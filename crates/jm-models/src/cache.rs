//! The folder the files are kept in, outside the repository.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use crate::catalogue::{File, Model};

/// Where models are kept: `<folder>/<model>/<file>`.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// A file that is not there, or is not what the catalogue says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}; `jm-models fetch {model}` (or `make models`) gets it", path = path.display())]
pub struct Missing {
    /// Where it should be.
    pub path: PathBuf,
    /// The model it belongs to.
    pub model: String,
    /// Its size, if a file is there.
    pub found: Option<u64>,
    what: String,
}

/// What there is of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every file, each of the right size.
    There,
    /// Some of them, or one of another size.
    Incomplete,
    /// None.
    Missing,
}

impl Cache {
    /// In this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// In `models` below `JM_MQ_CACHE`; unless that is set, below `XDG_CACHE_HOME/jm-mq` or `~/.cache/jm-mq`. Without
    /// a home, below the working folder.
    pub fn from_environment() -> Self {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("JM_MQ_CACHE")
            .or_else(|| Some(set("XDG_CACHE_HOME")?.join("jm-mq")))
            .or_else(|| Some(set("HOME")?.join(".cache/jm-mq")))
            .unwrap_or_else(|| PathBuf::from(".cache/jm-mq"));
        Self::new(folder.join("models"))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a file is, or would be.
    pub fn path(&self, model: &Model, file: &File) -> PathBuf {
        self.folder.join(&model.name).join(&file.name)
    }

    /// The folder of a model whose files are all there, each of the right size. Their checksums were verified when
    /// they were fetched.
    ///
    /// # Errors
    ///
    /// The first file that is missing, or of another size.
    pub fn find(&self, model: &Model) -> Result<PathBuf, Missing> {
        for file in &model.files {
            self.find_file(model, file)?;
        }
        Ok(self.folder.join(&model.name))
    }

    /// The path of a file that is there and of the right size.
    ///
    /// # Errors
    ///
    /// It is missing, or of another size.
    pub fn find_file(&self, model: &Model, file: &File) -> Result<PathBuf, Missing> {
        let path = self.path(model, file);
        let (found, what) = match path.metadata() {
            Ok(found) if !found.is_file() => (None, "not a file".to_owned()),
            Ok(found) if found.len() == file.size => return Ok(path),
            Ok(found) => (Some(found.len()), format!("{} bytes instead of {}", found.len(), file.size)),
            Err(error) => (None, error.to_string()),
        };
        Err(Missing { path, model: model.name.clone(), found, what })
    }

    /// What there is of a model.
    pub fn state(&self, model: &Model) -> State {
        let missing: Vec<_> = model.files.iter().filter_map(|file| self.find_file(model, file).err()).collect();
        if missing.is_empty() {
            State::There
        } else if missing.len() == model.files.len() && missing.iter().all(|missing| missing.found.is_none()) {
            State::Missing
        } else {
            State::Incomplete
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::There => "there",
            Self::Incomplete => "incomplete",
            Self::Missing => "missing",
        })
    }
}
