//! What is asked of a campaign, and how it tells of its progress.

use std::{fmt, io::IsTerminal, path::PathBuf, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{cast::CAST, child::Deviation, plan::Plan};

/// What is asked of a campaign, beside its plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program that its processes are: `jm-chaos` itself.
    pub program: PathBuf,
    /// The slots that are taken; see [`CAST`].
    pub cast: Vec<u8>,
    /// Workers in this slot are not the core's, and do this wrong.
    pub deviation: Option<(u8, Deviation)>,
    /// What emptying all queues may take once all faults are over.
    pub empty_limit: Duration,
    /// Messages a second of all publishers together. What the workers cannot keep up with is not published.
    pub rate: u32,
    /// Whether to say on standard error how it goes.
    pub quiet: bool,
}

impl Options {
    /// A whole campaign.
    pub fn new(program: PathBuf) -> Self {
        let cast = (0..).take(CAST.len()).collect();
        Self { program, cast, deviation: None, empty_limit: Duration::from_secs(90), rate: 1_500, quiet: false }
    }

    pub(super) fn say(&self, what: fmt::Arguments<'_>) {
        if !self.quiet {
            write_line(format_args!("chaos: {what}"));
        }
    }

    pub(super) fn progress(&self, plan: &Plan) -> Progress {
        Progress::new(self.quiet, Duration::from_secs(plan.seconds))
    }
}

#[expect(clippy::print_stderr, reason = "the progress of a command")]
fn write_line(line: fmt::Arguments<'_>) {
    eprintln!("{line}");
}

/// How far the campaign is: a bar on a terminal, otherwise a line every ten seconds.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    seconds: u64,
    told: u64,
}

/// Between two lines.
const LINE_EVERY_S: u64 = 10;

impl Progress {
    fn new(quiet: bool, length: Duration) -> Self {
        let seconds = length.as_secs();
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} s  {msg}");
            ProgressBar::new(seconds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, quiet, seconds, told: 0 }
    }

    pub(super) fn tell(&mut self, passed: Duration, what: fmt::Arguments<'_>) {
        let now = passed.as_secs();
        if let Some(bar) = &self.bar {
            bar.set_position(now.min(self.seconds));
            bar.set_message(what.to_string());
        } else if !self.quiet && now >= self.told + LINE_EVERY_S {
            self.told = now;
            write_line(format_args!("chaos: {now:>4} s  {what}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
