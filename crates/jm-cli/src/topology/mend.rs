//! The commands that mend what differs.

use serde::Serialize;

use super::inspection::is_operators;
use crate::{
    configuration::ConfiguredWorker,
    output::{Text, WIDTH},
};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub(crate) enum Remedy {
    /// A shell's command: never broken within a word, quoted ones included.
    Command(String),
    /// In words.
    Words(String),
}

impl Remedy {
    pub(crate) fn command(command: impl Into<String>) -> Self {
        Self::Command(command.into())
    }

    /// In lines, behind `first` and `further`, which are blanks and signs of ours.
    pub(crate) fn lines(&self, first: &str, further: &str) -> Text {
        match self {
            Self::Command(command) => Text::joined(lines(command, first, further)),
            Self::Words(words) => Text::wrapped_behind(words, first, further),
        }
    }
}

impl From<&str> for Remedy {
    fn from(words: &str) -> Self {
        Self::Words(words.to_owned())
    }
}

impl From<String> for Remedy {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

/// What is missing is declared by us, unless the configuration says that operators do that.
pub(crate) fn missing(worker: &ConfiguredWorker) -> Remedy {
    if is_operators(worker) {
        Remedy::from("declare it as you want it: consumer.declare is check, so neither workers nor jm create it")
    } else {
        Remedy::command("jm topology apply")
    }
}

/// One word of a shell, whatever is in it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain =
        !word.is_empty() && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// A name as a regular expression that matches only it.
pub(super) fn pattern(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for letter in name.chars() {
        if !letter.is_alphanumeric() && !"_-/ ".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

/// A command in lines that a shell takes for one.
fn lines(command: &str, first: &str, further: &str) -> Vec<Text> {
    /// What stands behind the words: a blank and a backslash.
    const BEHIND: usize = 2;
    let indent = console::measure_text_width(first).max(console::measure_text_width(further));
    let mut lines = vec![String::new()];
    for word in words(command) {
        let last = lines.last_mut().map_or(0, |last| console::measure_text_width(last));
        if last > 0 && indent + last + 1 + console::measure_text_width(&word) + BEHIND > WIDTH {
            lines.push(word);
        } else if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
    }
    let count = lines.len();
    let lines = lines.into_iter().enumerate().map(|(index, line)| {
        let indent = if index == 0 { first } else { further };
        let more = if index + 1 < count { " \\" } else { "" };
        Text::new(format_args!("{indent}{line}{more}"))
    });
    lines.collect()
}

/// At blanks outside of quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for letter in command.chars() {
        is_quoted ^= letter == '\'';
        if letter == ' ' && !is_quoted {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(letter);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_is_broken_between_words_so_that_a_shell_takes_it_for_one() {
        let lines = |command: &str| {
            lines(command, "  ", "    ").iter().map(|line| line.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(lines("jm topology apply"), ["  jm topology apply"]);
        let long = format!("rabbitmqctl set_policy {} 'a b' {}", "p".repeat(40), "q".repeat(20));
        let (first, second) =
            (format!("  rabbitmqctl set_policy {} 'a b' \\", "p".repeat(40)), format!("    {}", "q".repeat(20)));
        assert_eq!(lines(&long), [first, second]);
    }

    #[test]
    fn any_name_is_one_word_of_a_shell() {
        assert_eq!(quoted("/"), "/");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
