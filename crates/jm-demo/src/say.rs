//! What is said on standard output and standard error.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// A reader that has gone away is no failure of ours.
pub(crate) fn say(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// In lines of at most 78 columns, the second and later ones further in.
pub(crate) fn say_indented(text: &str, indent: &str) {
    let further = format!("{indent}  ");
    say(textwrap::fill(text, textwrap::Options::new(78).initial_indent(indent).subsequent_indent(&further)));
}
