//! The merged configuration for people: valid YAML, each value with its source.

use std::fmt::Write as _;

use figment::{
    Figment,
    value::{Dict, Value},
};

use super::{layer::Layer, problem::printed};

/// The column in which sources are written, where the values leave room.
const SOURCE_COLUMN: usize = 48;

pub(super) fn yaml(layers: &[Layer]) -> String {
    let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer.clone()));
    let values: Dict = figment.extract().unwrap_or_default();
    let mut text = String::new();
    write(&mut text, &values, &mut Vec::new(), layers);
    text
}

fn write(text: &mut String, values: &Dict, path: &mut Vec<String>, layers: &[Layer]) {
    for (key, value) in values {
        let indent = "  ".repeat(path.len());
        path.push(key.clone());
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => {
                _ = writeln!(text, "{indent}{}:", name(key));
                write(text, inner, path, layers);
            }
            _ => {
                let line = format!("{indent}{}: {}", name(key), printed(&path.join("."), value));
                let source = layers.iter().rev().find(|layer| layer.find(path).is_some());
                let source = source.map_or("", |layer| layer.source.as_str());
                _ = writeln!(text, "{line:<SOURCE_COLUMN$} # {source}");
            }
        }
        path.pop();
    }
}

/// A key in quotes if it needs them.
fn name(key: &str) -> String {
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) && !key.is_empty();
    if plain { key.to_owned() } else { serde_json::Value::String(key.to_owned()).to_string() }
}
