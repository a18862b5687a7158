//! Logs to standard output: JSON for machines, text for a terminal.

mod lines;

use std::io::IsTerminal;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, LevelFilter, ParseError, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use self::lines::{Lines, Lost};
use crate::{
    config::{LogFormat, LogOptions},
    reporting::Reports,
};

/// Which events are logged.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(level)
}

/// `lapin` prints the bodies of returned messages, so no option can turn it on.
fn is_silent(target: &str) -> bool {
    target == "lapin" || target.starts_with("lapin::")
}

/// Lines that wait for whoever reads standard output. More are dropped, and counted: a reader that sleeps must not hold
/// up the work, the health checks or a signal.
const MAX_WAITING_LINES: usize = 16 * 1024;

/// Writes what is waiting when it is dropped.
pub(crate) struct Logs {
    _writer: WorkerGuard,
    dropped: DroppedLines,
}

/// Counts the lines that did not get out.
#[derive(Clone)]
pub(crate) struct DroppedLines {
    unread: ErrorCounter,
    unwritten: Lost,
}

impl DroppedLines {
    /// Those that waited too long for a reader, and those whose write failed: a full disk, a closed pipe.
    pub(crate) fn count(&self) -> usize {
        self.unread.dropped_lines().saturating_add(self.unwritten.count())
    }
}

impl Logs {
    /// Lines that were dropped.
    pub(crate) fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

/// Installs the process's subscriber. Does nothing where there is one already.
pub(crate) fn install(options: &LogOptions, reports: Option<Reports>) -> Logs {
    let terminal = std::io::stdout().is_terminal();
    let json = match options.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let (written, unwritten) = Lines::new(std::io::stdout());
    let (output, writer) =
        NonBlockingBuilder::default().buffered_lines_limit(MAX_WAITING_LINES).thread_name("jm-logs").finish(written);
    let dropped = DroppedLines { unread: output.error_counter(), unwritten };
    let lines = tracing_subscriber::fmt::layer().with_writer(output);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if json {
        Box::new(lines.json().flatten_event(true).with_current_span(false))
    } else {
        Box::new(lines.with_ansi(terminal))
    };
    // The configuration was checked before.
    let filter = filter(&options.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = filter.and(filter_fn(|metadata| !is_silent(metadata.target())));
    // Reports have their own rules: a failure is reported also where warnings are not logged.
    if tracing_subscriber::registry().with(lines.with_filter(filter)).with(reports).try_init().is_err() {
        tracing::debug!("somebody else has set up logging");
    }
    log_panics();
    Logs { _writer: writer, dropped }
}

/// A panic is one line with its place. Its text may hold a piece of a message, and the core logs it for handlers.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(place, "a task panicked");
    }));
}
