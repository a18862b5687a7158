//! Many messages over one channel, without a wait for each.

use std::{collections::HashMap, pin::pin, task::Poll, time::Duration};

use futures_util::{StreamExt, future::poll_fn, stream::FuturesUnordered};
use lapin::{Confirmation, message::BasicReturnMessage, types::ShortString};
use tokio::time::{Instant, timeout};

use super::{
    Inner, Publisher, Stage,
    channel::{Failure, Lease, classify, defect, refused, unroutable},
    reconnect_backoff,
};
use crate::{
    error::{ConnectError, PublishError},
    message::Outgoing,
};

/// Messages written but not confirmed, at most: enough to hide the round trip, little enough to forget.
const WINDOW: usize = 512;

/// What is known of each message; `None` is nothing yet.
type Fates = Vec<Option<Result<(), PublishError>>>;

/// Why a round ended with messages still open.
enum RoundEnd {
    /// No channel, or no answers.
    Stalled(Stage),
    /// The broker closed the channel because of one of the messages, and does not say which.
    Condemned,
}

pub(super) async fn publish_all(publisher: &Publisher, batch: &[Outgoing]) -> Vec<Result<(), PublishError>> {
    let started = Instant::now();
    let inner = &publisher.inner;
    let invalid = |outgoing: &Outgoing| {
        let exchange = outgoing.exchange.clone();
        defect(outgoing).map(|reason| Err(PublishError::Invalid { exchange, reason }))
    };
    let mut fates: Fates = batch.iter().map(invalid).collect();
    let mut backoff = reconnect_backoff();
    let mut progress = Instant::now();
    let mut written = false;
    while fates.iter().any(Option::is_none) {
        let known = fates.iter().flatten().count();
        let left = inner.options.timeout.saturating_sub(progress.elapsed());
        let stage = match round(inner, batch, &mut fates, left).await {
            Ok(()) => continue,
            Err(RoundEnd::Condemned) => {
                publish_each(publisher, batch, &mut fates).await;
                continue;
            }
            Err(RoundEnd::Stalled(stage)) => stage,
        };
        // Whatever got as far as a channel may have been written there.
        written |= !matches!(stage, Stage::Waiting(None) | Stage::Blocked);
        if fates.iter().flatten().count() > known {
            progress = Instant::now();
            backoff.reset();
        }
        if progress.elapsed() >= inner.options.timeout {
            for (fate, outgoing) in fates.iter_mut().zip(batch).filter(|(fate, _)| fate.is_none()) {
                *fate = Some(Err(inner.timed_out(&outgoing.exchange, stage.again(), written)));
            }
            break;
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
    let took = started.elapsed();
    fates.into_iter().flatten().zip(batch).map(|(fate, outgoing)| inner.count(fate, outgoing, took)).collect()
}

/// One at a time, so that the one at fault fails alone.
async fn publish_each(publisher: &Publisher, batch: &[Outgoing], fates: &mut Fates) {
    for (fate, outgoing) in fates.iter_mut().zip(batch).filter(|(fate, _)| fate.is_none()) {
        let deadline = Instant::now() + publisher.inner.options.timeout;
        *fate = Some(publisher.publish_until(outgoing, deadline).await);
    }
}

impl Inner {
    fn count(&self, fate: Result<(), PublishError>, outgoing: &Outgoing, took: Duration) -> Result<(), PublishError> {
        let outcome = fate.as_ref().map_or_else(PublishError::outcome_label, |()| "confirmed");
        self.metrics.record(&outgoing.exchange, outcome, took);
        fate
    }
}

impl Stage {
    /// The same stage for the next message of the batch.
    fn again(&self) -> Self {
        match self {
            Self::Waiting(error) => Self::Waiting(error.clone()),
            Self::Blocked => Self::Blocked,
            Self::Written { on } => Self::Written { on: on.clone() },
        }
    }
}

/// Publishes what has no fate yet over one channel, until all have one or the channel fails. `patience` is the
/// longest wait for the next confirm.
async fn round(publisher: &Inner, batch: &[Outgoing], fates: &mut Fates, patience: Duration) -> Result<(), RoundEnd> {
    let stalled = |stage| Err(RoundEnd::Stalled(stage));
    let lease = match timeout(patience, publisher.channels.lease()).await {
        Ok(Ok(lease)) => lease,
        Ok(Err(failure)) => return stalled(Stage::Waiting(Some(failure.into()))),
        Err(_) => return stalled(Stage::Waiting(None)),
    };
    if timeout(patience, lease.wait_while_blocked(|| {})).await.is_err() {
        return stalled(Stage::Blocked);
    }
    let open: Vec<usize> = (0..batch.len()).filter(|&n| fates[n].is_none()).collect();
    let mut returned = HashMap::new();
    let outcome = pipeline(publisher, &lease, batch, &open, fates, &mut returned).await;

    // A return may come attached to another message's confirm; its own message id tells whose it is.
    if outcome.is_err() && !returned.is_empty() {
        // Whose confirm had taken the missing ones is not known any more: publish the whole round again.
        for &n in &open {
            fates[n] = None;
        }
    }
    for &n in &open {
        let id = batch[n].message.properties.message_id().as_ref();
        if let (Some(Ok(())), Some(message)) = (&fates[n], id.and_then(|id| returned.get(id))) {
            fates[n] = Some(Err(unroutable(&batch[n], message)));
        }
    }
    outcome.map(|()| lease.give_back())
}

async fn pipeline(
    publisher: &Inner,
    lease: &Lease,
    batch: &[Outgoing],
    open: &[usize],
    fates: &mut Fates,
    returned: &mut HashMap<ShortString, BasicReturnMessage>,
) -> Result<(), RoundEnd> {
    let mut confirms = FuturesUnordered::new();
    let mut unwritten = open.iter();
    loop {
        while confirms.len() < WINDOW
            && let Some(&n) = unwritten.next()
        {
            let mut confirm = Box::pin(async move {
                let written = lease.write(&batch[n], &publisher.app_id).await;
                (
                    n,
                    match written {
                        Ok(confirm) => confirm.await,
                        Err(error) => Err(error),
                    },
                )
            });
            // Polled here, once, so that messages are written in the order of the batch.
            match poll_fn(|cx| Poll::Ready(pin!(&mut confirm).poll(cx))).await {
                Poll::Ready(answer) => take_answer(answer, batch, fates, returned)?,
                Poll::Pending => confirms.push(confirm),
            }
        }
        match timeout(publisher.options.timeout, confirms.next()).await {
            Ok(Some(answer)) => take_answer(answer, batch, fates, returned)?,
            Ok(None) if unwritten.len() == 0 => return Ok(()),
            Ok(None) => {}
            Err(_) => return Err(RoundEnd::Stalled(Stage::Written { on: lease.connection() })),
        }
    }
}

fn take_answer(
    (n, answer): (usize, lapin::Result<Confirmation>),
    batch: &[Outgoing],
    fates: &mut Fates,
    returned: &mut HashMap<ShortString, BasicReturnMessage>,
) -> Result<(), RoundEnd> {
    let lost = |error| Err(RoundEnd::Stalled(Stage::Waiting(Some(error))));
    let outgoing = &batch[n];
    let (fate, message) = match answer {
        Ok(Confirmation::Ack(message)) => (Ok(()), message),
        Ok(Confirmation::Nack(message)) => (Err(refused(outgoing)), message),
        Ok(Confirmation::NotRequested) => {
            return lost(ConnectError::Lost("the channel forgot confirms".into()));
        }
        Err(error) => match classify(&error, outgoing) {
            Failure::Final(_) => return Err(RoundEnd::Condemned),
            Failure::Lost(error) => return lost(error),
        },
    };
    fates[n] = Some(fate);
    if let Some(message) = message {
        let id = message.delivery.properties.message_id().clone().unwrap_or_default();
        returned.insert(id, message);
    }
    Ok(())
}
