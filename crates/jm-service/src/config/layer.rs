//! One source of values: a file, or an environment variable.

use std::{fs, path::Path};

use figment::{
    Error, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::problem::Problem;

/// A configuration file larger than this is a mistake.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The values of one source, by section and key.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// For people: a path, or a variable's name.
    pub(super) source: String,
    pub(super) values: Dict,
}

impl Layer {
    pub(super) fn from_yaml(source: String, text: &str) -> Result<Self, Problem> {
        // A file with nothing but comments is no mapping, and no mistake either.
        let parsed: Result<Option<Dict>, _> = serde_saphyr::from_str(text);
        match parsed {
            Ok(values) => Ok(Self { source, values: values.unwrap_or_default() }),
            Err(error) => {
                let place = error.location().map(|place| format!("line {}, column {}: ", place.line(), place.column()));
                let text = error.without_snippet().to_string();
                let text = text.lines().next().unwrap_or("it cannot be read").to_owned();
                Err(Problem::of_source(source, format!("not YAML: {}{text}", place.unwrap_or_default())))
            }
        }
    }

    /// `None` if there is no such file.
    pub(super) fn from_file(path: &Path) -> Result<Option<Self>, Problem> {
        let source = path.display().to_string();
        let unreadable = |error: std::io::Error| Problem::of_source(source.clone(), format!("cannot be read: {error}"));
        match fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
            Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
                return Err(Problem::of_source(source, "larger than 1 MiB, so it is not a configuration"));
            }
            Ok(_) => {}
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Self::from_yaml(source, &text).map(Some)
    }

    /// A single value.
    pub(super) fn of_value(source: String, path: &[String], value: Value) -> Self {
        let nested = path.iter().rev().fold(value, |value, key| Value::from(Dict::from([(key.clone(), value)])));
        Self { source, values: nested.into_dict().unwrap_or_default() }
    }

    pub(super) fn find(&self, path: &[String]) -> Option<&Value> {
        let (last, sections) = path.split_last()?;
        let mut dict = &self.values;
        for section in sections {
            dict = match dict.get(section) {
                Some(Value::Dict(_, inner)) => inner,
                _ => return None,
            };
        }
        dict.get(last)
    }

    pub(super) fn remove(&mut self, path: &[String]) {
        fn remove(dict: &mut Dict, path: &[String]) {
            match path {
                [] => {}
                [last] => _ = dict.remove(last),
                [section, rest @ ..] => {
                    if let Some(Value::Dict(_, inner)) = dict.get_mut(section) {
                        remove(inner, rest);
                    }
                }
            }
        }
        remove(&mut self.values, path);
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}
