//! What is said: lines and tables for people, JSON for programs. Colour only on a terminal.

mod table;
mod text;

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

pub(crate) use self::{
    table::{Align, Cell, Table},
    text::Text,
};
use crate::failure::Failure;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Also in files and pipes
    Always,
    /// Nowhere
    Never,
}

/// Good news.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Worth a look.
pub(crate) const NOTICE: Style = AnsiColor::Yellow.on_default();
/// Bad news.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Headings.
pub(crate) const STRONG: Style = Style::new().bold();
/// Of less interest.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// Lines and tables are no wider.
pub(crate) const WIDTH: usize = 80;

/// Standard output and standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool, color: Color) -> Self {
        let choice = match color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        Self { json }
    }

    /// Whether the answer is wanted as JSON. Then nothing but that goes to standard output.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// A text on a line of its own. Its styles are left out where nobody would see them.
    #[expect(clippy::unused_self, reason = "the colour's choice is the process's, and made by `new`")]
    pub(crate) fn line(self, text: impl Into<Text>) {
        // A reader that has gone away is no failure of ours.
        let _ = writeln!(anstream::stdout(), "{}", text.into().as_str());
    }

    /// A text without a line's end, at once: for what is refreshed in place.
    #[expect(clippy::unused_self, reason = "as for `line`")]
    pub(crate) fn raw(self, text: &Text) {
        let mut stdout = anstream::stdout();
        let _ = write!(stdout, "{}", text.as_str());
        let _ = stdout.flush();
    }

    /// An answer for programs. Keys stay as they are; new ones may come.
    pub(crate) fn json(self, answer: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(answer).map_err(std::io::Error::from)?;
        self.line(Text::json(&text));
        Ok(())
    }

    /// The same in one line, where one answer follows the other.
    pub(crate) fn json_line(self, answer: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(answer).map_err(std::io::Error::from)?;
        self.line(Text::json(&text));
        Ok(())
    }

    /// What moves the cursor of a terminal; whoever sends it has made sure that there is one. `--color never` does not
    /// mean this.
    #[expect(clippy::unused_self, reason = "as for `line`")]
    pub(crate) fn control(self, sequence: &str) {
        let mut stdout = std::io::stdout();
        let _ = stdout.write_all(sequence.as_bytes());
        let _ = stdout.flush();
    }

    /// A question, on standard error, and the cursor behind it. A terminal that is gone is no place to ask.
    #[expect(clippy::unused_self, reason = "as for `line`")]
    pub(crate) fn ask(self, question: &Text) {
        let mut stderr = anstream::stderr();
        let _ = write!(stderr, "{}", question.as_str()).and_then(|()| stderr.flush());
    }

    /// An error's line, on standard error.
    #[expect(clippy::unused_self, reason = "as for `line`")]
    pub(crate) fn complain(self, text: impl Into<Text>) {
        let _ = writeln!(anstream::stderr(), "{BAD}jm:{BAD:#} {}", text.into().as_str());
    }

    /// Something to know besides the answer, on standard error, so that it is in nobody's pipe.
    #[expect(clippy::unused_self, reason = "as for `line`")]
    pub(crate) fn note(self, text: impl Into<Text>) {
        let _ = writeln!(anstream::stderr(), "{FAINT}{}{FAINT:#}", text.into().as_str());
    }
}

/// How long ago something was, in its two largest units.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// A word in a style.
pub(crate) fn styled(style: Style, text: impl Into<Text>) -> Text {
    text.into().styled(style)
}
