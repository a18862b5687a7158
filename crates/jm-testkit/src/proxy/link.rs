//! The state of a proxy's link: what is wrong with it now, and what it has carried.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order, by FIN.
    Close,
    /// By RST.
    Reset,
}

/// What is wrong with the link; nothing by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) swallow: bool,
    pub(crate) stall: bool,
    pub(crate) delay: Option<Duration>,
    /// Bytes per write.
    pub(crate) slice: Option<usize>,
    /// Bytes that may still go from client to server before a reset.
    pub(crate) reset_after: Option<u64>,
}

/// Shared by the proxy's handle and its connections.
#[derive(Debug, Default)]
pub(crate) struct Link {
    weather: watch::Sender<Weather>,
    pub(crate) open: AtomicUsize,
    pub(crate) accepted: AtomicU64,
}

impl Link {
    pub(crate) fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    pub(crate) fn weather(&self) -> Weather {
        self.weather.borrow().clone()
    }

    /// Returns when no stall holds the bytes back.
    pub(crate) async fn flowing(&self) {
        let mut weather = self.weather.subscribe();
        // Fails only when the sender is gone, which is us.
        let _ = weather.wait_for(|weather| !weather.stall).await;
    }

    /// Returns when nothing is swallowed.
    pub(crate) async fn heard(&self) {
        let mut weather = self.weather.subscribe();
        let _ = weather.wait_for(|weather| !weather.swallow).await;
    }

    /// Takes up to `wanted` bytes from what may go before the reset. The second value: whether the reset is due now.
    pub(crate) fn allow(&self, wanted: usize) -> (usize, bool) {
        let mut allowed = (wanted, false);
        self.weather.send_modify(|weather| {
            if let Some(left) = weather.reset_after {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
                let rest = left - taken as u64;
                allowed = (taken, rest == 0);
                weather.reset_after = (rest > 0).then_some(rest);
            }
        });
        allowed
    }

    pub(crate) fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}
