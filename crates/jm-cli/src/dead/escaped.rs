//! Texts of strangers, as a terminal can show them without obeying them.

use std::fmt::Write as _;

/// With everything escaped that a terminal would take for a command, or that turns the order of other letters.
pub(crate) fn escaped(text: &str) -> String {
    escape(text, |_| false)
}

/// The same, with the ends of lines as they are.
pub(crate) fn escaped_lines(text: &str) -> String {
    escape(text, |letter| letter == '\n')
}

fn escape(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if (letter.is_control() || turns_others(letter)) && !is_kept(letter) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

fn turns_others(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_would_obey() {
        assert_eq!(escaped("a\u{1b}[31m\r\nb\u{9b}2J\u{202e}c"), "a\\u001b[31m\\u000d\\u000ab\\u009b2J\\u202ec");
        assert_eq!(escaped_lines("a\n\tb"), "a\n\\u0009b");
        let family = "👨\u{200d}👩\u{200d}👧 שלום 你好，e\u{301}";
        assert_eq!(escaped(family), family);
    }
}
