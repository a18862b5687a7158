//! Configuration: built-in defaults, two files, the environment; every mistake reported at once.
//!
//! In order, each winning over those before it: the built-in `config/default.yaml`; the worker's own built-in file;
//! `default.yaml` and `<worker>.yaml` of the configuration's folder; environment variables `JM_SECTION__KEY`, or
//! `JM_SECTION__KEY_FILE` for the path of a file with the value, as secrets are mounted. The file with the broker's
//! password is read again before each connect, the others once.
//!
//! Whatever is wrong (an unknown key, a bad duration, a value out of range) is a [`Problem`] that names the key, the
//! value, where it came from, and what is allowed. All of them are reported, not only the first.

mod environment;
mod file;
mod layer;
mod password;
mod printed;
mod problem;
mod sections;
mod settings;
mod tool;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

pub use problem::Problem;
pub use sections::Sections;
pub(crate) use settings::Common;
pub use settings::{HttpOptions, LogFormat, LogOptions, NoSettings, SentryOptions, Settings};
pub use tool::{WorkerOptions, of_tool, of_worker};

use self::layer::Layer;
use crate::worker::Worker;

/// The values every worker shares, with a comment on each: the repository's `config/default.yaml`.
pub const DEFAULTS: &str = include_str!("../../../config/default.yaml");

/// A worker's configuration, read and checked.
pub(crate) struct Configuration<S> {
    pub(crate) common: Common,
    pub(crate) settings: S,
    printed: String,
}

impl<S: Settings> Configuration<S> {
    /// Reads everything. `folder` is the one asked for on the command line; `environment` the process's variables.
    ///
    /// # Errors
    ///
    /// All that is wrong, at least one problem.
    pub(crate) fn load(
        worker: &Worker,
        folder: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let environment = environment::ours(environment, &mut problems);
        let layers = layers(worker, folder, &environment, &mut problems);
        let printed = printed::yaml(&layers);
        let mut sections = Sections::new(layers, problems);
        let common = Common::read(&mut sections, worker);
        let settings = S::read(&mut sections);
        sections.finish(&environment)?;
        Ok(Self { common, settings, printed })
    }

    /// The merged values as YAML, each with its source; secrets masked.
    pub(crate) fn printed(&self) -> &str {
        &self.printed
    }
}

fn layers(
    worker: &Worker,
    folder: Option<&Path>,
    environment: &[(String, String)],
    problems: &mut Vec<Problem>,
) -> Vec<Layer> {
    let mut layers = Vec::new();
    let own_file = format!("{}.yaml", worker.name);
    for (source, text) in
        [("built-in default.yaml".to_owned(), DEFAULTS), (format!("built-in {own_file}"), worker.defaults)]
    {
        layers.extend(Layer::from_yaml(source, text).map_err(|problem| problems.push(problem)));
    }
    match configured_folder(folder, environment) {
        Ok(None) => {}
        Ok(Some(folder)) => {
            for file in ["default.yaml", &own_file] {
                let read = Layer::from_file(&folder.join(file));
                layers.extend(read.map_err(|problem| problems.push(problem)).ok().flatten());
            }
        }
        Err(problem) => problems.push(problem),
    }
    problems.extend(layers.iter().flat_map(secrets_in_file));
    problems.extend(password::read(&mut layers));
    layers.extend(environment::layers(environment, problems));
    password::one_of_both(&mut layers);
    layers
}

/// Keys that are taken from the environment and from mounted files only: a configuration file is a config map, or in a
/// repository. (The broker's password may be in one: the specification's example has it there.)
const NOT_IN_FILES: [&[&str]; 4] = [
    &["engine", "api_key"],
    &["engine", "request", "headers"],
    &["audio", "s3", "secret_access_key"],
    &["audio", "s3", "session_token"],
];

fn secrets_in_file(layer: &Layer) -> Vec<Problem> {
    let written = NOT_IN_FILES.iter().filter(|path| {
        let path: Vec<String> = path.iter().map(ToString::to_string).collect();
        layer.find(&path).is_some()
    });
    let problem = |path: &&[&str]| {
        // Of a section of secrets each has a variable.
        let name = if path.ends_with(&["headers"]) { "__<NAME>" } else { "" };
        let variable = path.join("__").to_uppercase() + name;
        let text = format!("not in a configuration file; set JM_{variable}, or JM_{variable}_FILE to a file with it");
        Problem { key: path.join("."), value: None, source: Some(layer.source.clone()), text }
    };
    written.map(problem).collect()
}

/// The folder that was asked for has to exist; the usual one is used if it does.
fn configured_folder(asked_for: Option<&Path>, environment: &[(String, String)]) -> Result<Option<PathBuf>, Problem> {
    let by_variable = environment.iter().find(|(name, value)| name == environment::FOLDER && !value.is_empty());
    let (folder, source) = match (asked_for, by_variable) {
        (Some(folder), _) => (folder.to_owned(), "--config"),
        (None, Some((_, folder))) => (PathBuf::from(folder), environment::FOLDER),
        (None, None) => return Ok(Some(PathBuf::from("config")).filter(|folder| folder.is_dir())),
    };
    if folder.is_dir() {
        return Ok(Some(folder));
    }
    Err(Problem::of_source(source, format!("`{}` is not a folder that can be read", folder.display())))
}

/// What became of a configuration.
#[cfg(any(test, fuzzing))]
pub(crate) struct Fuzzed {
    pub(crate) printed: String,
    pub(crate) printed_is_yaml: bool,
    pub(crate) problems: Vec<String>,
}

/// A configuration whose file is not on a disk: as [`Configuration::load`] reads one.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzzed<S: Settings>(yaml: &str, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Fuzzed {
    let worker = Worker {
        name: "fuzzed-worker",
        about: "",
        version: "",
        queue: "jm.fuzzed",
        types: &["fuzzed"],
        answers_to: &[],
        defaults: "",
    };
    let mut problems = Vec::new();
    let environment = environment::ours(environment, &mut problems);
    let mut layers = Vec::new();
    for (source, text) in [("default.yaml", DEFAULTS), ("fuzzed-worker.yaml", yaml)] {
        layers.extend(Layer::from_yaml(source.to_owned(), text).map_err(|problem| problems.push(problem)));
    }
    problems.extend(layers.iter().flat_map(secrets_in_file));
    problems.extend(password::read(&mut layers));
    layers.extend(environment::layers(&environment, &mut problems));
    password::one_of_both(&mut layers);
    let printed = printed::yaml(&layers);
    let mut sections = Sections::new(layers, problems);
    let _read = (Common::read(&mut sections, &worker), S::read(&mut sections));
    let problems = sections.finish(&environment).err().unwrap_or_default();
    Fuzzed {
        printed_is_yaml: Layer::from_yaml("printed".to_owned(), &printed).is_ok(),
        printed,
        problems: problems.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests;
