//! The only text that comes out: escaped, with styles that were put there on purpose.

use std::{fmt, ops::Add};

use anstyle::Style;
use jm_service::escape;

use super::WIDTH;

/// Text for a terminal. What is made into one is escaped, whoever wrote it; only styles are added afterwards.
///
/// It has no `Display`, so that it cannot be taken apart and put together again with what is not escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text(String);

impl Text {
    /// A line's worth: line ends are escaped, too.
    pub(crate) fn new(text: impl fmt::Display) -> Self {
        Self(escape::escaped(&text.to_string()))
    }

    /// The same with its line ends.
    pub(crate) fn lines(text: impl fmt::Display) -> Self {
        Self(escape::escaped_lines(&text.to_string()))
    }

    /// A serializer's JSON.
    pub(super) fn json(json: &str) -> Self {
        Self(escape::escaped_json(json))
    }

    /// Of a library that makes lines out of escaped text.
    pub(super) fn made_of_escaped(text: String) -> Self {
        Self(text)
    }

    /// A record's page, which has styles of its own.
    pub(crate) fn page(page: jm_report::Page) -> Self {
        Self(page.into_text().trim_end().to_owned())
    }

    /// One after the other, with line ends between.
    pub(crate) fn joined(lines: impl IntoIterator<Item = Self>) -> Self {
        Self(lines.into_iter().map(|line| line.0).collect::<Vec<_>>().join("\n"))
    }

    /// In lines of at most 80 columns, the second and later ones behind `indent` and two blanks more. What stands between
    /// backquotes is a command, and stays on one line.
    pub(crate) fn wrapped(text: &str, indent: &str) -> Self {
        Self::wrapped_behind(text, indent, &format!("{indent}  "))
    }

    /// The same with other beginnings of the first line and the further ones.
    pub(crate) fn wrapped_behind(text: &str, first: &str, further: &str) -> Self {
        let text = kept_together(&escape::escaped(text));
        let options = textwrap::Options::new(WIDTH).initial_indent(first).subsequent_indent(further).break_words(false);
        Self(let_apart(&textwrap::fill(&text, options)))
    }

    /// In a style, each of its lines.
    pub(crate) fn styled(self, style: Style) -> Self {
        Self(self.0.split('\n').map(|line| format!("{style}{line}{style:#}")).collect::<Vec<_>>().join("\n"))
    }

    /// With its beginning in a style, if it begins like this.
    pub(crate) fn beginning_styled(self, beginning: &str, style: Style) -> Self {
        let beginning = escape::escaped(beginning);
        match self.0.strip_prefix(&beginning) {
            Some(rest) => Self(format!("{style}{beginning}{style:#}{rest}")),
            None => self,
        }
    }

    /// So many columns at most, styles not counted.
    pub(crate) fn cut(&self, columns: usize, end: &str) -> Self {
        Self(console::truncate_str(&self.0, columns, end).into_owned())
    }

    /// Line by line.
    pub(crate) fn split(&self) -> impl Iterator<Item = Self> {
        self.0.lines().map(|line| Self(line.to_owned()))
    }

    /// As it is printed.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::new(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<fmt::Arguments<'_>> for Text {
    fn from(text: fmt::Arguments<'_>) -> Self {
        Self::new(text)
    }
}

impl<T: Into<Self>> Add<T> for Text {
    type Output = Self;

    fn add(mut self, more: T) -> Self {
        self.0.push_str(&more.into().0);
        self
    }
}

/// Stands for a blank that is no place to break a line; of Unicode's private use, one column wide.
const KEPT: char = '\u{e000}';
/// Longer commands would leave no room beside them.
const MAX_KEPT_COLUMNS: usize = 60;

/// Blanks between backquotes are no places to break a line.
pub(super) fn kept_together(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    let mut kept = String::with_capacity(text.len());
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            kept.push('`');
        }
        let is_quoted =
            number % 2 == 1 && number + 1 < parts.len() && console::measure_text_width(part) <= MAX_KEPT_COLUMNS;
        if is_quoted {
            kept.extend(part.chars().map(|letter| if letter == ' ' { KEPT } else { letter }));
        } else {
            kept.push_str(part);
        }
    }
    kept
}

pub(super) fn let_apart(text: &str) -> String {
    text.replace(KEPT, " ")
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::*;

    #[test]
    fn nothing_but_styles_reaches_a_terminal_unescaped() {
        let red = AnsiColor::Red.on_default();
        let text = Text::new("a\u{1b}]52;c;eA==\u{7}\n").styled(red) + format_args!("{}", "\u{9b}2J\u{202e}");
        assert_eq!(text.as_str(), "\u{1b}[31ma\\u001b]52;c;eA==\\u0007\\u000a\u{1b}[0m\\u009b2J\\u202e");
    }

    #[test]
    fn a_command_between_backquotes_stays_on_one_line() {
        let text = format!("{} `jm topology apply` and so on", "word ".repeat(13).trim_end());
        let wrapped = Text::wrapped(&text, "");
        assert_eq!(wrapped.split().nth(1), Some(Text::new("  `jm topology apply` and so on")));
        let lone = Text::wrapped(&format!("`{}", "word ".repeat(40)), "");
        assert!(lone.split().all(|line| line.as_str().len() <= WIDTH), "{lone:?}");
    }
}
