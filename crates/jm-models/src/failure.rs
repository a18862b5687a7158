//! Why a command failed, with what to do about it.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use jm_models::{Catalogue, CatalogueError, Missing, Package};

/// It could not be done.
pub(crate) const FAILED: u8 = 1;
/// The command line cannot be used; clap's code.
pub(crate) const USAGE: u8 = 2;
/// Added to a signal's number, as shells do.
const SIGNALLED: u8 = 128;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("there is no model {name}; there are {known}")]
    UnknownModel { name: String, known: String },
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("{wrong} of {files} files {are} not right", are = if *.wrong == 1 { "is" } else { "are" })]
    Unverified { wrong: usize, files: usize },
    #[error("no model is there to verify; `jm-models fetch` gets them")]
    NothingThere,
    #[error("interrupted; nothing half-made is left, and `jm-models fetch` goes on with what is missing")]
    Interrupted { signal: u8 },
    #[error("could not {action} {path}: {source}", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the disk of {path} is full; free some space, or set JM_MQ_CACHE to a folder elsewhere", path = path.display())]
    DiskFull { path: PathBuf },
    #[error("there is no python3, whose pip downloads from PyPI; install it: apt-get install python3-venv")]
    NoPython,
    #[error(
        "python3 has no pip, and could not make a virtual environment with one: {why}; install either: apt-get install python3-venv"
    )]
    NoPip { why: String },
    #[error("{what} has not ended after {limit:?}, and was killed; see whether it ends when run by hand")]
    Endless { what: String, limit: Duration },
    #[error("{package}: {why}")]
    Download { package: String, why: String },
    #[error("{file}: {origin} is not what it was: {what}; nothing of it was kept")]
    Wrong { file: String, origin: String, what: String },
    #[error("could not write the output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    pub(crate) fn unknown(name: &str, catalogue: &Catalogue) -> Self {
        let names: Vec<_> = catalogue.models().iter().map(|model| model.name.as_str()).collect();
        Self::UnknownModel { name: name.to_owned(), known: names.join(", ") }
    }

    /// For `map_err`: what could not be done with which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::disk_full(&path),
            _ => Self::Io { action, path, source },
        }
    }

    /// `path` could not be written.
    pub(crate) fn disk_full(path: &Path) -> Self {
        Self::DiskFull { path: path.parent().unwrap_or(path).to_owned() }
    }

    pub(crate) fn download(package: &Package, why: impl Into<String>) -> Self {
        Self::Download { package: package.to_string(), why: why.into() }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownModel { .. } => USAGE,
            Self::Interrupted { signal } => SIGNALLED + signal,
            failure if failure.is_quiet() => 0,
            _ => FAILED,
        }
    }

    /// Whether whoever read the output has seen enough of it, as `head` does.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == ErrorKind::BrokenPipe)
    }
}
