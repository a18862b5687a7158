//! The catalogue as it is written, and what must hold of it.
//!
//! Names become paths and arguments: none may lead out of the cache folder, or be taken for an option of pip's.

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;

use super::{CatalogueError, File, Model, Package, Part, Role};

/// Far more than any model has: a wrong digit must not fill a disk.
const MAX_SIZE: u64 = 64 << 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    model: Vec<ModelEntry>,
    package: Vec<Package>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelEntry {
    name: String,
    engine: Role,
    about: String,
    #[serde(default)]
    languages: Vec<String>,
    summary_prompt: Option<String>,
    licence: Option<String>,
    provenance: Option<String>,
    #[serde(default)]
    default: bool,
    file: Vec<FileEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    name: String,
    size: u64,
    sha256: String,
    licence: Option<String>,
    provenance: Option<String>,
    parts: Vec<PartEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartEntry {
    package: String,
    path: String,
}

type Packages = HashMap<String, Arc<Package>>;

impl Document {
    /// With each file's package, licence and provenance.
    pub(super) fn models(self) -> Result<Vec<Model>, CatalogueError> {
        let mut packages = Packages::new();
        for package in self.package {
            check_package(&package)?;
            let name = package.name.clone();
            if packages.insert(name.clone(), Arc::new(package)).is_some() {
                return Err(wrong(format!("package {name} is there twice")));
            }
        }
        let mut models: Vec<Model> = Vec::new();
        for entry in self.model {
            let model = entry.model(&packages)?;
            if models.iter().any(|other| other.name == model.name) {
                return Err(wrong(format!("model {} is there twice", model.name)));
            }
            if model.default && models.iter().any(|other| other.default && other.role == model.role) {
                return Err(wrong(format!("model {} is a second default for {}", model.name, model.role)));
            }
            models.push(model);
        }
        Ok(models)
    }
}

impl ModelEntry {
    fn model(self, packages: &Packages) -> Result<Model, CatalogueError> {
        check_name("model", &self.name)?;
        let mut files: Vec<File> = Vec::new();
        for mut entry in self.file {
            let what = format!("{}/{}", self.name, entry.name);
            entry.licence = entry.licence.or_else(|| self.licence.clone());
            entry.provenance = entry.provenance.or_else(|| self.provenance.clone());
            let file = entry.file(&what, packages)?;
            if files.iter().any(|other| other.name == file.name) {
                return Err(wrong(format!("file {what} is there twice")));
            }
            files.push(file);
        }
        if files.is_empty() {
            return Err(wrong(format!("model {} has no file", self.name)));
        }
        let licence = distinct(files.iter().map(|file| file.licence.as_str())).join(", ");
        let provenance = distinct(files.iter().map(|file| file.provenance.as_str())).join("; ");
        let Self { name, engine: role, about, languages, summary_prompt, default, .. } = self;
        Ok(Model { name, role, about, languages, summary_prompt, licence, provenance, default, files })
    }
}

impl FileEntry {
    fn file(self, what: &str, packages: &Packages) -> Result<File, CatalogueError> {
        check_name("file", &self.name)?;
        check_size(what, self.size)?;
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong(format!("{what}: sha256 is not 64 lower-case hexadecimal digits")));
        }
        let stated = |value: Option<String>, name| value.ok_or_else(|| wrong(format!("{what} has no {name}")));
        let licence = stated(self.licence, "licence")?;
        let provenance = stated(self.provenance, "provenance")?;
        let mut parts = Vec::new();
        for PartEntry { package, path } in self.parts {
            let Some(package) = packages.get(&package) else {
                return Err(wrong(format!("{what} is in package {package}, which is not there")));
            };
            parts.push(Part { package: Arc::clone(package), path });
        }
        if parts.is_empty() {
            return Err(wrong(format!("{what} has no part")));
        }
        Ok(File { name: self.name, size: self.size, sha256: self.sha256, licence, provenance, parts })
    }
}

fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for text in texts {
        if !distinct.contains(&text) {
            distinct.push(text);
        }
    }
    distinct
}

fn check_package(package: &Package) -> Result<(), CatalogueError> {
    let Package { name, version, size, platform } = package;
    check_name("package", name)?;
    check_name("version", version)?;
    check_name("platform", platform)?;
    check_size(&format!("package {name}"), *size)
}

/// Letters, digits and some signs, none of which comes first: no slash, no hidden file, no option.
fn check_name(what: &str, name: &str) -> Result<(), CatalogueError> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    if name.bytes().all(inner) && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) {
        Ok(())
    } else {
        Err(wrong(format!("{what} {name:?}: only letters, digits and ._+- are allowed, a letter or digit first")))
    }
}

fn check_size(what: &str, size: u64) -> Result<(), CatalogueError> {
    if (1..=MAX_SIZE).contains(&size) {
        Ok(())
    } else {
        Err(wrong(format!("{what}: a size of {size} bytes; from 1 to {MAX_SIZE} are allowed")))
    }
}

fn wrong(what: String) -> CatalogueError {
    CatalogueError::Contents(what)
}
