//! What is wrong with a configuration, in one line.

use std::fmt;

use figment::{
    error::{Actual, Kind},
    value::Value,
};
use jm_mq_core::OptionsError;

use crate::escape::escaped;

/// A mistake in the configuration: which key has which value from where, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key with its section, as in `consumer.prefetch_per_worker`; empty if it is about a whole source.
    pub key: String,
    /// The value as it was written; secrets are masked. `None` if there is none.
    pub value: Option<String>,
    /// The file, or the environment variable.
    pub source: Option<String>,
    /// What is wrong or allowed.
    pub text: String,
}

impl Problem {
    /// About a file or variable as a whole.
    pub(crate) fn of_source(source: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: String::new(), value: None, source: Some(source.into()), text: text.into() }
    }
}

impl Problem {
    /// About an option that was found wrong when it was put to use.
    pub(crate) fn of_option(section: &str, error: &OptionsError) -> Self {
        Self {
            key: format!("{section}.{}", error.option),
            value: Some(serde_json::Value::from(error.value.as_str()).to_string()),
            source: None,
            text: format!("allowed: {}", error.allowed),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = match (&self.key, &self.value, &self.source) {
            (key, _, Some(source)) if key.is_empty() => format!("{source}: {}", self.text),
            (key, Some(value), Some(source)) => format!("{key} is {value} ({source}); {}", self.text),
            (key, Some(value), None) => format!("{key} is {value}; {}", self.text),
            (key, None, Some(source)) => format!("{key} ({source}): {}", self.text),
            (key, None, None) => format!("{key}: {}", self.text),
        };
        // One line, and none of a terminal's commands: anything may stand in a file in the place of a key.
        let line = escaped(&told);
        match line.char_indices().nth(MAX_CHARS) {
            Some((end, _)) => write!(f, "{}…", &line[..end]),
            None => f.write_str(&line),
        }
    }
}

/// Longer is no mistake of a configuration, but another file in its place.
const MAX_CHARS: usize = 1000;

/// Keys whose values are never shown, whatever section they are in.
const SECRETS: [&str; 6] = ["password", "api_key", "dsn", "access_key_id", "secret_access_key", "session_token"];

/// Sections whose every value may be a key: an engine's headers, and what is added to its address.
const SECRET_SECTIONS: [&str; 2] = ["headers", "query"];

/// What is shown in place of a secret.
pub(super) const MASK: &str = "***";

pub(super) fn is_secret(key: &str) -> bool {
    let mut names = key.rsplit('.');
    let last = names.next().unwrap_or(key);
    SECRETS.contains(&last) || names.next().is_some_and(|section| SECRET_SECTIONS.contains(&section))
}

/// A value for `--print-config`, as JSON, which is YAML too. Secrets are masked wherever they are in it.
pub(super) fn printed(key: &str, value: &Value) -> String {
    masked(key, value).to_string()
}

/// A value for a message: the same, of a readable length.
pub(super) fn shown(key: &str, value: &Value) -> String {
    let text = printed(key, value);
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

const MAX_SHOWN_CHARS: usize = 200;

fn masked(key: &str, value: &Value) -> serde_json::Value {
    if is_secret(key) {
        return MASK.into();
    }
    match value {
        Value::String(_, text) if may_be_key(key, text) => MASK.into(),
        Value::String(_, text) => without_credentials(key, text).into(),
        Value::Array(_, items) => items.iter().map(|item| masked(key, item)).collect(),
        Value::Dict(_, keys) => {
            keys.iter().map(|(name, value)| (name.clone(), masked(&format!("{key}.{name}"), value))).collect()
        }
        value => serde_json::to_value(value).unwrap_or_default(),
    }
}

/// A private key may stand where the path of its file belongs, or in the place of the whole `tls`.
fn may_be_key(key: &str, text: &str) -> bool {
    /// The shortest private key (Ed25519) as text; a path that long begins at the root.
    const KEY_CHARS: usize = 64;
    let name = key.rsplit('.').next().unwrap_or(key);
    let path = text.starts_with('/') || text.len() < KEY_CHARS;
    text.contains("-----BEGIN") || name == "tls" || (name.ends_with("_file") && !path)
}

/// An address may carry a password (`postgres://user:password@host/database`) or a key in its query.
fn without_credentials(key: &str, text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        // Not an address, although it should be one: who knows what it is.
        let should_be = ["url", "endpoint", "host", "hosts", "proxy"].iter().any(|address| key.ends_with(address));
        return if should_be && text.contains('@') { MASK.into() } else { text.to_owned() };
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, format!("?{MASK}")),
        None => (rest, String::new()),
    };
    // The last `@`: a password may contain one although it should not.
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{MASK}@{host}{query}"),
        None => format!("{scheme}://{rest}{query}"),
    }
}

const DURATIONS: &str = "allowed: a duration such as 500ms, 30s, 5m or 1h 30m";

/// What is allowed, from what serde would have liked.
pub(super) fn explained(kind: &Kind, secret: bool) -> String {
    match kind {
        Kind::InvalidType(_, expected) if expected.contains("duration") => DURATIONS.to_owned(),
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            let hint = if matches!(actual, Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) | Actual::Bool(_))
                && expected == "a string"
            {
                "; put it in quotes"
            } else {
                ""
            };
            format!("allowed: {}{hint}", in_words(expected))
        }
        Kind::UnknownVariant(_, allowed) => format!("allowed: {}", allowed.join(", ")),
        Kind::UnknownField(field, known) => format!("unknown key; {}", known_keys(field, known)),
        Kind::MissingField(_) => "it is required".to_owned(),
        Kind::Message(_) if secret => "it cannot be used".to_owned(),
        // jiff explains at length where it stopped to understand.
        Kind::Message(text) if text.contains("duration") => DURATIONS.to_owned(),
        Kind::Message(text) => text.clone(),
        other => other.to_string(),
    }
}

fn in_words(expected: &str) -> String {
    let range = |least: &str, most: &str| format!("a whole number from {least} to {most}");
    match expected {
        "u8" => range("0", "255"),
        "u16" => range("0", "65535"),
        "u32" => range("0", "4294967295"),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list, such as [a, b]".to_owned(),
        "a map" => "a mapping, such as { key: value }".to_owned(),
        other => other.to_owned(),
    }
}

/// The keys that exist, the likeliest one first where a typing error is obvious.
pub(super) fn known_keys(unknown: &str, known: &[&str]) -> String {
    let near = known.iter().find(|key| one_edit_apart(unknown, key));
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// Whether one insertion, deletion or replacement, or two swapped letters, turns one into the other.
fn one_edit_apart(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same_start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let same_end = a[same_start..].iter().rev().zip(b[same_start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (rest_a, rest_b) = (&a[same_start..a.len() - same_end], &b[same_start..b.len() - same_end]);
    let swapped = rest_a.len() == 2 && rest_b.len() == 2 && rest_a[0] == rest_b[1] && rest_a[1] == rest_b[0];
    swapped || rest_a.len() <= 1 && rest_b.len() <= 1
}

#[cfg(test)]
mod tests {
    use figment::value::Dict;

    use super::*;

    #[test]
    fn secrets_and_passwords_in_addresses_are_masked() {
        assert_eq!(shown("rabbitmq.password", &Value::from("canary")), "\"***\"");
        assert_eq!(shown("engine.api_key", &Value::from("canary")), "\"***\"");
        assert_eq!(
            shown("database.url", &Value::from("postgres://me:p@canary@db/notes")),
            r#""postgres://***@db/notes""#
        );
        for (key, text) in [
            ("engine.base_url", "https://canary@host/v1"),
            ("engine.base_url", "https://host/v1?api_key=canary"),
            ("database.url", "postgres://host/notes?user=me&password=canary"),
            ("database.url", "me:canary@host/notes"),
        ] {
            assert!(!shown(key, &Value::from(text)).contains("canary"), "{text}");
        }
        let nested = Value::from(Dict::from([("password".to_owned(), Value::from("canary"))]));
        assert_eq!(shown("rabbitmq", &nested), r#"{"password":"***"}"#);
        assert_eq!(shown("rabbitmq.hosts", &Value::from(vec![nested])), r#"[{"password":"***"}]"#);
        assert_eq!(shown("database.url", &Value::from("sqlite://records.db")), r#""sqlite://records.db""#);
    }

    #[test]
    fn a_private_key_in_the_place_of_its_file_is_masked() {
        let line = "canary".repeat(11);
        for (key, text) in [
            ("rabbitmq.tls.key_file", "-----BEGIN PRIVATE KEY-----\ncanary"),
            ("rabbitmq.tls.key_file", line.as_str()),
            ("rabbitmq.tls", "canary"),
            ("rabbitmq.vhost", "-----BEGIN PRIVATE KEY-----\ncanary"),
        ] {
            assert_eq!(shown(key, &Value::from(text)), "\"***\"", "{key}");
            assert_eq!(shown(key, &Value::from(vec![text])), "[\"***\"]", "{key}");
        }
        for path in ["/etc/jm/client.key", "tls/client.key"] {
            assert_eq!(shown("rabbitmq.tls.key_file", &Value::from(path)), format!("\"{path}\""));
        }
    }

    #[test]
    fn what_is_told_is_one_line_of_a_readable_length_whatever_stands_in_the_place_of_a_key() {
        let told = |key: &str| {
            let mut problem = Problem::of_source("worker.yaml", "allowed: a mapping of keys to values");
            problem.key = key.to_owned();
            problem.to_string()
        };
        let line = told("of\tthis\nfolder \u{1b}[2J\u{85}");
        assert_eq!(
            line,
            r"of\u0009this\u000afolder \u001b[2J\u0085 (worker.yaml): allowed: a mapping of keys to values"
        );
        assert_eq!(told(&"k".repeat(9000)), format!("{}…", "k".repeat(1000)));
    }

    #[test]
    fn a_likely_typing_error_is_pointed_out() {
        let known = ["concurrency", "prefetch_per_worker"];
        assert_eq!(known_keys("concurency", &known), "did you mean `concurrency`?");
        assert_eq!(known_keys("prefetch_per_wroker", &known), "did you mean `prefetch_per_worker`?");
        assert_eq!(known_keys("workers", &known), "known here: concurrency, prefetch_per_worker");
    }
}
