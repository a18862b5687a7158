//! So many a second.

use std::{str::FromStr, time::Duration};

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Messages a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate(Duration);

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rate: Option<f64> = text.parse().ok();
        let rate = rate.filter(|rate| (0.001..=100_000.0).contains(rate));
        rate.map(|rate| Self(Duration::from_secs_f64(1.0 / rate)))
            .ok_or("a number of messages a second, 0.001 to 100000")
    }
}

/// Waits before each message, so that no second has more than allowed, even after a pause.
#[derive(Debug)]
pub(crate) struct Pace(Option<Interval>);

impl Pace {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self(rate.map(|Rate(period)| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }))
    }

    pub(crate) async fn wait(&mut self) {
        if let Some(interval) = &mut self.0 {
            interval.tick().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_positive_number_of_a_sensible_size() {
        assert_eq!("4".parse(), Ok(Rate(Duration::from_millis(250))));
        assert_eq!("0.5".parse(), Ok(Rate(Duration::from_secs(2))));
        for wrong in ["0", "-1", "NaN", "inf", "1e9", "fast"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
