//! The commands that mend what differs.

use super::inspection::is_operators;
use crate::{configuration::ConfiguredWorker, output::WIDTH};

/// What is missing is declared by us, unless the configuration says that operators do that.
pub(super) fn missing(worker: &ConfiguredWorker) -> &'static str {
    if is_operators(worker) {
        "rabbitmqadmin declare, as you want it: consumer.declare is check, so neither workers nor jm create it"
    } else {
        "jm topology apply"
    }
}

/// One word of a shell, whatever is in it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain =
        !word.is_empty() && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// A command in lines that a shell takes for one, two blanks further in.
pub(super) fn lines(command: &str) -> Vec<String> {
    /// For what stands before and behind the words.
    const BESIDES: usize = 6;
    let mut lines = vec![String::new()];
    for word in words(command) {
        let last = lines.last_mut().map_or(0, |last| last.chars().count());
        if last > 0 && last + 1 + word.chars().count() + BESIDES > WIDTH {
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
        let indent = if index == 0 { "  " } else { "    " };
        let more = if index + 1 < count { " \\" } else { "" };
        format!("{indent}{line}{more}")
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
