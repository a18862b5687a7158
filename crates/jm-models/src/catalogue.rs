//! `config/models.toml`: every file with its origin, size and checksum.

mod document;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use serde::Deserialize;

use self::document::Document;

/// Every model that is known.
#[derive(Clone, Debug)]
pub struct Catalogue {
    models: Vec<Model>,
}

/// Files that belong together.
#[derive(Clone, Debug)]
pub struct Model {
    /// What configurations and commands call it; the name of its folder in the cache.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// In a few words, for people.
    pub about: String,
    /// The languages it knows, as BCP 47 primary tags. Empty: many.
    pub languages: Vec<String>,
    /// How a chat model is asked for a summary, where it was trained with words of its own.
    pub summary_prompt: Option<String>,
    /// The licences of its files, each once.
    pub licence: String,
    /// Who made its files, and who packed them, each once.
    pub provenance: String,
    /// Whether the demo needs it as it is configured.
    pub default: bool,
    /// Its files.
    pub files: Vec<File>,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A chat engine's.
    Chat,
    /// A transcription engine's.
    Transcription,
    /// A diarization engine's.
    Diarization,
    /// An embedding engine's.
    Embedding,
    /// No model: something to listen to.
    Recording,
}

/// One file of a model.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name in the model's folder.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// In lower-case hexadecimal digits.
    pub sha256: String,
    /// An SPDX expression.
    pub licence: String,
    /// Who made it, and who packed it.
    pub provenance: String,
    /// Where its bytes are, in their order.
    pub parts: Vec<Part>,
}

/// A file inside a package's wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The package. Parts of one package share it.
    pub package: Arc<Package>,
    /// The path inside the wheel.
    pub path: String,
}

/// A package on `PyPI`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// What the index calls it.
    pub name: String,
    /// The one version whose files these are.
    pub version: String,
    /// What its wheel is to download, in bytes.
    pub size: u64,
    /// The platform of the wheel that is taken: `any` for one that is for all of them.
    #[serde(default = "any_platform")]
    pub platform: String,
}

/// A catalogue that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Its file cannot be read.
    #[error("could not read the catalogue {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or lacks something, or has something that is not known.
    #[error("the catalogue is not right: {}", .0.to_string().trim_end())]
    Syntax(#[from] toml::de::Error),
    /// What it says cannot be.
    #[error("the catalogue is not right: {0}")]
    Contents(String),
}

static BUILT_IN: LazyLock<Catalogue> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the file is part of the program, and a test reads it")]
    Catalogue::parse(include_str!("../../../config/models.toml")).expect("config/models.toml is right")
});

impl Catalogue {
    /// The one that is part of the program.
    pub fn built_in() -> &'static Self {
        &BUILT_IN
    }

    /// One from a file.
    pub fn read(path: &Path) -> Result<Self, CatalogueError> {
        let text =
            fs::read_to_string(path).map_err(|source| CatalogueError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// One as it is written in `config/models.toml`.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let document: Document = toml::from_str(text)?;
        Ok(Self { models: document.models()? })
    }

    /// Every model, in the file's order.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// The model an engine of that role uses unless told otherwise.
    pub fn default_of(&self, role: Role) -> Option<&Model> {
        self.models.iter().find(|model| model.role == role && model.default)
    }
}

impl Model {
    /// The bytes of all its files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Chat => "chat",
            Self::Transcription => "transcription",
            Self::Diarization => "diarization",
            Self::Embedding => "embedding",
            Self::Recording => "recording",
        })
    }
}

impl fmt::Display for Package {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.version)
    }
}

fn any_platform() -> String {
    "any".to_owned()
}

#[cfg(test)]
mod tests;
