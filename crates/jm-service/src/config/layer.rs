//! One source of values: a file, or an environment variable.

use std::path::Path;

use figment::{
    Error, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{
    file::{self, Unread},
    problem::Problem,
};

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
            Ok(values) => Ok(Self { source, values: values.map(without_nulls).unwrap_or_default() }),
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
        match file::text(path, MAX_FILE_BYTES) {
            Ok(text) => Self::from_yaml(source, &text).map(Some),
            Err(Unread::Missing) => Ok(None),
            Err(Unread::Because(reason)) => Err(Problem::of_source(source, reason)),
        }
    }

    /// A single value.
    pub(super) fn of_value(source: String, path: &[String], value: Value) -> Self {
        let nested = path.iter().rev().fold(value, |value, key| Value::from(Dict::from([(key.clone(), value)])));
        Self { source, values: nested.into_dict().unwrap_or_default() }
    }

    /// The value at a path of keys, and of numbers where there are lists.
    pub(super) fn find(&self, path: &[String]) -> Option<&Value> {
        let (section, rest) = path.split_first()?;
        rest.iter().try_fold(self.values.get(section)?, |value, step| match value {
            Value::Dict(_, keys) => keys.get(step),
            Value::Array(_, items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Takes away the value at a path; inside a list the whole list. Tells whether there was anything.
    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        fn remove(keys: &mut Dict, path: &[String]) -> bool {
            let Some((step, rest)) = path.split_first() else { return false };
            match keys.get_mut(step) {
                Some(Value::Dict(_, inner)) if !rest.is_empty() => remove(inner, rest),
                Some(_) => keys.remove(step).is_some(),
                None => false,
            }
        }
        remove(&mut self.values, path)
    }
}

/// A key without a value (`tls:`) says nothing: as if it were not there.
fn without_nulls(values: Dict) -> Dict {
    let said = values.into_iter().filter(|(_, value)| !matches!(value, Value::Empty(..)));
    said.map(|(key, value)| match value {
        Value::Dict(tag, inner) => (key, Value::Dict(tag, without_nulls(inner))),
        value => (key, value),
    })
    .collect()
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}
