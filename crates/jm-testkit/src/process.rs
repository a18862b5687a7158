//! What `/proc` says of a process.

use std::fs;

/// Whether the process still runs. A zombie does not: it only waits for its parent to look.
pub(crate) fn runs(pid: u32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// Whether the process is stopped by a signal.
pub(crate) fn stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state ...", and the name may contain anything.
    stat.rsplit_once(") ")?.1.chars().next()
}
