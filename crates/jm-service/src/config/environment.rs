//! `JM_SECTION__KEY=value`, and `JM_SECTION__KEY_FILE=path` for mounted secrets.

use std::{ffi::OsString, path::Path};

use figment::value::Value;

use super::{
    file::{self, Unread},
    layer::Layer,
    problem::{Problem, is_secret},
};

const PREFIX: &str = "JM_";
/// Names the configuration's folder; not a key.
pub(super) const FOLDER: &str = "JM_CONFIG";
/// A mounted secret is a line.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Keys that are paths themselves, so that `_FILE` belongs to their names.
const PATHS: [&str; 3] = ["ca_file", "cert_file", "key_file"];

/// The secret whose file is read again while the worker runs, so that its path is an option too.
const ROTATED: (&str, &str) = ("rabbitmq", "password");

/// The variables that begin with our prefix. One whose value is no text is a mistake, and not somebody else's.
pub(super) fn ours(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Vec<Problem>,
) -> Vec<(String, String)> {
    let mut ours = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.into_string().ok().filter(|name| name.starts_with(PREFIX)) else { continue };
        match value.into_string() {
            Ok(value) => ours.push((name, value)),
            Err(_) => {
                problems.push(Problem::of_source(format!("environment variable {name}"), "its value is not UTF-8"));
            }
        }
    }
    ours.sort();
    ours
}

/// One layer for each variable that is a key, so that a mistake can name it.
pub(super) fn layers(ours: &[(String, String)], problems: &mut Vec<Problem>) -> Vec<Layer> {
    let mut layers = Vec::new();
    for (name, value) in ours {
        let Some(path) = path(name) else { continue };
        match layer(name, path, value, ours) {
            Ok(layer) => layers.push(layer),
            Err(problem) => problems.push(problem),
        }
    }
    layers
}

fn layer(name: &str, mut path: Vec<String>, value: &str, ours: &[(String, String)]) -> Result<Layer, Problem> {
    let source = format!("environment variable {name}");
    if path.iter().any(String::is_empty) {
        return Err(Problem::of_source(source, "not a key; they are written JM_SECTION__KEY"));
    }
    let from_file = path.last_mut().is_some_and(|last| {
        let from_file = last.ends_with("_file") && !PATHS.contains(&last.as_str());
        last.truncate(last.len() - if from_file { "_file".len() } else { 0 });
        from_file
    });
    if !from_file {
        let key = path.join(".");
        return Ok(Layer::of_value(source, &path, parsed(&key, value)));
    }
    let direct = name.trim_end_matches("_FILE");
    if ours.iter().any(|(other, _)| other == direct) {
        return Err(Problem::of_source(source, format!("{direct} is set as well; only one of them may be")));
    }
    let content = content(value).map_err(|text| Problem::of_source(&source, text))?;
    let mut layer = Layer::of_value(source, &path, Value::from(content));
    if let [section, key] = path.as_slice()
        && (section.as_str(), key.as_str()) == ROTATED
        && let Some(Value::Dict(_, keys)) = layer.values.get_mut(section)
    {
        keys.insert(format!("{key}_file"), Value::from(value));
    }
    Ok(layer)
}

/// Section and key; `None` for a variable that has no `__` and so is none of ours.
fn path(name: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = name.strip_prefix(PREFIX)?.split("__").collect();
    if parts.len() < 2 {
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
pub(super) fn content(path: &str) -> Result<String, String> {
    let content = file::text(Path::new(path), MAX_FILE_BYTES).map_err(|unread| match unread {
        Unread::Missing if is_in_a_folder(path) => format!("there is no file `{path}`"),
        Unread::Missing => NO_FILE.to_owned(),
        Unread::Because(reason) if is_in_a_folder(path) => format!("`{path}` {reason}"),
        Unread::Because(reason) => format!("what it names {reason}"),
    })?;
    let content = content.strip_suffix('\n').unwrap_or(&content);
    Ok(content.strip_suffix('\r').unwrap_or(content).to_owned())
}

/// What stands in such a variable may be the secret itself, by mistake. It is shown only where it leads into a folder
/// that is there, which no secret does.
fn is_in_a_folder(path: &str) -> bool {
    let folder = Path::new(path).parent().filter(|folder| folder.parent().is_some());
    folder.is_some_and(Path::is_dir)
}

const NO_FILE: &str = "it has to be the path of a file, and there is none (not shown: it may be the secret itself)";

/// Variables that are no keys and look as if they should be: with one underscore where two belong they would be ignored
/// without a word.
pub(super) fn mistaken(ours: &[(String, String)], sections: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in ours.iter().filter(|(name, _)| name != FOLDER && path(name).is_none()) {
        if of_kubernetes(name, value) {
            continue;
        }
        let rest = &name[PREFIX.len()..];
        let section = sections.iter().map(|section| section.to_uppercase()).find(|section| {
            rest.strip_prefix(section.as_str()).is_some_and(|key| key.is_empty() || key.starts_with('_'))
        });
        let Some(section) = section else { continue };
        let key = rest[section.len()..].trim_start_matches('_');
        let text = match key {
            "" => format!("not used; it is a section, with keys such as {PREFIX}{section}__KEY"),
            key => format!("not used; did you mean {PREFIX}{section}__{key}?"),
        };
        problems.push(Problem::of_source(format!("environment variable {name}"), text));
    }
    problems
}

/// Kubernetes puts `JM_X_SERVICE_HOST`, `JM_X_PORT_80_TCP_ADDR` and the like into every container that shares a
/// namespace with a service named `jm-x`. Those are none of ours, and no mistake.
fn of_kubernetes(name: &str, value: &str) -> bool {
    let numbered_port = name.split("_PORT_").skip(1).any(|rest| {
        let number = rest.split('_').next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    });
    numbered_port
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && value.contains("://"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read_all(variables: &[(&str, &str)]) -> (Vec<Layer>, Vec<String>) {
        let mut problems = Vec::new();
        let ours = ours(variables.iter().map(|(name, value)| (name.into(), value.into())), &mut problems);
        let layers = layers(&ours, &mut problems);
        problems.extend(mistaken(&ours, &["consumer", "rabbitmq", "greeting", "database"]));
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

        let missing = folder.path().join("missing");
        let (_, problems) = read_all(&[
            ("JM_DATABASE__URL_FILE", missing.to_str().unwrap()),
            ("JM_ENGINE__API_KEY_FILE", "canary"),
            ("JM_SENTRY__DSN_FILE", "/canary"),
            ("JM_RABBITMQ__PASSWORD", "x"),
            ("JM_RABBITMQ__PASSWORD_FILE", path),
        ]);
        assert_eq!(
            problems,
            [
                format!("environment variable JM_DATABASE__URL_FILE: there is no file `{}`", missing.display()),
                format!("environment variable JM_ENGINE__API_KEY_FILE: {NO_FILE}"),
                "environment variable JM_RABBITMQ__PASSWORD_FILE: JM_RABBITMQ__PASSWORD is set as well; only one of them may be".to_owned(),
                format!("environment variable JM_SENTRY__DSN_FILE: {NO_FILE}"),
            ]
        );
    }

    #[test]
    fn a_value_that_is_no_text_is_a_mistake_only_if_it_is_ours() {
        use std::os::unix::ffi::OsStringExt as _;
        let mut problems = Vec::new();
        let variable = |name: &str| (OsString::from(name), OsString::from_vec(vec![0xff, 0xfe]));
        let ours = ours([variable("JM_RABBITMQ__PASSWORD"), variable("LS_COLORS")], &mut problems);
        assert!(ours.is_empty());
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["environment variable JM_RABBITMQ__PASSWORD: its value is not UTF-8"]);
    }

    #[test]
    fn one_underscore_too_few_is_a_mistake_and_what_kubernetes_adds_is_none() {
        let (layers, problems) = read_all(&[
            ("JM_RABBITMQ_HOST", "rabbit"),
            ("JM_RABBITMQ_SERVICE_HOST", "10.0.0.1"),
            ("JM_RABBITMQ_PORT", "tcp://10.0.0.1:5672"),
            ("JM_RABBITMQ_PORT_5672_TCP_ADDR", "10.0.0.1"),
            ("JM_LLM_WORKER_SERVICE_PORT", "9090"),
            ("JM_DATABASE_RW_SERVICE_HOST", "10.0.0.1"),
            ("JM_DATABASE_RW_SERVICE_PORT_POSTGRES", "5432"),
            ("JM_DATABASE_RW_PORT", "tcp://10.0.0.1:5432"),
            ("JM_DATABASE_RW_PORT_5432_TCP", "tcp://10.0.0.1:5432"),
            ("JM_GREETING_WORDS", "Hi"),
            ("JM_CONSUMER", "5"),
            ("JM_CONSUMER__", "5"),
            ("JM_SOMETHING_ELSE", "of somebody else"),
        ]);
        assert!(layers.is_empty());
        assert_eq!(
            problems,
            [
                "environment variable JM_CONSUMER__: not a key; they are written JM_SECTION__KEY",
                "environment variable JM_CONSUMER: not used; it is a section, with keys such as JM_CONSUMER__KEY",
                "environment variable JM_GREETING_WORDS: not used; did you mean JM_GREETING__WORDS?",
                "environment variable JM_RABBITMQ_HOST: not used; did you mean JM_RABBITMQ__HOST?",
            ]
        );
    }
}
