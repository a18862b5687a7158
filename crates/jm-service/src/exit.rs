//! Exit codes, for whoever starts the process.

use std::process::ExitCode;

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

pub(crate) fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}
