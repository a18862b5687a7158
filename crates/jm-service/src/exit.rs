//! Exit codes, for whoever starts the process.

use std::{
    process::{self, ExitCode},
    thread,
    time::Duration,
};

/// Drained after a signal, or asked only for information; ready, if asked by `--health`.
pub const OK: u8 = 0;
/// The worker could not start, for a reason outside its configuration (a port in use, a folder without permission), or
/// its consumer ended by itself, which is a defect. Asked by `--health`: not ready.
pub const FAILED: u8 = 1;
/// The command line cannot be used; clap's code.
pub const USAGE: u8 = 2;
/// The configuration cannot be used: `EX_CONFIG` of `sysexits.h`. Starting again is pointless until it is mended.
pub const CONFIGURATION: u8 = 78;

// A second signal ends the process with 128 and the signal's number, see `jm_mq_core::shutdown_signal`: 130 or 143.

/// The rest of a process after its drain: error reports that leave, lines that are written.
const EXIT_LIMIT: Duration = Duration::from_millis(800);

/// Exits with `code` when the process has not done so by itself in time: a thread may hang in the kernel or in a library,
/// or a reader of standard output may sleep.
pub(crate) fn within_limit(code: u8) {
    let watching = thread::Builder::new().name("jm-exit".into()).spawn(move || {
        thread::sleep(EXIT_LIMIT);
        process::exit(code.into());
    });
    if let Err(error) = watching {
        tracing::debug!(error = error.to_string(), "no thread to limit the exit");
    }
}

pub(crate) fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}
