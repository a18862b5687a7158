//! Reading typed sections out of the layers, with every mistake in them.

use figment::{Figment, error::Kind, value::Value};
use jm_mq_core::OptionsError;
use serde::de::DeserializeOwned;

use super::{
    environment,
    layer::Layer,
    problem::{Problem, explained, is_secret, known_keys, shown},
};

/// More mistakes than this in one section are reported in the next start.
const MAX_MISTAKES: usize = 50;

/// The configuration's sections, on their way to becoming typed options.
///
/// After a mistake its key is left out and the section read again, so that the next mistake is found as well. A section
/// that nobody reads is a mistake too.
#[derive(Debug)]
pub struct Sections {
    layers: Vec<Layer>,
    problems: Vec<Problem>,
    read: Vec<&'static str>,
}

impl Sections {
    pub(super) fn new(mut layers: Vec<Layer>, mut problems: Vec<Problem>) -> Self {
        // A section that is no mapping would replace the whole section of the sources before it.
        for layer in &mut layers {
            let wrong = layer.values.iter().filter(|(_, value)| value.as_dict().is_none());
            problems.extend(wrong.map(|(section, _)| Problem {
                key: section.clone(),
                // It may be a secret at the wrong place.
                value: None,
                source: Some(layer.source.clone()),
                text: "allowed: a mapping of keys to values".into(),
            }));
            layer.values.retain(|_, value| value.as_dict().is_some());
        }
        Self { layers, problems, read: Vec::new() }
    }

    /// Reads one section. What is wrong with it is remembered, and `T`'s default stands in for it.
    pub fn read<T: DeserializeOwned + Default>(
        &mut self,
        section: &'static str,
        validate: impl Fn(&T) -> Result<(), OptionsError>,
    ) -> T {
        self.read_keys(section, |_| true, validate)
    }

    /// Reads those of a section's keys that belong to `T`, where several types share one section.
    pub(super) fn read_keys<T: DeserializeOwned + Default>(
        &mut self,
        section: &'static str,
        belongs: impl Fn(&str) -> bool,
        validate: impl Fn(&T) -> Result<(), OptionsError>,
    ) -> T {
        if !self.read.contains(&section) {
            self.read.push(section);
        }
        let mut layers: Vec<Layer> = self.layers.iter().map(|layer| only(layer, section, &belongs)).collect();
        for _ in 0..MAX_MISTAKES {
            let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer.clone()));
            if !figment.contains(section) {
                return T::default();
            }
            let (path, problem) = match figment.focus(section).extract_lossy::<T>() {
                Err(error) => self.misread(section, &error),
                Ok(options) => match validate(&options) {
                    Ok(()) => return options,
                    Err(error) => self.out_of_range(section, &error),
                },
            };
            if self.problems.iter().all(|known| known.key != problem.key) {
                self.problems.push(problem);
            }
            let mut removed = false;
            for layer in &mut layers {
                removed |= layer.remove(&path);
            }
            if !removed {
                // A default that does not fit, or a required key: leaving out anything would not help.
                break;
            }
        }
        T::default()
    }

    /// Tells whether anything was wrong.
    pub(super) fn finish(mut self, environment: &[(String, String)]) -> Result<(), Vec<Problem>> {
        self.problems.extend(environment::mistaken(environment, &self.read));
        for layer in &self.layers {
            for section in layer.values.keys().filter(|section| !self.read.contains(&section.as_str())) {
                let text = format!("unknown section; {}", known_keys(section, &self.read));
                let source = Some(layer.source.clone());
                self.problems.push(Problem { key: section.clone(), value: None, source, text });
            }
        }
        if self.problems.is_empty() { Ok(()) } else { Err(self.problems) }
    }

    fn misread(&self, section: &str, error: &figment::Error) -> (Vec<String>, Problem) {
        let mut path = vec![section.to_owned()];
        path.extend(error.path.iter().cloned());
        // These two are told of the place where the key is, or should be.
        match &error.kind {
            Kind::UnknownField(field, _) if path.last() != Some(field) => path.push(field.clone()),
            Kind::MissingField(field) if path.last().is_none_or(|last| last != field) => path.push(field.to_string()),
            _ => {}
        }
        let secret = is_secret(&path.join("."));
        let mut problem = self.problem(&path, None, explained(&error.kind, secret));
        if matches!(error.kind, Kind::UnknownField(..)) {
            // It may be a secret whose name was mistyped.
            problem.value = None;
        }
        (path, problem)
    }

    fn out_of_range(&self, section: &str, error: &OptionsError) -> (Vec<String>, Problem) {
        // Some options are named with their section already.
        let option =
            error.option.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')).unwrap_or(&error.option);
        // No option is deeper; what follows may be a name with dots in it.
        let path: Vec<String> = std::iter::once(section).chain(option.splitn(2, '.')).map(str::to_owned).collect();
        let problem = self.problem(&path, Some(&error.value), format!("allowed: {}", error.allowed));
        (path, problem)
    }

    /// Remembers what is wrong with the combination of several options.
    pub(super) fn reject(&mut self, section: &str, error: &OptionsError) {
        let (_, problem) = self.out_of_range(section, error);
        self.problems.push(problem);
    }

    fn problem(&self, path: &[String], value: Option<&str>, text: String) -> Problem {
        let key = path.join(".");
        let found = self.layers.iter().rev().find_map(|layer| Some((layer.find(path)?, layer)));
        let (value, source) = match found {
            Some((value, layer)) => (Some(shown(&key, value)), Some(layer.source.clone())),
            None => (value.map(|value| shown(&key, &Value::from(value))), None),
        };
        Problem { key, value, source, text }
    }
}

/// The layer with one section, and of that only some keys.
fn only(layer: &Layer, section: &str, belongs: impl Fn(&str) -> bool) -> Layer {
    let mut layer = layer.clone();
    layer.values.retain(|name, _| name == section);
    for value in layer.values.values_mut() {
        if let Value::Dict(_, keys) = value {
            keys.retain(|key, _| belongs(key));
        }
    }
    layer.values.retain(|_, value| !matches!(value, Value::Dict(_, keys) if keys.is_empty()));
    layer
}
