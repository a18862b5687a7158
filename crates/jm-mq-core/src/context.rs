//! What a handler is told beside its task.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties,
    types::{FieldTable, ShortString},
};
use tokio_util::sync::CancellationToken;

use crate::{
    envelope::{Envelope, Past},
    trace::TraceContext,
};

/// The circumstances of one run of a handler. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    envelope: Arc<Envelope>,
    attempt: u32,
    deadline: Option<Instant>,
    cancellation: Arc<Cancellation>,
}

impl Context {
    pub(crate) fn new(
        envelope: Arc<Envelope>,
        attempt: u32,
        deadline: Option<Instant>,
        cancellation: Arc<Cancellation>,
    ) -> Self {
        Self { envelope, attempt, deadline, cancellation }
    }

    /// A context without a broker behind it, for a handler's unit tests: first attempt, no deadline, no properties.
    ///
    /// ```
    /// # use jm_mq_core::Context;
    /// let cx = Context::detached("jm.llm").with_message_id("m-1").with_attempt(2);
    /// assert_eq!((cx.queue(), cx.message_id(), cx.attempt()), ("jm.llm", Some("m-1"), 2));
    /// ```
    pub fn detached(queue: &str) -> Self {
        let envelope = Envelope {
            queue: queue.into(),
            exchange: ShortString::default(),
            routing_key: ShortString::default(),
            redelivered: false,
            properties: BasicProperties::default(),
            past: Past::default(),
        };
        Self::new(Arc::new(envelope), 1, None, Arc::default())
    }

    /// The same with other AMQP properties; for tests.
    #[must_use]
    pub fn with_properties(mut self, properties: BasicProperties) -> Self {
        Arc::make_mut(&mut self.envelope).properties = properties;
        self
    }

    /// The same with a message id; for tests.
    ///
    /// # Panics
    ///
    /// When `id` is longer than the 255 bytes that AMQP can carry.
    #[must_use]
    pub fn with_message_id(self, id: &str) -> Self {
        let properties = self.envelope.properties.clone().with_message_id(id.into());
        self.with_properties(properties)
    }

    /// The same, given out by the broker once more; for tests.
    #[must_use]
    pub fn with_redelivered(mut self, redelivered: bool) -> Self {
        Arc::make_mut(&mut self.envelope).redelivered = redelivered;
        self
    }

    /// The same at another attempt; for tests.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// The same with a deadline; for tests.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The delivery's metadata.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The queue the message came by.
    pub fn queue(&self) -> &str {
        self.envelope.queue()
    }

    /// The producer's id for the message; the Go services send none.
    pub fn message_id(&self) -> Option<&str> {
        self.envelope.message_id()
    }

    /// The `type` property as the producer wrote it, before aliases.
    pub fn message_type(&self) -> Option<&str> {
        self.envelope.message_type()
    }

    /// What the message belongs to: here, a record's id.
    pub fn correlation_id(&self) -> Option<&str> {
        self.envelope.correlation_id()
    }

    /// The queue that wants the answer as well.
    pub fn reply_to(&self) -> Option<&str> {
        self.envelope.reply_to()
    }

    /// The message's headers.
    pub fn headers(&self) -> Option<&FieldTable> {
        self.envelope.headers()
    }

    /// The trace to which the message belongs.
    pub fn trace(&self) -> Option<TraceContext> {
        self.envelope.trace()
    }

    /// Which run of the handler for this delivery this is: 1 is the first, 2 the first retry.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When this run is given up (`handler_timeout`); `None` without a limit.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The time left until [`deadline`](Self::deadline); zero once it has passed.
    pub fn remaining(&self) -> Option<Duration> {
        Some(self.deadline?.saturating_duration_since(Instant::now()))
    }

    /// Cancelled when nobody waits for this run any more: it returned, timed out, or the drain's deadline passed.
    ///
    /// The handler's future is dropped then, which stops everything it awaits. What it handed to another thread
    /// (`spawn_blocking`) goes on unless it looks at this token, and would overlap with the next attempt.
    pub fn cancellation(&self) -> &CancellationToken {
        self.cancellation.token()
    }
}

/// Whether a run is over, for those who ask. Its token is made when it is asked for: most handlers never do.
#[derive(Debug, Default)]
pub(crate) struct Cancellation {
    token: OnceLock<CancellationToken>,
    over: Mutex<bool>,
}

impl Cancellation {
    fn token(&self) -> &CancellationToken {
        let token = self.token.get_or_init(CancellationToken::new);
        // Looked at after the token is there, and set before it is looked for: one of the two sides sees the other.
        if *self.over.lock().unwrap_or_else(PoisonError::into_inner) {
            token.cancel();
        }
        token
    }

    fn cancel(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        if let Some(token) = self.token.get() {
            token.cancel();
        }
    }
}

/// Tells that a run is over, however it ended.
#[derive(Debug)]
pub(crate) struct CancelWhenDropped(pub(crate) Arc<Cancellation>);

impl Drop for CancelWhenDropped {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_run() -> (Context, CancelWhenDropped) {
        let mut context = Context::detached("q");
        let cancellation = Arc::<Cancellation>::default();
        context.cancellation = Arc::clone(&cancellation);
        (context, CancelWhenDropped(cancellation))
    }

    #[test]
    fn a_token_taken_during_the_run_is_cancelled_with_it() {
        let (context, run) = of_run();
        let token = context.clone().cancellation().clone();
        assert!(!token.is_cancelled());
        drop(run);
        assert!(token.is_cancelled() && context.cancellation().is_cancelled());
    }

    #[test]
    fn a_token_taken_after_the_run_is_cancelled_already() {
        let (context, run) = of_run();
        drop(run);
        assert!(context.cancellation().is_cancelled());
    }
}
