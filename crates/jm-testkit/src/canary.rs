//! Secrets that can be found again, whatever they were written as.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Characters that an address, a shell or a JSON text has to escape.
const AWKWARD: &str = "/p:@%+&=#";

/// How many letters and digits stand in a row in every canary.
const CORE: usize = 24;

/// As many bytes of a secret in a row are a find: a text that was cut may end within it. No other text has ten given
/// letters and digits in a row by chance.
const PIECE: usize = 10;

/// As many characters of base64 as ten bytes decide, whatever stands before and behind them.
const BASE64_PIECE: usize = 12;

/// A secret made up for a test, which then looks for it in everything that came out.
///
/// It has letters and digits in a row which no way of escaping changes, so that it is found in JSON, in addresses and in
/// Rust's own `Debug`. A [`crate::LeakSearch`] also finds it encoded, and a piece of it.
#[derive(Clone, Debug)]
pub struct Canary {
    name: String,
    value: String,
    core: Vec<u8>,
}

impl Canary {
    /// A secret of any characters, such as a password. `name` is for failures.
    pub fn new(name: &str) -> Self {
        let plain = Self::plain(name);
        Self { value: format!("{AWKWARD}{}{AWKWARD}", plain.value), ..plain }
    }

    /// A secret of letters and digits, for what allows no others, such as a key in an address.
    pub fn plain(name: &str) -> Self {
        let value: String = std::iter::repeat_with(fastrand::alphanumeric).take(CORE).collect();
        Self { name: name.to_owned(), core: value.clone().into_bytes(), value }
    }

    /// A secret that is there already. Its longest row of letters and digits is looked for; one of less than ten bytes
    /// cannot be told from other texts, and is never found.
    pub fn of(name: &str, value: &str) -> Self {
        let rows = value.split(|letter: char| !letter.is_ascii_alphanumeric());
        let core = rows.max_by_key(|row| row.len()).unwrap_or_default().as_bytes().to_vec();
        Self { name: name.to_owned(), value: value.to_owned(), core }
    }

    /// A secret that is no text, such as a private key. It has no [`Canary::value`].
    pub fn of_bytes(name: &str, bytes: &[u8]) -> Self {
        Self { name: name.to_owned(), value: String::new(), core: bytes.to_vec() }
    }

    /// The secret.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What it is, for failures.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As what the secret stands in a text; `None` if it does not.
    pub fn found_in(&self, text: &str) -> Option<&'static str> {
        let mut search = crate::LeakSearch::of([self.clone()]);
        search.text("", text);
        search.leaks().first().map(|leak| leak.form)
    }

    /// How each piece of it may be written, with the form's name. Blanks and line ends are left out; case is ignored.
    pub(crate) fn forms(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut forms = Vec::new();
        if self.core.len() < PIECE {
            return forms;
        }
        for piece in self.core.windows(PIECE) {
            forms.push(("plain", piece.to_vec()));
            for (form, written) in [
                ("hexadecimal", written(piece, |text, byte| write!(text, "{byte:02x}"))),
                ("hexadecimal", written(piece, |text, byte| write!(text, "{byte:02x}:"))),
                ("hexadecimal", written(piece, |text, byte| write!(text, "{byte:02x},"))),
                ("percent-encoded", written(piece, |text, byte| write!(text, "%{byte:02x}"))),
                ("escaped", written(piece, |text, byte| write!(text, "\\x{byte:02x}"))),
                ("escaped", written(piece, |text, byte| write!(text, "\\u{byte:04x}"))),
                ("numbers", written(piece, |text, byte| write!(text, "{byte},"))),
            ] {
                // What stands between the bytes does not stand behind the last one.
                let written = written.trim_end_matches([',', ':']);
                forms.push((form, written.as_bytes().to_vec()));
            }
        }
        // Where it begins within a group of three bytes decides what its letters are; those at its ends are its neighbours'.
        for offset in 0..3 {
            let shifted = [&vec![0; offset][..], &self.core].concat();
            let own = (offset * 8).div_ceil(6)..(offset + self.core.len()) * 8 / 6;
            for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let encoded = alphabet.encode(&shifted);
                let pieces = encoded.as_bytes()[own.clone()].windows(BASE64_PIECE);
                forms.extend(pieces.map(|piece| ("base64", piece.to_vec())));
            }
        }
        forms
    }
}

fn written(bytes: &[u8], write: impl Fn(&mut String, u8) -> std::fmt::Result) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        let _ = write(&mut text, byte);
        text
    })
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

    use super::*;

    #[test]
    fn a_canary_is_found_in_every_dress_and_nowhere_else() {
        let (canary, other) = (Canary::new("password"), Canary::new("password"));
        let value = canary.value();
        let hexadecimal =
            |separator: &str| value.bytes().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(separator);
        let each = |write: fn(&mut String, u8) -> std::fmt::Result| written(value.as_bytes(), write);
        let dressed = [
            value.to_owned(),
            value.to_uppercase(),
            format!("{:?}", format!("{value:?}")),
            serde_json::json!({ "a": value }).to_string(),
            each(|text, byte| write!(text, "\\u{byte:04X}")),
            each(|text, byte| write!(text, "\\x{byte:02x}")),
            format!("amqp://u:{}@host", utf8_percent_encode(value, NON_ALPHANUMERIC)),
            each(|text, byte| write!(text, "%{byte:02X}")),
            format!("{:?}", value.as_bytes()),
            format!("{:#?}", value.as_bytes()),
            serde_json::json!(value.as_bytes()).to_string(),
            hexadecimal(""),
            hexadecimal(" "),
            hexadecimal(":"),
            // As the end of a line, and cut within the secret.
            each(|text, byte| writeln!(text, "{}", char::from(byte))),
            format!("the server said: {}…", &value[..AWKWARD.len() + PIECE]),
        ];
        let before = (0..5).map(|length| format!("{}{value}:", "u".repeat(length)));
        let encoded = before.flat_map(|text| {
            let standard = STANDARD_NO_PAD.encode(&text);
            let wrapped =
                standard.as_bytes().chunks(16).map(|line| String::from_utf8_lossy(line).into_owned() + "\r\n");
            [URL_SAFE_NO_PAD.encode(&text), wrapped.collect(), standard]
        });
        for text in dressed.into_iter().chain(encoded) {
            assert!(canary.found_in(&text).is_some(), "{value} in {text}");
            assert_eq!(other.found_in(&text), None);
        }
    }

    #[test]
    fn a_key_is_found_in_the_text_and_in_the_bytes_of_its_file() {
        let key: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(32).collect();
        let canary = Canary::of_bytes("the key", &key);
        let file = [&b"0\x81\x87"[..], &key, b"public"].concat();
        for text in [STANDARD_NO_PAD.encode(&file), format!("{file:?}"), format!("{file:02x?}"), format!("{file:#?}")] {
            assert!(canary.found_in(&text).is_some(), "{text}");
        }
        assert_eq!(canary.found_in(&STANDARD_NO_PAD.encode([0; 64])), None);
    }

    #[test]
    fn a_secret_that_is_there_already_is_looked_for_by_its_longest_row() {
        let canary = Canary::of("the password", "pa:ss-q8Zr2Tm4Kw9x!");
        assert_eq!(canary.found_in("its end is q8Zr2Tm4Kw9x"), Some("plain"));
        assert_eq!(canary.found_in("pa:ss-"), None);
    }
}
