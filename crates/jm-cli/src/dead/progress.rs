//! How far it has come: a bar on a terminal, a line now and then elsewhere. On standard error, beside the answer.

use std::{io, time::Duration};

use console::{Term, is_dumb};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use tokio::time::Instant;

use crate::output::{Output, Text};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

const DRAWN_PER_SECOND: u8 = 20;
/// Room for the `^C` that a terminal itself writes behind the bar, and for a second one.
const ROOM: u16 = 4;

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
        let terminal = Term::buffered_stderr();
        let target = if terminal.is_term() && !is_dumb() {
            ProgressDrawTarget::term_like_with_hz(Box::new(Narrower(terminal)), DRAWN_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
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

    /// Something to know meanwhile: a line of its own, above the bar.
    pub(crate) fn note(&self, text: impl Into<Text>) {
        self.bar.suspend(|| self.output.note(text));
    }

    /// It is more, or less, than it seemed.
    pub(crate) fn expect(&self, length: u64) {
        self.bar.set_length(length);
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// A terminal whose bars leave some room behind them. Without it a `^C` would stand on the next line, and that one would
/// be cleared in the bar's stead.
#[derive(Debug)]
struct Narrower(Term);

impl TermLike for Narrower {
    fn width(&self) -> u16 {
        let (_, columns) = self.0.size();
        columns.saturating_sub(ROOM)
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_up(lines)
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_down(lines)
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_left(columns)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}
