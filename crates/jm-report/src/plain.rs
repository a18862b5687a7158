//! Texts of models and of strangers, as a terminal can show them.

use jm_service::escape::is_obeyed;

/// In one line, and without what a terminal would take for commands, or would change the order of other letters.
pub fn plain(text: &str) -> String {
    let letters = text.chars().filter(|letter| letter.is_control() || letter.is_whitespace() || !is_obeyed(*letter));
    let letters: String = letters.map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    letters.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_gone_and_everything_else_is_as_it_was() {
        assert_eq!(plain(" \u{1b}[31mred\u{7}\r\n\u{9b}2J and\tso on\u{0} "), "[31mred 2J and so on");
        assert_eq!(plain("invoice\u{202e}fdp.exe\u{2069}"), "invoicefdp.exe");
        let family = "👨\u{200d}👩\u{200d}👧 שלום 你好，e\u{301}";
        assert_eq!(plain(family), family);
    }
}
