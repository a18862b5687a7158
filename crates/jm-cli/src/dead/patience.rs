//! How long a broker that went away is waited for.

use std::time::Duration;

use jm_mq_core::ConnectError;
use tokio::time::Instant;

use super::{glance::Trouble, progress::Progress};
use crate::{failure::Failure, interrupt::Interrupt};

/// Without any progress.
const PATIENCE: Duration = Duration::from_mins(1);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Patience with a broker that was there before.
#[derive(Debug)]
pub(crate) struct Patience {
    /// Since when there is no progress.
    since: Option<Instant>,
    wait: Duration,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { since: None, wait: FIRST_WAIT }
    }

    /// Something was done.
    pub(crate) fn renew(&mut self) {
        *self = Self::new();
    }

    /// Waits before the next attempt, unless it has lasted for too long or nobody wants it any more.
    pub(crate) async fn bear(
        &mut self,
        trouble: Trouble,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let error = match trouble {
            Trouble::Lost(error) => error,
            Trouble::Ended(failure) => return Err(failure),
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= PATIENCE {
            return Err(given_up(&error));
        }
        progress.note(format_args!("{error}; connecting again"));
        tokio::select! {
            _ = interrupt.requested() => {}
            () = tokio::time::sleep(self.wait) => {}
        }
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Ok(())
    }
}

fn given_up(error: &ConnectError) -> Failure {
    Failure::unavailable(format_args!(
        "{error}; given up after {} s without progress; the same command goes on from here",
        PATIENCE.as_secs()
    ))
}
