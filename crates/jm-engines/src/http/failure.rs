//! What of a server's error may be shown.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// The part of an error's body that we look at.
///
/// Servers put the prompt, and parts of the key, into their messages. Only short identifiers are shown
/// (`rate_limit_exceeded`), and only if they come neither from the request's texts nor from its key.
#[derive(Debug, Default)]
pub(crate) struct Said {
    identifiers: Vec<String>,
    too_long: bool,
}

/// The fields with identifiers in them, in the order in which they are shown.
const FIELDS: [&str; 3] = ["code", "type", "param"];
/// The longest identifier that is shown.
const MAX_IDENTIFIER: usize = 64;
/// How servers say in a code that a text has too many tokens: `OpenAI`, llama.cpp.
const TOO_LONG_CODES: [&str; 2] = ["context_length_exceeded", "exceed_context_size_error"];
/// How vLLM says it, which has no code for it.
const TOO_LONG_WORDS: &str = "maximum context length";

impl Said {
    /// Reads a body: `{"error": {"code": …}}`, or the same without `error` around it, as vLLM once had it.
    pub(crate) fn read(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let error = body.get("error").unwrap_or(&body);
        let strings = FIELDS.iter().filter_map(|field| error.get(field)?.as_str());
        let identifiers: Vec<String> = strings.filter(|text| is_identifier(text)).map(str::to_owned).collect();
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
        let too_long =
            identifiers.iter().any(|code| TOO_LONG_CODES.contains(&code.as_str())) || message.contains(TOO_LONG_WORDS);
        Self { identifiers, too_long }
    }

    /// Whether the text had too many tokens for the model.
    pub(crate) fn is_too_long(&self) -> bool {
        self.too_long
    }

    /// ` (code, type, param)`, as far as they are there and may be shown.
    pub(crate) fn shown(&self, key: Option<&SecretString>, texts: &[&str]) -> String {
        let secret = |identifier: &str| {
            let of_key = key.is_some_and(|key| {
                let key = key.expose_secret();
                key.contains(identifier) || identifier.contains(key)
            });
            of_key || texts.iter().any(|text| text.contains(identifier))
        };
        let mut shown: Vec<&str> = Vec::new();
        for identifier in &self.identifiers {
            if !secret(identifier) && !shown.contains(&identifier.as_str()) {
                shown.push(identifier);
            }
        }
        if shown.is_empty() { String::new() } else { format!(" ({})", shown.join(", ")) }
    }
}

fn is_identifier(text: &str) -> bool {
    (1..=MAX_IDENTIFIER).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> String {
        Said::read(body.as_bytes()).shown(Some(&"sk-key-1".into()), &["the prompt_word here"])
    }

    #[test]
    fn identifiers_are_shown_and_nothing_else() {
        assert_eq!(shown(r#"{"error":{"code":"a_b","type":"T","param":"p.q","message":"m"}}"#), " (a_b, T, p.q)");
        assert_eq!(
            shown(r#"{"object":"error","type":"BadRequestError","code":400,"message":"m"}"#),
            " (BadRequestError)"
        );
        assert_eq!(shown(r#"{"error":{"code":"same","type":"same"}}"#), " (same)");
        for nothing in ["", "<html>", "[]", "{}", r#"{"error":"text"}"#, r#"{"error":{"code":"two words","type":""}}"#]
        {
            assert_eq!(shown(nothing), "", "{nothing}");
        }
        assert_eq!(shown(&format!(r#"{{"error":{{"code":"{}"}}}}"#, "x".repeat(65))), "");
    }

    #[test]
    fn identifiers_that_come_from_the_key_or_the_texts_are_not_shown() {
        assert_eq!(shown(r#"{"error":{"code":"sk-key-1","type":"sk-key","param":"Bearer.sk-key-1"}}"#), "");
        assert_eq!(shown(r#"{"error":{"code":"prompt_word","type":"here"}}"#), "");
    }

    #[test]
    fn a_text_that_is_too_long_is_recognised_however_the_server_says_it() {
        for body in [
            r#"{"error":{"code":"context_length_exceeded","message":"m"}}"#,
            r#"{"error":{"code":400,"type":"exceed_context_size_error"}}"#,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","code":400}"#,
        ] {
            assert!(Said::read(body.as_bytes()).is_too_long(), "{body}");
        }
        assert!(!Said::read(br#"{"error":{"code":"invalid_value"}}"#).is_too_long());
    }
}
