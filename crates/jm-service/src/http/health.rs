//! Whether the process can do its work at this moment.

use std::sync::{Arc, Mutex, PoisonError};

use jm_mq_core::ConsumerState;
use tokio::sync::watch;

/// Where the process stands. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Health(Arc<Mutex<Phase>>);

enum Phase {
    /// Not consuming yet, and what it waits for.
    Starting(String),
    Consuming(watch::Receiver<ConsumerState>),
}

impl Health {
    pub(crate) fn starting() -> Self {
        Self(Arc::new(Mutex::new(Phase::Starting("starting".into()))))
    }

    /// The start has to wait for something.
    pub(crate) fn waits_for(&self, what: String) {
        self.set(Phase::Starting(what));
    }

    /// From now on it is ready when the consumer is.
    pub(crate) fn consuming(&self, states: watch::Receiver<ConsumerState>) {
        self.set(Phase::Consuming(states));
    }

    /// Ready only when every worker's consumer is registered; otherwise the reason, without any secret.
    pub(crate) fn ready(&self) -> Result<(), String> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Phase::Starting(what) => Err(what.clone()),
            Phase::Consuming(states) if states.has_changed().is_err() => Err("stopped".into()),
            Phase::Consuming(states) => match &*states.borrow() {
                ConsumerState::Ready => Ok(()),
                ConsumerState::Connecting => Err("connecting to RabbitMQ".into()),
                ConsumerState::Waiting { error } => Err(error.to_string()),
                ConsumerState::Draining => Err("draining".into()),
                ConsumerState::Stopped => Err("stopped".into()),
                _ => Err("not consuming".into()),
            },
        }
    }

    fn set(&self, phase: Phase) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}
