//! Reading a body, and saying what is wrong with it without repeating it.

use serde::de::DeserializeOwned;

/// Reads a JSON body. A byte order mark of UTF-8 at its beginning is ignored (RFC 8259).
///
/// The error names the field and the position, and repeats no text of the body: it goes into logs and to Sentry.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let body = body.strip_prefix(UTF8_MARK).unwrap_or(body);
    if UTF16_MARKS.iter().any(|mark| body.starts_with(mark)) {
        return Err("it begins with the byte order mark of UTF-16; allowed: UTF-8".to_owned());
    }
    // The path costs time, so it is looked for only when it is needed.
    serde_json::from_slice(body).map_err(|error| describe::<T>(body).unwrap_or_else(|| redacted(&error.to_string())))
}

const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";
const UTF16_MARKS: [&[u8]; 2] = [b"\xFF\xFE", b"\xFE\xFF"];

fn describe<T: DeserializeOwned>(body: &[u8]) -> Option<String> {
    let deserializer = &mut serde_json::Deserializer::from_slice(body);
    let error = serde_path_to_error::deserialize::<_, T>(deserializer).err()?;
    let text = redacted(&error.inner().to_string());
    // A path is made of field names, which are the producer's choice where a type has maps: as short as a name is.
    let path: String = error.path().to_string().chars().take(MAX_PATH_CHARS).collect();
    Some(if path == "." { text } else { format!("{path}: {text}") })
}

const MAX_PATH_CHARS: usize = 100;

/// serde quotes the value it did not expect: strings in `"`, names of variants in `` ` ``. Both are from the body.
fn redacted(text: &str) -> String {
    for (before, open, close) in [
        ("invalid type: string ", '"', "\", expected"),
        ("invalid value: string ", '"', "\", expected"),
        ("unknown variant ", '`', "`, expected"),
    ] {
        let Some(rest) = text.strip_prefix(before).and_then(|rest| rest.strip_prefix(open)) else { continue };
        // The last one: the value may contain anything, what follows it is ours.
        let Some(end) = rest.rfind(close) else { continue };
        return format!("{before}{open}…{}", &rest[end..]);
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only its reading matters")]
    struct Task {
        texts: Vec<String>,
        #[serde(default)]
        count: u8,
        #[serde(default)]
        kind: Kind,
    }

    #[derive(Debug, Default, Deserialize)]
    enum Kind {
        #[default]
        One,
    }

    fn error(body: &str) -> String {
        read::<Task>(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_error_names_the_field_and_the_position() {
        assert_eq!(error("{}"), "missing field `texts` at line 1 column 2");
        assert_eq!(
            error(r#"{"texts":["a",7]}"#),
            "texts[1]: invalid type: integer `7`, expected a string at line 1 column 15"
        );
        assert!(error("{\"texts\":").starts_with("texts: EOF while parsing"), "{}", error("{\"texts\":"));
    }

    #[test]
    fn a_byte_order_mark_is_ignored_at_the_beginning_and_only_there() {
        let read = |body: &[u8]| read::<Task>(body).map(|task| task.texts);
        assert_eq!(read(b"\xEF\xBB\xBF{\"texts\":[\"\xEF\xBB\xBF\"]}").unwrap(), ["\u{FEFF}"]);
        for wrong in [&b"\xEF\xBB\xBF\xEF\xBB\xBF{\"texts\":[]}"[..], b" \xEF\xBB\xBF{\"texts\":[]}", b"\xEF\xBB\xBF"] {
            assert!(read(wrong).is_err());
        }
        for utf16 in [&b"\xFF\xFE{\0}\0"[..], b"\xFE\xFF\0{\0}"] {
            assert_eq!(read(utf16).unwrap_err(), "it begins with the byte order mark of UTF-16; allowed: UTF-8");
        }
    }

    #[test]
    fn the_error_never_repeats_what_is_in_the_body() {
        for body in [
            r#"{"texts":"canary"}"#,
            r#"{"texts":"canary\", expected canary, expected"}"#,
            r#"{"texts":[],"count":"canary"}"#,
            r#"{"texts":[],"kind":"canary"}"#,
            r#"{"texts":[],"kind":"canary`, canary"}"#,
            r#""canary""#,
        ] {
            let error = error(body);
            assert!(!error.contains("canary") && error.contains('…'), "{error}");
        }
    }
}
