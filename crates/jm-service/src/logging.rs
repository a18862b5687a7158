//! Logs to standard output: JSON for machines, text for a terminal.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{Directive, LevelFilter, ParseError},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    config::{LogFormat, LogOptions},
    reporting::Reports,
};

/// Which events are logged. `lapin` is never among them: it prints the bodies of returned messages.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(level)?;
    let lapin: Directive = "lapin=off".parse()?;
    Ok(filter.add_directive(lapin))
}

/// Installs the process's subscriber. Does nothing where there is one already.
pub(crate) fn install(options: &LogOptions, reports: Option<Reports>) {
    let terminal = std::io::stdout().is_terminal();
    let json = match options.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if json {
        Box::new(tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false))
    } else {
        Box::new(tracing_subscriber::fmt::layer().with_ansi(terminal))
    };
    // The configuration was checked before.
    let filter = filter(&options.level).unwrap_or_else(|_| EnvFilter::new("info,lapin=off"));
    // Reports have their own rules: a failure is reported also where warnings are not logged.
    if tracing_subscriber::registry().with(lines.with_filter(filter)).with(reports).try_init().is_err() {
        tracing::debug!("somebody else has set up logging");
    }
    log_panics();
}

/// A panic is one line with its place. Its text may hold a piece of a message, and the core logs it for handlers.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(place, "a task panicked");
    }));
}
