//! Reading JSON of which only some fields matter: the others may hold anything, and a field that matters may be written
//! in another type than the API's.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The bytes that some servers put before their JSON.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Parses an answer. A byte order mark before it, invalid UTF-8 and halves of surrogate pairs (`\ud83d`, as produced by
/// cutting a text between two UTF-16 units) do not make it unreadable: such characters are read as U+FFFD.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let body = body.strip_prefix(BOM).unwrap_or(body);
    serde_json::from_slice(body).or_else(|error| {
        let text = String::from_utf8_lossy(body);
        match without_lone_surrogates(&text) {
            Cow::Borrowed(same) if same.as_bytes() == body => Err(error),
            repaired => serde_json::from_str(&repaired),
        }
    })
}

/// The text with `\ufffd` in place of each escaped half of a surrogate pair that stands alone.
fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    const REPLACEMENT: &str = "\\ufffd";
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut repaired = String::new();
    let (mut kept, mut at) = (0, 0);
    while let Some(found) = json[at..].find('\\').map(|offset| at + offset) {
        at = match unit(found) {
            Some(0xD800..=0xDBFF) if matches!(unit(found + 6), Some(0xDC00..=0xDFFF)) => found + 12,
            Some(0xD800..=0xDFFF) => {
                repaired.push_str(&json[kept..found]);
                repaired.push_str(REPLACEMENT);
                kept = found + 6;
                kept
            }
            // The escaped character, which may be a backslash itself.
            _ => found + 1 + json[found + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    if kept == 0 {
        return Cow::Borrowed(json);
    }
    repaired.push_str(&json[kept..]);
    Cow::Owned(repaired)
}

/// A text: a string that is not empty, or a number in its place.
pub(crate) fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A count: a whole number, also as a float or in a string. Negative ones mean that the server does not know.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range that is checked")]
pub(crate) fn count(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| {
        let number = seconds(Some(value))?;
        (0.0..1e15).contains(&number).then_some(number as u64)
    })
}

/// A finite number, also in a string: times in seconds.
pub(crate) fn seconds(value: Option<&Value>) -> Option<f64> {
    let number = match value? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().trim_end_matches('s').parse().ok(),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

/// A list; anything else is an empty one.
pub(crate) fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn halves_of_surrogate_pairs_invalid_bytes_and_a_mark_at_the_beginning_are_read_as_replacement_characters() {
        for (body, text) in [
            (&br#""hello \ud83d""#[..], "hello \u{fffd}"),
            (br#""\ud83d\ude00""#, "😀"),
            (br#""\ude00\ud83d \ud83dx""#, "\u{fffd}\u{fffd} \u{fffd}x"),
            (br#""\\ud83d \n""#, "\\ud83d \n"),
            (br#""\\\ud83d""#, "\\\u{fffd}"),
            (b"\xef\xbb\xbf\"a\"", "a"),
            (b"\"a\xff\"", "a\u{fffd}"),
        ] {
            assert_eq!(parse::<String>(body).unwrap(), text);
        }
        for broken in [&br#""\ud8""#[..], br#""\u""#, b"\"", b"", b"\\"] {
            assert!(parse::<String>(broken).is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }

    #[test]
    fn numbers_are_read_in_any_type_and_nonsense_is_nothing() {
        for (value, number) in [
            (json!(3), Some(3)),
            (json!(3.0), Some(3)),
            (json!("3"), Some(3)),
            (json!(" 3.7 "), Some(3)),
            (json!(-1), None),
            (json!(null), None),
            (json!("many"), None),
            (json!([3]), None),
            (json!(1e300), None),
        ] {
            assert_eq!(count(Some(&value)), number, "{value}");
        }
        assert_eq!(count(None), None);
        assert_eq!(seconds(Some(&json!("1.5s"))), Some(1.5));
        assert_eq!(text(Some(&json!(7))), Some("7".into()));
        assert_eq!(text(Some(&json!(""))), None);
    }
}
