//! Text from elsewhere (messages, brokers, models, files), as a terminal, a log viewer or a browser can show it without
//! obeying it.
//!
//! Escaped are control characters (C0, DEL, C1), the Unicode marks that change the direction of other letters, and its line
//! separators: by them a text could clear a screen, write into the clipboard, or read differently from what it is.

use std::fmt::Write as _;

/// Whether a terminal obeys the character instead of showing it.
pub fn is_obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// In one line: what would be obeyed is `\u001b` and the like.
pub fn escaped(text: &str) -> String {
    escape(text, is_obeyed)
}

/// The same, with the ends of lines unchanged.
pub fn escaped_lines(text: &str) -> String {
    escape(text, |letter| letter != '\n' && is_obeyed(letter))
}

/// JSON, in which a serializer has escaped C0 only. What stands outside of its strings is unchanged.
pub fn escaped_json(json: &str) -> String {
    escape(json, |letter| !letter.is_ascii_control() && is_obeyed(letter) || letter == '\u{7f}')
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_escaped(letter) {
            // All of them are in the basic plane, so that this is JSON's escape as well.
            let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_would_obey() {
        assert_eq!(
            escaped("a\u{1b}[31m\r\nb\u{9b}2J\u{202e}c\u{7f}\u{61c}"),
            "a\\u001b[31m\\u000d\\u000ab\\u009b2J\\u202ec\\u007f\\u061c"
        );
        assert_eq!(escaped_lines("a\n\tb"), "a\n\\u0009b");
        let family = "👨\u{200d}👩\u{200d}👧 שלום 你好，e\u{301}";
        assert_eq!(escaped(family), family);
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let value = serde_json::json!({ "a\u{85}": "\u{9b}2J \u{7f} \u{202e} \u{1b}[2J \n \\ 你好" });
        let json = escaped_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(json.chars().all(|letter| letter == '\n' || !is_obeyed(letter)), "{json:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
    }
}
