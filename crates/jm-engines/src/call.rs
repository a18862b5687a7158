//! The circumstances of one call to an engine.

use std::time::{Duration, Instant};

use jm_mq_core::Context;
use tokio_util::sync::CancellationToken;

/// Until when an answer is of use, and whether anybody still wants it.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// When the caller gives up; `None` leaves only the engine's own limit.
    pub deadline: Option<Instant>,
    /// Cancelled when nobody waits any more. Work on other threads has to look at it.
    pub cancellation: CancellationToken,
}

impl Call {
    /// The time for a request: the engine's own limit, or what the caller has left if that is less.
    pub fn time_left(&self, limit: Duration) -> Duration {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        left.map_or(limit, |left| left.min(limit))
    }
}

impl From<&Context> for Call {
    fn from(context: &Context) -> Self {
        Self { deadline: context.deadline(), cancellation: context.cancellation().clone() }
    }
}
