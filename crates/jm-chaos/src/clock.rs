//! One clock for all processes of the machine.

use nix::time::{ClockId, clock_gettime};

/// Microseconds of `CLOCK_MONOTONIC`, which all processes of a machine share and nobody can set.
pub(crate) fn now() -> u64 {
    // It fails for an unknown clock only.
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    u64::try_from(time.tv_sec()).unwrap_or_default() * 1_000_000
        + u64::try_from(time.tv_nsec()).unwrap_or_default() / 1000
}
