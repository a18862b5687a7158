//! Counts messages as handlers see them. The same for both sides, so that it costs them the same.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Counts up to a number of messages.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Inner>);

struct Inner {
    wanted: u64,
    handled: AtomicU64,
    first: OnceLock<Instant>,
    last: OnceLock<Instant>,
    done: Notify,
}

impl Meter {
    pub(crate) fn new(wanted: u64) -> Self {
        let (first, last) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner { wanted, handled: AtomicU64::new(0), first, last, done: Notify::new() }))
    }

    /// One more.
    pub(crate) fn count(&self) {
        match self.0.handled.fetch_add(1, Ordering::Relaxed) + 1 {
            1 => _ = self.0.first.set(Instant::now()),
            n if n == self.0.wanted => {
                _ = self.0.last.set(Instant::now());
                self.0.done.notify_one();
            }
            _ => {}
        }
    }

    /// Waits for the last one.
    pub(crate) async fn done(&self) {
        self.0.done.notified().await;
    }

    /// From the first message to the last.
    pub(crate) fn took(&self) -> Duration {
        match (self.0.first.get(), self.0.last.get()) {
            (Some(first), Some(last)) => last.saturating_duration_since(*first),
            _ => Duration::ZERO,
        }
    }
}

/// The latencies of numbered messages. Number and time of publish travel in the body's first bytes.
#[derive(Clone)]
pub(crate) struct Latencies(Arc<LatenciesInner>);

struct LatenciesInner {
    epoch: Instant,
    nanos: Vec<AtomicU64>,
}

/// Number and time, eight bytes each.
const STAMP_BYTES: usize = 16;

impl Latencies {
    pub(crate) fn new(messages: u64) -> Self {
        let nanos = (0..messages).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(LatenciesInner { epoch: Instant::now(), nanos }))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The body of message `number`, published now.
    pub(crate) fn body(&self, number: u64, size: u32) -> Vec<u8> {
        let mut body = vec![b'x'; (size as usize).max(STAMP_BYTES)];
        body[..8].copy_from_slice(&number.to_be_bytes());
        body[8..STAMP_BYTES].copy_from_slice(&self.now().to_be_bytes());
        body
    }

    /// A message has arrived.
    pub(crate) fn arrived(&self, body: &[u8]) {
        let Some((number, rest)) = body.split_first_chunk::<8>() else { return };
        let Some(sent) = rest.first_chunk::<8>() else { return };
        let number = usize::try_from(u64::from_be_bytes(*number)).unwrap_or(usize::MAX);
        if let Some(slot) = self.0.nanos.get(number) {
            slot.store(self.now().saturating_sub(u64::from_be_bytes(*sent)), Ordering::Relaxed);
        }
    }

    /// The latencies in microseconds, sorted, without those of the first tenth: that is for warming up.
    pub(crate) fn sorted_micros(&self) -> Vec<f64> {
        let warm = self.0.nanos.iter().skip(self.0.nanos.len() / 10);
        #[expect(clippy::cast_precision_loss, reason = "latencies are far below the nanoseconds of a month")]
        let mut micros: Vec<f64> = warm.map(|nanos| nanos.load(Ordering::Relaxed) as f64 / 1e3).collect();
        micros.sort_by(f64::total_cmp);
        micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_meter_is_done_with_the_last_message() {
        let meter = Meter::new(3);
        (0..3).for_each(|_| meter.count());
        meter.done().await;
    }

    #[test]
    fn a_latency_is_found_by_its_number_and_the_first_tenth_is_left_out() {
        let latencies = Latencies::new(20);
        for number in 0..20 {
            latencies.arrived(&latencies.body(number, 32));
        }
        latencies.arrived(b"too short");
        assert_eq!(latencies.sorted_micros().len(), 18);
        assert!(latencies.sorted_micros().iter().all(|&micros| micros > 0.0 && micros < 1e6));
    }
}
