//! How long the supervisor rests between two looks.

use std::time::{Duration, Instant};

/// Where all run, and have for a while.
const LOOK: Duration = Duration::from_secs(1);

/// The longest, where something ends again and again.
const MAX_REST: Duration = Duration::from_mins(1);

/// What was started again, and still runs after this time, is well.
const STEADY: Duration = Duration::from_mins(1);

/// Grows with each look at which something had to be started again, until all have run for a while.
#[derive(Debug)]
pub(super) struct Rest {
    rest: Duration,
    mended: Option<Instant>,
}

impl Rest {
    pub(super) fn new() -> Self {
        Self { rest: LOOK, mended: None }
    }

    /// Until the next look.
    pub(super) fn duration(&self) -> Duration {
        self.rest
    }

    /// Something had ended.
    pub(super) fn mended(&mut self, now: Instant) {
        self.rest = (self.rest * 2).min(MAX_REST);
        self.mended = Some(now);
    }

    /// All run.
    pub(super) fn found_all_running(&mut self, now: Instant) {
        if self.mended.is_some_and(|mended| now.saturating_duration_since(mended) >= STEADY) {
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The starts within `span`, of a worker that ends `life` after each.
    fn starts(life: Duration, span: Duration) -> usize {
        let (begin, mut rest, mut starts) = (Instant::now(), Rest::new(), 1);
        let (mut now, mut started) = (begin, begin);
        while now - begin < span {
            now += rest.duration();
            if now - started < life {
                rest.found_all_running(now);
            } else {
                rest.mended(now);
                (started, starts) = (now, starts + 1);
            }
        }
        starts
    }

    #[test]
    fn what_ends_seconds_after_each_start_is_started_ever_more_seldom() {
        for life in [0, 3, 20, 59].map(Duration::from_secs) {
            let starts = starts(life, Duration::from_hours(1));
            assert!((50..75).contains(&starts), "{starts} starts of what lives {life:?}");
        }
    }

    #[test]
    fn after_a_minute_without_an_end_it_looks_as_often_as_before() {
        let (begin, mut rest) = (Instant::now(), Rest::new());
        rest.found_all_running(begin);
        assert_eq!(rest.duration(), LOOK);
        for _ in 0..3 {
            rest.mended(begin);
        }
        assert_eq!(rest.duration(), 8 * LOOK);
        rest.found_all_running(begin + STEADY / 2);
        assert_eq!(rest.duration(), 8 * LOOK);
        rest.found_all_running(begin + STEADY);
        assert_eq!(rest.duration(), LOOK);
    }
}
