//! Exit codes, all of them.

use std::process::ExitCode;

/// How a command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Done, and nothing wrong was found.
    Ok = 0,
    /// Done, and something was found: a difference, a failed check, a canary that failed again, an invalid message.
    Found = 1,
    /// The command line cannot be used; clap's code.
    Usage = 2,
    /// What was named does not exist: a queue, a message, a record, a file. `EX_NOINPUT` of `sysexits.h`.
    Missing = 66,
    /// A server cannot be reached, or refuses. `EX_UNAVAILABLE`.
    Unavailable = 69,
    /// A file, or the output, cannot be written. `EX_IOERR`.
    Io = 74,
    /// The configuration cannot be used. `EX_CONFIG`, as the workers have it.
    Configuration = 78,
    /// Ended by Ctrl-C.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

/// For `--help` and the man page.
pub(crate) const HELP: &str = "\
Exit codes:
  0         done, and nothing wrong was found
  1         done, and something was found: a difference, a failed check,
            a canary that failed again, an invalid message
  2         wrong command line
  66        what was named does not exist: queue, message, record, file
  69        a server cannot be reached, or refuses
  74        a file cannot be written
  78        wrong configuration
  130, 143  ended by Ctrl-C or SIGTERM; the broker is as it was";

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}
