//! The gauges of a publisher's channels.

use metrics::{Gauge, gauge};

use super::{PUBLISHER_CHANNELS, PUBLISHER_CHANNELS_MAX};

/// What a publisher's pool of channels may hold; taken back when dropped.
pub(crate) struct ChannelLimit {
    limit: Gauge,
    channels: f64,
}

impl ChannelLimit {
    pub(crate) fn new(channels: usize) -> Self {
        let channels = f64::from(u32::try_from(channels).unwrap_or(u32::MAX));
        let limit = gauge!(PUBLISHER_CHANNELS_MAX);
        limit.increment(channels);
        for state in ["leased", "idle"] {
            gauge!(PUBLISHER_CHANNELS, "state" => state).increment(0.0);
        }
        Self { limit, channels }
    }
}

impl Drop for ChannelLimit {
    fn drop(&mut self) {
        self.limit.decrement(self.channels);
    }
}

/// One channel's part of the gauges; taken back when dropped.
pub(crate) struct ChannelGauges {
    leased: Gauge,
    idle: Gauge,
    is_leased: bool,
}

impl ChannelGauges {
    pub(crate) fn opened() -> Self {
        let leased = gauge!(PUBLISHER_CHANNELS, "state" => "leased");
        let idle = gauge!(PUBLISHER_CHANNELS, "state" => "idle");
        idle.increment(1.0);
        Self { leased, idle, is_leased: false }
    }

    pub(crate) fn leased(&mut self, leased: bool) {
        match (self.is_leased, leased) {
            (false, true) => {
                self.idle.decrement(1.0);
                self.leased.increment(1.0);
            }
            (true, false) => {
                self.leased.decrement(1.0);
                self.idle.increment(1.0);
            }
            _ => {}
        }
        self.is_leased = leased;
    }
}

impl Drop for ChannelGauges {
    fn drop(&mut self) {
        self.leased(false);
        self.idle.decrement(1.0);
    }
}
