//! `config/models.toml`: every file with its origin, size and checksum.

use std::sync::LazyLock;

use serde::Deserialize;

/// Every model that is known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    #[serde(rename = "model")]
    models: Vec<Model>,
}

/// Files that belong together.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What configurations and commands call it; the name of its folder in the cache.
    pub name: String,
    /// What it is for.
    #[serde(rename = "engine")]
    pub role: Role,
    /// In a few words, for people.
    pub about: String,
    /// The languages it knows, as BCP 47 primary tags. Empty: many.
    #[serde(default)]
    pub languages: Vec<String>,
    /// An SPDX expression, or what there is to say.
    pub licence: String,
    /// Who made it, and who packed it.
    pub provenance: String,
    /// Whether the demo needs it as it is configured.
    #[serde(default)]
    pub default: bool,
    /// Its files.
    #[serde(rename = "file")]
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
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name in the model's folder.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal digits.
    pub sha256: String,
    /// Where its bytes are, in their order.
    pub parts: Vec<Part>,
}

/// A file inside a wheel on `PyPI`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The version of Python the wheel is for, where it is for one.
    pub python: Option<String>,
    /// The platform the wheel is for, where it is for one.
    pub platform: Option<String>,
    /// The path inside the wheel.
    pub path: String,
}

static BUILT_IN: LazyLock<Catalogue> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the file is part of the program, and a test reads it")]
    toml::from_str(include_str!("../../../config/models.toml")).expect("config/models.toml is right")
});

impl Catalogue {
    /// The one that is part of the program.
    pub fn built_in() -> &'static Self {
        &BUILT_IN
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
