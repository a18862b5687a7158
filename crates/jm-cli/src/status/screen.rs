//! What is refreshed in place.

use console::{Term, is_dumb};

use crate::output::{FAINT, Output, Text, styled};

/// A terminal on which each text takes the place of the one before; where there is none, one follows the other.
#[derive(Debug)]
pub(super) struct Screen {
    output: Output,
    terminal: Option<Term>,
    is_first: bool,
}

/// Once the whole screen is cleared. Then each line is written over the former one, and what is left of it and below it
/// is cleared, so that nothing flickers.
const CLEAR: &str = "\x1b[2J\x1b[H";
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K\n";
const REST_OF_SCREEN: &str = "\x1b[J";

impl Screen {
    pub(super) fn new(output: Output) -> Self {
        let terminal = Some(Term::stdout()).filter(|terminal| terminal.is_term() && !is_dumb());
        Self { output, terminal, is_first: true }
    }

    pub(super) fn show(&mut self, text: &Text) {
        if let Some(terminal) = &self.terminal {
            // Asked for each time: windows change their size.
            let (rows, columns) = terminal.size();
            self.output.control(if self.is_first { CLEAR } else { HOME });
            for line in fitting(text, rows.into(), columns.into()) {
                self.output.raw(&line);
                self.output.control(REST_OF_LINE);
            }
            self.output.control(REST_OF_SCREEN);
        } else {
            if !self.is_first {
                self.output.line("");
            }
            self.output.line(text.clone());
        }
        self.is_first = false;
    }
}

/// What fits a terminal. A line that is wrapped, or one too many, would move all that is above it.
fn fitting(text: &Text, rows: usize, columns: usize) -> Vec<Text> {
    // The cursor stands below the last line.
    let rows = rows.saturating_sub(1).max(1);
    let mut lines: Vec<Text> = text.split().map(|line| line.cut(columns, "")).collect();
    let left_out = lines.len().saturating_sub(rows);
    if left_out > 0 {
        lines.truncate(rows - 1);
        let note = Text::new(format_args!("… {} more lines", left_out + 1));
        lines.push(styled(FAINT, note.cut(columns, "")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_and_what_is_left_out_is_said() {
        let fourth = styled(AnsiColor::Red.on_default(), "fourth");
        let text = Text::joined([Text::new("first"), Text::default(), Text::new("third line"), fourth]);
        let plain = |rows, columns| {
            let lines = fitting(&text, rows, columns);
            lines.iter().map(|line| console::strip_ansi_codes(line.as_str()).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(plain(5, 80), ["first", "", "third line", "fourth"]);
        assert_eq!(plain(5, 5), ["first", "", "third", "fourt"]);
        assert_eq!(plain(3, 80), ["first", "… 3 more lines"]);
        assert_eq!(plain(0, 80), ["… 4 more lines"]);
    }
}
