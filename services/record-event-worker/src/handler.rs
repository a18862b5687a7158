//! From an event to the tasks that follow from it.

use jm_mq_core::{Answers, Context, Handler, HandlerError, Permanent as _, Router};
use jm_tasks::{
    Completed, Diarized, Embedded, RecordCreated, RecordDeleted, RecordId, RecordUpdated, Stage, Transcribed,
};

use crate::{
    event::{Announcement, Arrival, Event},
    follow_up, metrics,
    pipeline::{Delivery, PipelineOptions, Plan, plan},
    state::{Outcome, RecordState, apply},
    store::{Known, Store, StoreError},
};

/// Headers that only a message from a dead-letter queue has: ours, and the broker's own.
const DEAD_LETTER_HEADERS: [&str; 2] = ["jm-error-kind", "x-death"];

/// Takes record events, keeps what they say, and starts the tasks that follow. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RecordEvents {
    store: Store,
    options: PipelineOptions,
}

impl RecordEvents {
    /// With a store, and a pipeline whose options have been [validated](PipelineOptions::validate).
    pub fn new(store: Store, options: PipelineOptions) -> Self {
        Self { store, options }
    }

    /// The queue's seven types.
    pub fn router(self) -> Router {
        Router::new()
            .on::<RecordCreated, _>(self.clone())
            .on::<RecordUpdated, _>(self.clone())
            .on::<RecordDeleted, _>(self.clone())
            .on::<Diarized, _>(self.clone())
            .on::<Transcribed, _>(self.clone())
            .on::<Embedded, _>(self.clone())
            .on::<Completed, _>(self)
    }

    /// Stores an event; returns what became of it, and what it starts.
    async fn take(&self, event: &Event, delivery: Delivery) -> Result<(Outcome, Plan, RecordState), HandlerError> {
        let locked = self.store.lock(&event.record_id).await;
        let (transaction, Known { state, started }) = locked.map_err(StoreError::into_handler_error)?;
        let (state, outcome) = apply(state, &event.change);
        let plan = plan(&state, &started, &event.change, delivery, now(), &self.options);
        let stored = if outcome == Outcome::Applied || plan.started != started {
            transaction.commit(&event.change, &state, &started, &plan.started).await
        } else {
            // Nothing is different: neither a write nor the row that the lock may have made.
            transaction.roll_back().await
        };
        stored.map_err(StoreError::into_handler_error)?;
        Ok((outcome, plan, state))
    }

    /// The tasks' messages, made outside the transaction: nobody waits for them but this event.
    async fn follow_ups(
        &self,
        record: RecordId,
        state: RecordState,
        stages: impl IntoIterator<Item = Stage> + Send + 'static,
    ) -> Result<Answers, HandlerError> {
        let options = self.options.clone();
        let made = tokio::task::spawn_blocking(move || {
            let mut messages = Vec::new();
            for stage in stages {
                if let Some(message) = follow_up::message(&record, &state, stage, &options)? {
                    metrics::follow_up(stage);
                    messages.push(message);
                }
            }
            Ok::<_, follow_up::FollowUpError>(messages)
        });
        Ok(made.await?.permanent()?.into())
    }
}

impl<T: Announcement + Send + 'static> Handler<T> for RecordEvents {
    async fn handle(&self, message: T, context: &Context) -> Result<Answers, HandlerError> {
        let event = match message.arrival().permanent()? {
            Arrival::Event(event) => event,
            Arrival::NoRecord => {
                metrics::event(T::TYPE, Outcome::NoRecord);
                return Ok(Answers::none());
            }
            Arrival::NotKept => {
                metrics::event(T::TYPE, Outcome::NotKept);
                return Ok(Answers::none());
            }
        };
        let (outcome, plan, state) = self.take(&event, delivery(context)).await?;
        metrics::event(T::TYPE, outcome);
        tracing::debug!(
            record = %event.record_id, r#type = T::TYPE, outcome = outcome.name(), started = ?plan.start,
            "record event"
        );
        if plan.start.is_empty() {
            return Ok(Answers::none());
        }
        self.follow_ups(event.record_id, state, plan.start).await
    }
}

/// Whether an earlier run for this message may have committed, and died before its tasks were published.
fn delivery(context: &Context) -> Delivery {
    let envelope = context.envelope();
    let was_dead = DEAD_LETTER_HEADERS.iter().any(|header| envelope.header(header).is_some());
    if context.attempt() > 1 || envelope.redelivered() || was_dead { Delivery::Again } else { Delivery::First }
}

/// Milliseconds since 1970, UTC.
fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
