//! How far it has come: a bar on a terminal, a line now and then elsewhere. On standard error, beside the answer.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::output::Output;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The bar, and the lines in its stead.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    output: Output,
    last_line: Instant,
}

impl Progress {
    /// Of so many. `doing` is one word.
    pub(crate) fn new(output: Output, doing: &'static str, length: u64) -> Self {
        let target = ProgressDrawTarget::stderr();
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec} {eta}");
        let bar = ProgressBar::with_draw_target(Some(length), target).with_message(doing);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { bar, output, last_line: Instant::now() }
    }

    pub(crate) fn reached(&mut self, position: u64) {
        self.bar.set_position(position);
        if self.bar.is_hidden() && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let length = self.bar.length().unwrap_or_default();
            self.output.note(format_args!("{}: {position} of {length}", self.bar.message()));
        }
    }

    /// It is more, or less, than it seemed.
    pub(crate) fn expect(&self, length: u64) {
        self.bar.set_length(length);
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
