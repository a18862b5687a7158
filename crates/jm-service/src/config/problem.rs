//! What is wrong with a configuration, in one line.

use std::fmt;

use figment::{
    error::{Actual, Kind},
    value::Value,
};

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

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.value, &self.source) {
            (key, _, Some(source)) if key.is_empty() => write!(f, "{source}: {}", self.text),
            (key, Some(value), Some(source)) => write!(f, "{key} is {value} ({source}); {}", self.text),
            (key, Some(value), None) => write!(f, "{key} is {value} (default); {}", self.text),
            (key, None, Some(source)) => write!(f, "{key} ({source}): {}", self.text),
            (key, None, None) => write!(f, "{key}: {}", self.text),
        }
    }
}

/// Keys whose values are never shown, whatever section they are in.
const SECRETS: [&str; 6] = ["password", "api_key", "dsn", "access_key_id", "secret_access_key", "session_token"];

/// What is shown in place of a secret.
pub(super) const MASK: &str = "***";

pub(super) fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    SECRETS.contains(&last)
}

/// A value for messages and for `--print-config`.
pub(super) fn shown(key: &str, value: &Value) -> String {
    if is_secret(key) {
        return format!("\"{MASK}\"");
    }
    let text = match value.as_str() {
        Some(text) => serde_json::Value::String(without_password(text)).to_string(),
        None => serde_json::to_string(value).unwrap_or_else(|error| error.to_string()),
    };
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

const MAX_SHOWN_CHARS: usize = 200;

/// An address may carry a password: `postgres://user:password@host/database`.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // The last `@`: a password may contain one although it should not.
    let Some((userinfo, host)) = rest.rsplit_once('@') else { return text.to_owned() };
    match userinfo.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{MASK}@{host}"),
        None => text.to_owned(),
    }
}

/// What is allowed, from what serde would have liked.
pub(super) fn explained(kind: &Kind, secret: bool) -> String {
    match kind {
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
        Kind::Message(text) if text.contains("duration") => {
            "allowed: a duration such as 500ms, 30s, 5m or 1h 30m".to_owned()
        }
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
    use super::*;

    #[test]
    fn secrets_and_passwords_in_addresses_are_masked() {
        assert_eq!(shown("rabbitmq.password", &Value::from("canary")), "\"***\"");
        assert_eq!(shown("engine.api_key", &Value::from("canary")), "\"***\"");
        assert_eq!(
            shown("database.url", &Value::from("postgres://me:p@canary@db/notes")),
            r#""postgres://me:***@db/notes""#
        );
        assert_eq!(shown("database.url", &Value::from("sqlite://records.db")), r#""sqlite://records.db""#);
    }

    #[test]
    fn a_likely_typing_error_is_pointed_out() {
        let known = ["concurrency", "prefetch_per_worker"];
        assert_eq!(known_keys("concurency", &known), "did you mean `concurrency`?");
        assert_eq!(known_keys("prefetch_per_wroker", &known), "did you mean `prefetch_per_worker`?");
        assert_eq!(known_keys("workers", &known), "known here: concurrency, prefetch_per_worker");
    }
}
