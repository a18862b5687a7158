//! Many messages over one channel, without a wait for each.

use std::{collections::HashMap, time::Duration};

use lapin::{Confirmation, message::BasicReturnMessage, types::ShortString};
use tokio::time::{Instant, timeout_at};

use super::{
    Inner, Publisher,
    attempts::{Stage, reconnect_backoff},
    channel::{Failure, Lease, classify, defect, refused, unroutable},
    window::Window,
};
use crate::{
    error::{ConnectError, PublishError},
    message::Outgoing,
};

/// The messages of one call, and what is known of each.
struct Batch<'a> {
    publisher: &'a Publisher,
    messages: &'a [Outgoing],
    progress: Vec<Progress>,
}

#[derive(Default)]
struct Progress {
    first_written: Option<Instant>,
    fate: Option<Result<(), PublishError>>,
    /// From the first write to the fate.
    took: Duration,
}

/// Why a round ended with messages still open.
enum RoundEnd {
    /// No channel, or no answers.
    Stalled(Stage),
    /// The broker closed the channel or the connection because of one of the messages, and does not say which.
    Condemned,
}

/// What the broker sent back, by message id.
type Returned = HashMap<ShortString, BasicReturnMessage>;

pub(super) async fn publish_all(publisher: &Publisher, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
    let progress = messages.iter().map(|_| Progress::default()).collect();
    let mut batch = Batch { publisher, messages, progress };
    batch.refuse_defects();
    batch.run().await;
    batch.finish()
}

impl Batch<'_> {
    fn inner(&self) -> &Inner {
        &self.publisher.inner
    }

    /// The messages without a fate.
    fn open(&self) -> Vec<usize> {
        (0..self.messages.len()).filter(|&n| self.progress[n].fate.is_none()).collect()
    }

    fn decide(&mut self, n: usize, fate: Result<(), PublishError>) {
        self.decide_at(Instant::now(), n, fate);
    }

    fn decide_at(&mut self, now: Instant, n: usize, fate: Result<(), PublishError>) {
        let progress = &mut self.progress[n];
        progress.took = progress.first_written.map_or(Duration::ZERO, |written| now - written);
        progress.fate = Some(fate);
    }

    fn refuse_defects(&mut self) {
        for (n, message) in self.messages.iter().enumerate() {
            if let Some(reason) = defect(message) {
                self.decide(n, Err(PublishError::Invalid { exchange: message.exchange.clone(), reason }));
            }
        }
    }

    /// Round after round, until every message has a fate.
    async fn run(&mut self) {
        let limit = self.inner().options.timeout;
        let mut backoff = reconnect_backoff();
        let mut last_progress = Instant::now();
        loop {
            let open = self.open();
            if open.is_empty() {
                return;
            }
            let stage = match self.round(&open, &mut last_progress).await {
                Ok(()) => continue,
                Err(RoundEnd::Condemned) => match self.publish_each(&mut last_progress).await {
                    Ok(()) => continue,
                    Err(stage) => stage,
                },
                Err(RoundEnd::Stalled(stage)) => stage,
            };
            let still_open = self.open();
            if still_open.len() < open.len() {
                backoff.reset();
            }
            if last_progress.elapsed() >= limit {
                for n in still_open {
                    let written = self.progress[n].first_written.is_some();
                    let error = self.inner().late(&self.messages[n], stage.clone(), written);
                    self.decide(n, Err(error));
                }
                return;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// One at a time, so that the one at fault fails alone; until one fails for another reason than its own.
    async fn publish_each(&mut self, last_progress: &mut Instant) -> Result<(), Stage> {
        for n in self.open() {
            self.progress[n].first_written.get_or_insert_with(Instant::now);
            let deadline = *last_progress + self.inner().options.timeout;
            match self.publisher.publish_until(&self.messages[n], deadline).await {
                Err(PublishError::NotConnected { source, .. }) => return Err(Stage::Waiting(Some(source))),
                Err(PublishError::TimedOut { .. }) => return Err(Stage::Waiting(None)),
                fate => self.decide(n, fate),
            }
            *last_progress = Instant::now();
        }
        Ok(())
    }

    /// Publishes what is open over one channel, until all have a fate or the channel fails. Nothing is waited for
    /// longer than the publisher's timeout after the last confirm.
    async fn round(&mut self, open: &[usize], last_progress: &mut Instant) -> Result<(), RoundEnd> {
        let deadline = *last_progress + self.inner().options.timeout;
        let stalled = |stage| Err(RoundEnd::Stalled(stage));
        let lease = match timeout_at(deadline, self.publisher.inner.answers.channels.lease()).await {
            Ok(Ok(lease)) => lease,
            Ok(Err(Failure::Lost(error))) => return stalled(Stage::Waiting(Some(error))),
            Ok(Err(Failure::Closed(reason))) => return stalled(Stage::Waiting(Some(ConnectError::Lost(reason)))),
            Ok(Err(Failure::Final(error))) => {
                for &n in open {
                    self.decide(n, Err(error.clone()));
                }
                return Ok(());
            }
            Err(_) => return stalled(Stage::Waiting(None)),
        };
        if timeout_at(deadline, lease.wait_while_blocked(|| {})).await.is_err() {
            return stalled(Stage::Blocked);
        }
        let mut returned = Returned::new();
        let outcome = self.pipeline(&lease, open, &mut returned, last_progress).await;

        // A return may come attached to another message's confirm; its own message id tells whose it is.
        for &n in open {
            let id = self.messages[n].message.properties.message_id().as_ref();
            if outcome.is_err() && !returned.is_empty() {
                // Whose confirm had taken a missing return is not known any more: publish the whole round again.
                self.progress[n].fate = None;
            } else if let (Some(Ok(())), Some(message)) = (&self.progress[n].fate, id.and_then(|id| returned.get(id))) {
                self.progress[n].fate = Some(Err(unroutable(&self.messages[n], message)));
            }
        }
        if outcome.is_ok() {
            lease.give_back().await;
        }
        outcome
    }

    async fn pipeline(
        &mut self,
        lease: &Lease,
        open: &[usize],
        returned: &mut Returned,
        last_progress: &mut Instant,
    ) -> Result<(), RoundEnd> {
        let (messages, app_id) = (self.messages, &self.publisher.inner.app_id);
        let mut window = Window::new();
        let mut unwritten = open.iter();
        let mut outcome = Ok(());
        while outcome.is_ok() {
            for &n in unwritten.by_ref().take(window.room()) {
                if let Err(Failure::Final(error)) = lease.check_frame(&messages[n], app_id) {
                    self.decide(n, Err(error));
                    continue;
                }
                self.progress[n].first_written.get_or_insert_with(Instant::now);
                window.begin(n, lease.write(&messages[n], app_id));
            }
            if window.is_empty() {
                return Ok(());
            }
            let limit = *last_progress + self.inner().options.timeout;
            let Ok(answers) = timeout_at(limit, window.answers()).await else {
                outcome = Err(RoundEnd::Stalled(Stage::Written { on: lease.connection() }));
                break;
            };
            for answered in answers {
                // What was answered together with the end counts, above all what was sent back.
                outcome = outcome.and(self.take(answered, returned, last_progress));
            }
        }
        for answered in window.last_answers() {
            // An error is the end itself, as every open message sees it.
            drop(self.take(answered, returned, last_progress));
        }
        outcome
    }

    fn take(
        &mut self,
        (n, answer): (usize, lapin::Result<Confirmation>),
        returned: &mut Returned,
        last_progress: &mut Instant,
    ) -> Result<(), RoundEnd> {
        let lost = |error| Err(RoundEnd::Stalled(Stage::Waiting(Some(error))));
        let (fate, message) = match answer {
            Ok(Confirmation::Ack(message)) => (Ok(()), message),
            Ok(Confirmation::Nack(message)) => (Err(refused(&self.messages[n])), message),
            Ok(Confirmation::NotRequested) => return lost(ConnectError::Lost("the channel forgot confirms".into())),
            Err(error) => match classify(&error, &self.messages[n]) {
                Failure::Final(_) | Failure::Closed(_) => return Err(RoundEnd::Condemned),
                Failure::Lost(error) => return lost(error),
            },
        };
        *last_progress = Instant::now();
        self.decide_at(*last_progress, n, fate);
        if let Some(message) = message {
            let id = message.delivery.properties.message_id().clone().unwrap_or_default();
            returned.insert(id, message);
        }
        Ok(())
    }

    fn finish(self) -> Vec<Result<(), PublishError>> {
        let count = |(progress, outgoing): (Progress, &Outgoing)| {
            let fate = progress.fate?;
            let outcome = fate.as_ref().map_or_else(PublishError::outcome_label, |()| "confirmed");
            self.publisher.inner.metrics.record(&outgoing.exchange, outcome, progress.took);
            Some(fate)
        };
        // Every message has a fate: `run` ends no earlier.
        self.progress.into_iter().zip(self.messages).filter_map(count).collect()
    }
}
