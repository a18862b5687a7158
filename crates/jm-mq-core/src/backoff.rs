//! How long to wait before trying again.

use std::time::Duration;

/// The specification's exponential backoff: `min(base · 2^(n-1), max)` before retry `n`.
///
/// | retry | base 1 s, max 30 s |
/// |---|---|
/// | 1, 2, 3, 4, 5 | 1 s, 2 s, 4 s, 8 s, 16 s |
/// | 6 and later | 30 s |
///
/// Without jitter, as the specification has it: the messages of one queue fail at different times anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
}

impl Backoff {
    /// A backoff that starts at `base` and doubles until it stays at `max`.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max }
    }

    /// The wait before retry `attempt`, which counts from 1. Zero is taken as one.
    ///
    /// Computed in 128 bits: a shift in 64 bits, as in the specification's sketch, overflows at attempt 35 with a
    /// base of one second.
    pub fn delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(64);
        let nanos = self.base.as_nanos().saturating_mul(1_u128 << doublings).min(self.max.as_nanos());
        u64::try_from(nanos).map_or(self.max, Duration::from_nanos)
    }
}

/// The growing, jittered wait between two attempts to connect; starts again at its base after a success.
///
/// Jitter keeps the replicas that lost the same broker from coming back in one instant.
#[derive(Clone, Debug)]
pub(crate) struct ReconnectBackoff {
    backoff: Backoff,
    failures: u32,
}

impl ReconnectBackoff {
    pub(crate) fn new(base: Duration, max: Duration) -> Self {
        Self { backoff: Backoff::new(base, max), failures: 0 }
    }

    /// The next wait: between half of the schedule's value and all of it.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        jittered(self.backoff.delay(self.failures))
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `full`, shortened by a random amount of up to one half.
pub(crate) fn jittered(full: Duration) -> Duration {
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_the_specifications_for_attempts_1_to_70() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let seconds: Vec<u64> = (1..=8).map(|attempt| backoff.delay(attempt).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
        for attempt in 1..=70_u32 {
            // The specification's expression, in arithmetic that cannot overflow.
            let exact = 1_000_000_000_u128.saturating_mul(2_u128.pow(attempt - 1)).min(30_000_000_000);
            assert_eq!(backoff.delay(attempt).as_nanos(), exact, "attempt {attempt}");
        }
    }

    #[test]
    fn a_large_maximum_is_reached_by_doubling_and_never_exceeded() {
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_hours(24));
        assert_eq!(backoff.delay(27), Duration::from_millis(1 << 26));
        assert_eq!(backoff.delay(28), Duration::from_hours(24));
        assert_eq!(backoff.delay(u32::MAX), Duration::from_hours(24));
    }

    #[test]
    fn reconnect_delays_grow_stay_within_their_jitter_and_start_again() {
        let mut backoff = ReconnectBackoff::new(Duration::from_millis(50), Duration::from_millis(500));
        for full in [50, 100, 200, 400, 500, 500] {
            let delay = backoff.next_delay();
            assert!(delay <= Duration::from_millis(full) && delay >= Duration::from_millis(full / 2), "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(50));
    }
}
