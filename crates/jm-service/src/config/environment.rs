//! `JM_SECTION__KEY=value`, and `JM_SECTION__KEY_FILE=path` for mounted secrets.

use std::fs;

use figment::value::Value;

use super::{
    layer::Layer,
    problem::{Problem, is_secret},
};

const PREFIX: &str = "JM_";
/// Names the configuration's folder; not a key.
pub(super) const FOLDER: &str = "JM_CONFIG";
/// A mounted secret is a line; whatever is larger is the wrong file.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The sections there are, to tell a typing error (`JM_RABBITMQ_HOST`) from what is none of ours.
const SECTIONS: [&str; 10] =
    ["AUDIO", "CONSUMER", "DATABASE", "ENGINE", "HTTP", "LOG", "PIPELINE", "PUBLISHER", "RABBITMQ", "SENTRY"];
/// Keys that are paths themselves, so that `_FILE` belongs to their names.
const PATHS: [&str; 3] = ["ca_file", "cert_file", "key_file"];

/// One layer for each variable of ours, so that a mistake can name it.
pub(super) fn layers(environment: &[(String, String)], problems: &mut Vec<Problem>) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut ours: Vec<&(String, String)> =
        environment.iter().filter(|(name, _)| name.starts_with(PREFIX) && name != FOLDER).collect();
    ours.sort();
    for (name, value) in &ours {
        match layer(name, value, &ours) {
            Ok(layer) => layers.extend(layer),
            Err(problem) => problems.push(problem),
        }
    }
    layers
}

fn layer(name: &str, value: &str, all: &[&(String, String)]) -> Result<Option<Layer>, Problem> {
    let source = format!("environment variable {name}");
    let Some(mut path) = path(name) else {
        // Kubernetes puts `JM_X_SERVICE_HOST` and the like into every container that shares a namespace with a
        // service named `jm-x`. Those are none of ours, and no mistake.
        return likely_mistake(name, value).map_or(Ok(None), |text| Err(Problem::of_source(source, text)));
    };
    let Some(last) = path.last_mut() else { return Ok(None) };
    let from_file = !PATHS.contains(&last.as_str()) && last.ends_with("_file");
    if !from_file {
        let key = path.join(".");
        return Ok(Some(Layer::of_value(source, &path, parsed(&key, value))));
    }
    last.truncate(last.len() - "_file".len());
    let direct = name.trim_end_matches("_FILE");
    if all.iter().any(|(other, _)| other == direct) {
        return Err(Problem::of_source(source, format!("{direct} is set as well; only one of them may be")));
    }
    let content = read(value).map_err(|text| Problem::of_source(&source, text))?;
    Ok(Some(Layer::of_value(source, &path, Value::from(content))))
}

/// Section and key; `None` for a variable that has no `__` and so is none of ours.
fn path(name: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = name.strip_prefix(PREFIX)?.split("__").collect();
    if parts.len() < 2 || parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    // Names of message types are the producers', capitals and all.
    let aliases = parts.iter().position(|part| part.eq_ignore_ascii_case("type_aliases")).unwrap_or(parts.len());
    let lower = |(index, part): (usize, &&str)| if index > aliases { (*part).to_owned() } else { part.to_lowercase() };
    Some(parts.iter().enumerate().map(lower).collect())
}

/// Environment variables are strings, and stay strings: `12345` and `true` are good passwords. What has to be a number
/// is read as one later. Only lists and mappings, which no string could stand for, are read as YAML.
fn parsed(key: &str, value: &str) -> Value {
    let structured = !is_secret(key) && value.starts_with(['[', '{']);
    let parsed = structured.then(|| serde_saphyr::from_str::<Value>(value).ok()).flatten();
    parsed.unwrap_or_else(|| Value::from(value))
}

/// The file's content without the line's end that editors and `echo` add.
fn read(path: &str) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("`{path}` cannot be read: {error}");
    if fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(format!("`{path}` is larger than 64 KiB, so it is not a secret"));
    }
    let content = fs::read_to_string(path).map_err(unreadable)?;
    let content = content.strip_suffix('\n').unwrap_or(&content);
    Ok(content.strip_suffix('\r').unwrap_or(content).to_owned())
}

/// A variable with one underscore where two belong would otherwise be ignored without a word.
fn likely_mistake(name: &str, value: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    let section = SECTIONS.into_iter().find(|section| {
        rest.strip_prefix(section).is_some_and(|key| key.len() > 1 && key.starts_with('_') && !key.starts_with("__"))
    })?;
    let key = &rest[section.len() + 1..];
    let of_kubernetes =
        key.starts_with("SERVICE_") || key.starts_with("PORT_") || (key == "PORT" && value.contains("://"));
    (!of_kubernetes).then(|| format!("not used; did you mean {PREFIX}{section}__{key}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(variables: &[(&str, &str)]) -> (Vec<Layer>, Vec<String>) {
        let environment: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut problems = Vec::new();
        let layers = layers(&environment, &mut problems);
        (layers, problems.iter().map(ToString::to_string).collect())
    }

    fn key(path: &str) -> Vec<String> {
        path.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn two_underscores_separate_levels_and_values_stay_strings() {
        let (layers, problems) = read_all(&[
            ("JM_RABBITMQ__PASSWORD", "[12345"),
            ("JM_CONSUMER__TYPE_ALIASES__Summary", "llm.summarize"),
            ("JM_RABBITMQ__HOSTS", "[{host: b}]"),
            ("PATH", "/bin"),
        ]);
        assert!(problems.is_empty(), "{problems:?}");
        let find = |path: &str| layers.iter().find_map(|layer| layer.find(&key(path))).cloned();
        assert_eq!(find("rabbitmq.password").unwrap().as_str(), Some("[12345"));
        assert_eq!(find("consumer.type_aliases.Summary").unwrap().as_str(), Some("llm.summarize"));
        assert!(find("rabbitmq.hosts").unwrap().as_array().is_some());
        assert_eq!(layers.len(), 3);
    }

    #[test]
    fn a_mounted_file_gives_the_value_without_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "p@ss word\n\n").unwrap();
        let path = file.to_str().unwrap();
        let (layers, problems) =
            read_all(&[("JM_RABBITMQ__PASSWORD_FILE", path), ("JM_RABBITMQ__TLS__CA_FILE", "/ca.pem")]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(layers[0].find(&key("rabbitmq.password")).unwrap().as_str(), Some("p@ss word\n"));
        assert_eq!(layers[1].find(&key("rabbitmq.tls.ca_file")).unwrap().as_str(), Some("/ca.pem"));

        let (_, problems) = read_all(&[
            ("JM_SENTRY__DSN_FILE", "/no/such/file"),
            ("JM_RABBITMQ__PASSWORD", "x"),
            ("JM_RABBITMQ__PASSWORD_FILE", path),
        ]);
        assert_eq!(
            problems,
            [
                "environment variable JM_RABBITMQ__PASSWORD_FILE: JM_RABBITMQ__PASSWORD is set as well; only one of them may be",
                "environment variable JM_SENTRY__DSN_FILE: `/no/such/file` cannot be read: No such file or directory (os error 2)",
            ]
        );
    }

    #[test]
    fn one_underscore_too_few_is_a_mistake_and_what_kubernetes_adds_is_none() {
        let (layers, problems) = read_all(&[
            ("JM_RABBITMQ_HOST", "rabbit"),
            ("JM_RABBITMQ_SERVICE_HOST", "10.0.0.1"),
            ("JM_RABBITMQ_PORT", "tcp://10.0.0.1:5672"),
            ("JM_RABBITMQ_PORT_5672_TCP_ADDR", "10.0.0.1"),
            ("JM_LLM_WORKER_SERVICE_PORT", "9090"),
        ]);
        assert!(layers.is_empty());
        assert_eq!(problems, ["environment variable JM_RABBITMQ_HOST: not used; did you mean JM_RABBITMQ__HOST?"]);
    }
}
