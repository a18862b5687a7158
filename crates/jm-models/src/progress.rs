//! What a fetch says while it works: a bar on a terminal, and a line for each thing done.

use std::{fmt::Write, io::Write as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::size::Size;

/// In 80 columns there is room for the longest package's name.
const TEMPLATE: &str = "{bar:20} {amount} {left} {msg}";

/// Over all downloads of a fetch. On anything but a terminal there is no bar, only the lines.
pub(crate) struct Progress {
    bar: ProgressBar,
    done: u64,
}

impl Progress {
    /// `total` bytes are to be downloaded.
    pub(crate) fn new(total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.with_key("amount", amount).with_key("left", left).progress_chars("━╸─"));
        }
        Self { bar, done: 0 }
    }

    /// What is worked on.
    pub(crate) fn task(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// This much of the present package has come.
    pub(crate) fn downloaded(&self, bytes: u64) {
        self.bar.set_position(self.done + bytes);
    }

    /// A package of this size is complete.
    pub(crate) fn finish_package(&mut self, bytes: u64) {
        self.done += bytes;
        self.bar.set_position(self.done);
    }

    /// A line above the bar.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line that is not an answer: on standard error.
pub(crate) fn say(line: &str) {
    // Work goes on when nobody reads about it.
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// Seconds, to a tenth.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn amount(state: &ProgressState, text: &mut dyn Write) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes a second, to be rounded")]
    let rate = Size(state.per_sec() as u64);
    let _ = write!(text, "{}/{} {rate}/s", Size(state.pos()), Size(state.len().unwrap_or_default()));
}

fn left(state: &ProgressState, text: &mut dyn Write) {
    let left = state.eta();
    // Early estimates and the time of unpacking would be nonsense.
    if state.pos() > 0 && state.len().is_some_and(|total| state.pos() < total) {
        let _ = write!(text, "{}:{:02} left", left.as_secs() / 60, left.as_secs() % 60);
    }
}

/// `5 models, 94 MB`.
pub(crate) fn counted(count: usize, what: &str, bytes: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}, {}", Size(bytes))
}
