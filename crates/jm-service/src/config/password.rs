//! The broker's password, or the file that has it: of both, the one from the source that wins.

use figment::value::{Empty, Tag, Value};

use super::{environment, layer::Layer, problem::Problem};

const SECTION: &str = "rabbitmq";
const PASSWORD: &str = "password";
const FILE: &str = "password_file";

/// Adds the password to each file of the configuration that names a file with it.
pub(super) fn read(layers: &mut [Layer]) -> Vec<Problem> {
    layers.iter_mut().filter_map(|layer| read_for(layer).err()).collect()
}

fn read_for(layer: &mut Layer) -> Result<(), Problem> {
    let Some(Value::Dict(_, keys)) = layer.values.get_mut(SECTION) else { return Ok(()) };
    let Some(path) = keys.get(FILE).and_then(Value::as_str).map(str::to_owned) else { return Ok(()) };
    let problem = |text: String| Problem {
        key: format!("{SECTION}.{FILE}"),
        value: None,
        source: Some(layer.source.clone()),
        text,
    };
    if keys.contains_key(PASSWORD) {
        return Err(problem(format!("{SECTION}.{PASSWORD} is set as well; only one of them may be")));
    }
    let password = environment::content(&path).map_err(problem)?;
    keys.insert(PASSWORD.to_owned(), Value::from(password));
    Ok(())
}

/// A password without a file takes the place of a file from an earlier source.
pub(super) fn one_of_both(layers: &mut [Layer]) {
    let mut from_file = false;
    for layer in layers {
        let Some(Value::Dict(_, keys)) = layer.values.get_mut(SECTION) else { continue };
        if keys.contains_key(FILE) {
            from_file = true;
        } else if from_file && keys.contains_key(PASSWORD) {
            keys.insert(FILE.to_owned(), Value::Empty(Tag::Default, Empty::None));
            from_file = false;
        }
    }
}
