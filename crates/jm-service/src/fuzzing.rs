//! What must hold of any configuration, for property tests and for `make fuzz`. Not part of the crate otherwise.

#![allow(clippy::missing_panics_doc, reason = "a broken promise is a panic, of every function here")]

use std::ffi::OsString;

use crate::config::{NoSettings, fuzzed};

/// Stands in every key that is a secret.
pub const CANARY: &str = "c4nary+Sec/ret=7";

/// No mistake is told in more.
const MAX_PROBLEM_CHARS: usize = 2000;

/// A file, and behind its first zero byte lines of `NAME=value` for the environment. It is read, or every mistake is
/// one readable line. What `--print-config` shows is YAML again. Neither has a secret in it.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if text.contains(CANARY) {
        // What stands where no secret belongs is no secret.
        return;
    }
    let (yaml, variables) = text.split_once('\0').unwrap_or((&text, ""));
    let secrets = ["JM_RABBITMQ__PASSWORD", "JM_ENGINE__API_KEY", "JM_SENTRY__DSN"];
    let environment = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        // What a variable names is read: nothing but what is here.
        .filter(|(name, _)| !name.contains("_FILE") && !secrets.contains(name))
        .chain(secrets.map(|name| (name, CANARY)))
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let outcome = fuzzed::<NoSettings>(yaml, environment);
    assert!(!outcome.printed.contains(CANARY), "a secret is printed");
    for problem in &outcome.problems {
        assert!(!problem.contains(CANARY), "a secret is told: {problem}");
        assert!(problem.chars().count() <= MAX_PROBLEM_CHARS, "{} characters", problem.chars().count());
        assert!(!problem.chars().any(char::is_control), "more than a line, or a terminal's command: {problem:?}");
    }
    assert!(outcome.printed_is_yaml, "--print-config is no YAML: {}", outcome.printed);
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::configuration;

    const SECTIONS: [&str; 9] =
        ["rabbitmq", "consumer", "publisher", "http", "sentry", "log", "engine", "consumer.type_aliases", "odd"];
    const KEYS: [&str; 16] = [
        "host",
        "port",
        "password",
        "vhost",
        "hosts",
        "tls",
        "heartbeat",
        "concurrency",
        "handler_timeout",
        "dead_letter",
        "queue",
        "listen",
        "level",
        "format",
        "dsn",
        "type_aliases",
    ];
    const VALUES: [&str; 18] = [
        "\"5672\"",
        "0",
        "-1",
        "1e400",
        "99999999999999999999",
        "10s",
        "5 parsecs",
        "true",
        "~",
        "[]",
        "{}",
        "[a, {b: c}]",
        "{ca_file: /x}",
        "!!binary aGk=",
        "&a [*a]",
        "\"\\u001b[2J\\n\"",
        "topic",
        "secret",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_breaks_a_promise(text in "\\PC{0,60}|[ a-z0-9:{}\\[\\],&*!|>'\"\\n\\t#%@~-]{0,200}", bytes in vec(any::<u8>(), 0..100)) {
            configuration(text.as_bytes());
            configuration(&bytes);
        }

        #[test]
        fn no_mixture_of_keys_and_values_breaks_a_promise(
            keys in vec((select(&SECTIONS[..]), select(&KEYS[..]), select(&VALUES[..])), 0..8),
            variables in vec((select(&SECTIONS[..]), select(&KEYS[..]), "\\PC{0,20}"), 0..5),
        ) {
            let mut text = String::new();
            for section in SECTIONS {
                let lines: Vec<String> = keys.iter().filter(|key| key.0 == section)
                    .map(|(_, key, value)| format!("  {key}: {value}\n")).collect();
                if !lines.is_empty() {
                    text.extend([section, ":\n", &lines.concat()]);
                }
            }
            text.push('\0');
            for (section, key, value) in variables {
                let name = format!("JM_{}__{key}", section.replace('.', "__")).to_uppercase();
                text.extend([&name, "=", &value, "\n"]);
            }
            configuration(text.as_bytes());
        }
    }

    #[test]
    fn what_libfuzzer_found_breaks_no_promise_any_more() {
        // A note in the place of a configuration: its first line is a key.
        configuration(b"\xa3 The files of th\tis folder: a changed file\n");
        configuration(b"\"a\\eb\": 1\nrabbitmq: {\"a\\nb\": 1}\n");
    }

    #[test]
    fn a_file_that_would_grow_without_end_is_refused_soon() {
        let begin = std::time::Instant::now();
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for n in 1..12 {
            let one = format!("*a{}", n - 1);
            let line = format!("a{n}: &a{n} [{}]\n", vec![one; 9].join(", "));
            laughs.push_str(&line);
        }
        configuration(laughs.as_bytes());
        configuration("[".repeat(100_000).as_bytes());
        configuration("a: {".repeat(20_000).as_bytes());
        assert!(begin.elapsed() < std::time::Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}
