//! One message's publish: attempt after attempt, until the broker has answered.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Inner, channel, channel::Failure, suspicion::Suspicion};
use crate::{
    backoff::{ReconnectBackoff, jittered},
    error::{ConnectError, PublishError},
    message::Outgoing,
};

/// Before another attempt when a person has to mend something first.
const LEAST_FATAL_WAIT: Duration = Duration::from_secs(15);

/// How far a publish has come; read when it takes long.
#[derive(Default)]
pub(super) struct Progress {
    stage: Mutex<Stage>,
    /// Whether any attempt has handed the message to a connection.
    written: AtomicBool,
}

#[derive(Clone)]
pub(super) enum Stage {
    /// For a channel, possibly after a lost connection.
    Waiting(Option<ConnectError>),
    /// Holds the message back, since the broker blocks publishers.
    Blocked,
    /// Handed to the connection.
    Written { on: lapin::ConnectionStatus },
}

impl Default for Stage {
    fn default() -> Self {
        Self::Waiting(None)
    }
}

impl Progress {
    fn set(&self, stage: Stage) {
        self.written.fetch_or(matches!(stage, Stage::Written { .. }), Ordering::Relaxed);
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Where it stands, and whether it was ever written.
    pub(super) fn now(&self) -> (Stage, bool) {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (stage, self.written.load(Ordering::Relaxed))
    }

    /// Whether it was handed to a connection that is not known to be gone.
    pub(super) fn is_on_its_way(&self) -> bool {
        matches!(self.now().0, Stage::Written { .. })
    }
}

impl Inner {
    /// Publishes a message, again whenever its channel is gone, until the broker has answered.
    pub(super) async fn attempts(&self, outgoing: &Outgoing, progress: &Progress) -> Result<(), PublishError> {
        if let Some(reason) = channel::defect(outgoing) {
            return Err(PublishError::Invalid { exchange: outgoing.exchange.clone(), reason });
        }
        let mut suspicion = Suspicion::default();
        let mut backoff = reconnect_backoff();
        loop {
            let error = match self.attempt(outgoing, progress, &suspicion).await {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Lost(error)) => error,
                Err(Failure::Closed(reason)) => {
                    if let Some(reason) = suspicion.closed(&reason) {
                        return Err(PublishError::Invalid { exchange: outgoing.exchange.clone(), reason });
                    }
                    ConnectError::Lost(reason)
                }
            };
            // Other publishes have all of the connection's channels, and return them in a moment.
            let shared = matches!(error, ConnectError::TooFewChannels { .. });
            let wait = if error.is_fatal() && !shared { jittered(LEAST_FATAL_WAIT) } else { backoff.next_delay() };
            progress.set(Stage::Waiting(Some(error)));
            tokio::time::sleep(wait.max(suspicion.least_wait(outgoing))).await;
        }
    }

    async fn attempt(&self, outgoing: &Outgoing, progress: &Progress, suspicion: &Suspicion) -> Result<(), Failure> {
        let mut lease = self.lane(outgoing).lease(suspicion).await?;
        lease.wait_while_blocked(|| progress.set(Stage::Blocked)).await;
        progress.set(Stage::Written { on: lease.connection() });
        lease.publish(outgoing, &self.app_id, self.options.timeout).await?;
        lease.give_back().await;
        Ok(())
    }
}

/// Quick: a node that restarts is back in seconds, and work waits for it.
pub(super) fn reconnect_backoff() -> ReconnectBackoff {
    ReconnectBackoff::new(Duration::from_millis(20), Duration::from_millis(500))
}
