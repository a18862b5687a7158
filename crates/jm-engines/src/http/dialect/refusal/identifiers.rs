//! What of a server's error may be shown.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// The short identifiers in an error (`rate_limit_exceeded`).
///
/// Servers put the prompt, and parts of the key, into their messages. Only identifiers are shown, and only if they come
/// neither from the request's texts nor from its key.
#[derive(Debug, Default)]
pub(super) struct Identifiers(Vec<String>);

/// As many letters of the key in a row are too many: servers show pieces of it.
const KEY_PIECE: usize = 8;
/// Servers' numbers for their errors have four or five digits.
const MAX_DIGITS: usize = 6;
/// Words that are put together to a name.
const MIN_WORD: usize = 3;

/// The fields with identifiers in them, in the order in which they are shown.
const FIELDS: [&str; 3] = ["code", "type", "param"];
/// The longest identifier that is shown.
const MAX_IDENTIFIER: usize = 64;

impl Identifiers {
    /// Those of an error's object.
    pub(super) fn of(error: Option<&Value>) -> Self {
        let strings = FIELDS.iter().filter_map(|field| error?.get(field)?.as_str());
        Self(strings.filter(|text| is_identifier(text)).map(str::to_owned).collect())
    }

    /// ` (code, type, param)`, as far as they are there and may be shown.
    pub(super) fn shown(&self, key: Option<&SecretString>, texts: &[&str]) -> String {
        let secret = |identifier: &str| {
            let of_key =
                key.is_some_and(|key| shares_a_piece(identifier, key.expose_secret()) || !is_words(identifier));
            of_key || texts.iter().any(|text| text.contains(identifier))
        };
        let mut shown: Vec<&str> = Vec::new();
        for identifier in &self.0 {
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

/// Whether a piece of the key stands in the identifier, in letters of any case, or the identifier in the key.
fn shares_a_piece(identifier: &str, key: &str) -> bool {
    let (identifier, key) = (identifier.to_ascii_lowercase(), key.to_ascii_lowercase());
    let pieces = key.as_bytes().windows(KEY_PIECE.min(key.len().max(1)));
    key.contains(&identifier) || pieces.into_iter().any(|piece| contains(identifier.as_bytes(), piece))
}

fn contains(bytes: &[u8], piece: &[u8]) -> bool {
    bytes.windows(piece.len()).any(|window| window == piece)
}

/// Whether it is made of words (`rate_limit_exceeded`, `BadRequestError`) and short numbers: a key in base64 or in
/// hexadecimal digits is not.
fn is_words(identifier: &str) -> bool {
    identifier.split(['_', '.', '-']).all(|part| {
        let number = part.len() <= MAX_DIGITS && part.bytes().all(|byte| byte.is_ascii_digit());
        number || part.bytes().all(|byte| byte.is_ascii_alphabetic()) && has_long_words(part)
    })
}

/// Whether each of several words that begin with capitals has some letters. Those of letters at random are short.
fn has_long_words(part: &str) -> bool {
    let (mut lengths, mut after_small) = (vec![0], false);
    for byte in part.bytes() {
        if after_small && byte.is_ascii_uppercase() {
            lengths.push(0);
        }
        after_small = byte.is_ascii_lowercase();
        if let Some(length) = lengths.last_mut() {
            *length += 1;
        }
    }
    lengths.len() == 1 || lengths.iter().all(|&length| length >= MIN_WORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifiers(body: &str) -> Identifiers {
        let body = serde_json::from_str::<Value>(body).unwrap_or_default();
        Identifiers::of(Some(body.get("error").unwrap_or(&body)))
    }

    fn shown(body: &str) -> String {
        identifiers(body).shown(Some(&"sk-key-1".into()), &["the prompt_word here"])
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
    fn pieces_and_encodings_of_the_key_are_not_shown_and_other_words_are() {
        let key = "sk-proj-x7Qm2ZtW9cRb4LkN8vYp";
        let shown = |code: &str| {
            let body = serde_json::json!({ "error": { "code": code } }).to_string();
            identifiers(&body).shown(Some(&key.into()), &[])
        };
        for hidden in [
            "x7Qm2ZtW",
            "invalid_api_key.sk-proj-x7Qm2ZtW9c",
            "SK-PROJ-X7QM2ZTW9CRB4LKN8VYP",
            "c2stcHJvai14N1FtMlp0VzljUmI0TGtOOHZZcA",
            "736b2d70726f6a2d7837516d325a74573963",
            "QmVhcmVyIHNrLXByb2oteDdRbTJadFc5Y1Ji",
            "XqZbTrWpLkNvYpQa",
        ] {
            assert_eq!(shown(hidden), "", "{hidden}");
        }
        for told in [
            "rate_limit_exceeded",
            "BadRequestError",
            "InvalidAPIKey",
            "Throttling.RateQuota",
            "1214",
            "model-not-found",
        ] {
            assert_eq!(shown(told), format!(" ({told})"));
        }
    }
}
