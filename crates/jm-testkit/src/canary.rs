//! Secrets that can be found again, whatever they were written as.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Characters that an address, a shell or a JSON text has to escape.
const AWKWARD: &str = "/p:@%+&=#";

/// How many letters and digits stand in a row in every canary.
const CORE: usize = 24;

/// A secret made up for a test, which then looks for it in everything that came out.
///
/// It has letters and digits in a row which no way of escaping changes, so that it is found in JSON, in addresses and in
/// Rust's own `Debug`; base64 and hexadecimal digits are looked for as well, also where it is a part of what was encoded.
#[derive(Clone, Debug)]
pub struct Canary {
    name: String,
    value: String,
    core: String,
}

impl Canary {
    /// A secret of any characters, such as a password. `name` is for failures.
    pub fn new(name: &str) -> Self {
        let plain = Self::plain(name);
        Self { value: format!("{AWKWARD}{}{AWKWARD}", plain.core), ..plain }
    }

    /// A secret of letters and digits, for what allows no others, such as a key in an address.
    pub fn plain(name: &str) -> Self {
        let core: String = std::iter::repeat_with(fastrand::alphanumeric).take(CORE).collect();
        Self { name: name.to_owned(), value: core.clone(), core }
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
        let core = self.core.as_bytes();
        if text.contains(&self.core) {
            return Some("plain");
        }
        let hexadecimal = core.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        if text.contains(&hexadecimal) || text.contains(&hexadecimal.to_uppercase()) {
            return Some("hexadecimal");
        }
        let numbers: Vec<String> = core.iter().map(u8::to_string).collect();
        if text.contains(&numbers.join(", ")) || text.contains(&numbers.join(",")) {
            return Some("numbers");
        }
        // Where it begins within a group of three bytes decides what its letters are; those at its ends are its neighbours'.
        let encoded = (0..3).flat_map(|offset| {
            let shifted = [&vec![0; offset][..], core].concat();
            let own = (offset * 8).div_ceil(6)..(offset + core.len()) * 8 / 6;
            [STANDARD_NO_PAD, URL_SAFE_NO_PAD].map(|engine| engine.encode(&shifted)[own.clone()].to_owned())
        });
        encoded.into_iter().any(|encoded| text.contains(&encoded)).then_some("base64")
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

    use super::*;

    #[test]
    fn a_canary_is_found_in_every_dress_and_nowhere_else() {
        let (canary, other) = (Canary::new("password"), Canary::new("password"));
        let value = canary.value();
        let dressed = [
            value.to_owned(),
            format!("{:?}", format!("{value:?}")),
            serde_json::json!({ "a": value }).to_string(),
            format!("amqp://u:{}@host", utf8_percent_encode(value, NON_ALPHANUMERIC)),
            format!("{:?}", value.as_bytes()),
            serde_json::json!(value.as_bytes()).to_string(),
            value.bytes().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat(),
        ];
        let before = (0..5).map(|length| format!("{}{value}:", "u".repeat(length)));
        let encoded = before.flat_map(|text| [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)]);
        for text in dressed.into_iter().chain(encoded) {
            assert!(canary.found_in(&text).is_some(), "{value} in {text}");
            assert_eq!(other.found_in(&text), None);
        }
    }
}
