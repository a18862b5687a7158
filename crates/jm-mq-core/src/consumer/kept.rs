//! Results of work whose message went back to the broker while it ran.
//!
//! When a connection is lost, the broker gives its unsettled messages out again, to us or to another replica. A
//! handler that was running then runs on; if the same message comes back to this process, it is answered with that
//! result and not run a second time.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lapin::types::ShortString;
use metrics::Counter;
use tokio::sync::oneshot;

use crate::{envelope::Work, handler::Answers, settlement::Failure};

/// What is still to be done for a message when it comes back.
#[derive(Debug)]
pub(super) enum KeptResult {
    /// Its handler has finished; these answers were not published yet.
    Answers(Answers),
    /// Its handler has failed for good.
    Failed(Failure),
    /// Everything but the ack.
    Settled,
}

/// The kept results of one consumer: bounded, since most messages may come back to another replica.
#[derive(Debug)]
pub(super) struct KeptResults {
    entries: Mutex<VecDeque<Entry>>,
    used: Counter,
    evicted: Counter,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    since: Instant,
    result: oneshot::Receiver<KeptResult>,
}

/// What makes a redelivery the same message. The broker gives it back to the byte, so all of it has to agree: a
/// producer that uses one id for different messages must not lose any.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    message_id: Option<ShortString>,
    message_type: Option<ShortString>,
    body: Bytes,
}

/// More is never needed: it would take as many lost connections, each with all workers busy, within `MAX_AGE`.
const MAX_ENTRIES: usize = 4096;
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// What has not come back by then has gone elsewhere.
const MAX_AGE: Duration = Duration::from_hours(1);

/// The duty to say how a run has ended, once it has. Dropped without a word: the message has to be run again.
#[derive(Debug)]
pub(super) struct Promise(oneshot::Sender<KeptResult>);

/// A run of the same message, finished or under way.
#[derive(Debug)]
pub(super) struct Claim(oneshot::Receiver<KeptResult>);

impl KeptResults {
    pub(super) fn new(used: Counter, evicted: Counter) -> Self {
        Self { entries: Mutex::default(), used, evicted }
    }

    /// Announces that the result of a run, which may still be going on, will be kept.
    pub(super) fn promise(&self, work: &Work) -> Promise {
        let (sender, result) = oneshot::channel();
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_back(Entry { identity: Identity::of(work), since: now, result });
        let mut bytes: usize = entries.iter().map(|entry| entry.identity.body.len()).sum();
        while let Some(oldest) = entries.front()
            && (entries.len() > MAX_ENTRIES || bytes > MAX_BYTES || now.duration_since(oldest.since) > MAX_AGE)
        {
            bytes -= oldest.identity.body.len();
            entries.pop_front();
            self.evicted.increment(1);
        }
        Promise(sender)
    }

    /// Keeps a result that is there already.
    pub(super) fn keep(&self, work: &Work, result: KeptResult) {
        self.promise(work).fulfil(result);
    }

    /// The run of this message, if it is a redelivery of one that we know. Each run is claimed once.
    pub(super) fn claim(&self, work: &Work) -> Option<Claim> {
        if !work.envelope.redelivered() {
            return None;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.is_empty() {
            return None;
        }
        let identity = Identity::of(work);
        let position = entries.iter().position(|entry| entry.identity == identity)?;
        entries.remove(position).map(|entry| Claim(entry.result))
    }

    pub(super) fn count_used(&self) {
        self.used.increment(1);
    }
}

impl Promise {
    pub(super) fn fulfil(self, result: KeptResult) {
        // Nobody claims it any more when it was evicted, which was counted then.
        drop(self.0.send(result));
    }
}

impl Claim {
    /// Waits for the run to end; `None` if it ended without a result worth keeping.
    pub(super) async fn result(self) -> Option<KeptResult> {
        self.0.await.ok()
    }
}

impl Identity {
    fn of(work: &Work) -> Self {
        let properties = work.envelope.properties();
        Self {
            message_id: properties.message_id().clone(),
            message_type: properties.kind().clone(),
            body: work.body.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use lapin::BasicProperties;
    use std::sync::Arc;

    fn work(id: Option<&str>, body: &'static str, redelivered: bool) -> Work {
        let properties = BasicProperties::default().with_type("t".into());
        let properties = match id {
            Some(id) => properties.with_message_id(id.into()),
            None => properties,
        };
        let (exchange, routing_key) = ("".into(), "q".into());
        let envelope = Envelope { queue: "q".into(), exchange, routing_key, redelivered, properties };
        Work { envelope: Arc::new(envelope), body: Bytes::from_static(body.as_bytes()) }
    }

    fn kept() -> KeptResults {
        KeptResults::new(Counter::noop(), Counter::noop())
    }

    #[tokio::test]
    async fn a_result_is_used_once_and_only_by_a_redelivery_of_the_same_message() {
        let kept = kept();
        kept.keep(&work(Some("1"), "body", false), KeptResult::Settled);
        assert!(kept.claim(&work(Some("1"), "body", false)).is_none(), "a first delivery");
        assert!(kept.claim(&work(Some("2"), "body", true)).is_none(), "another id");
        assert!(kept.claim(&work(Some("1"), "other", true)).is_none(), "another body");
        let claim = kept.claim(&work(Some("1"), "body", true)).unwrap();
        assert!(matches!(claim.result().await, Some(KeptResult::Settled)));
        assert!(kept.claim(&work(Some("1"), "body", true)).is_none(), "the second time");
    }

    #[tokio::test]
    async fn equal_messages_without_ids_have_one_result_each() {
        let kept = kept();
        kept.keep(&work(None, "same", false), KeptResult::Settled);
        kept.keep(&work(None, "same", false), KeptResult::Settled);
        assert!(kept.claim(&work(None, "same", true)).is_some());
        assert!(kept.claim(&work(None, "same", true)).is_some());
        assert!(kept.claim(&work(None, "same", true)).is_none());
    }

    #[tokio::test]
    async fn a_run_that_ends_without_a_result_lets_the_message_run_again() {
        let kept = kept();
        let promise = kept.promise(&work(Some("1"), "body", false));
        let claim = kept.claim(&work(Some("1"), "body", true)).unwrap();
        drop(promise);
        assert!(claim.result().await.is_none());
    }

    #[test]
    fn the_oldest_results_go_when_there_are_too_many() {
        let kept = kept();
        for n in 0..=MAX_ENTRIES {
            kept.keep(&work(Some(&n.to_string()), "body", false), KeptResult::Settled);
        }
        assert!(kept.claim(&work(Some("0"), "body", true)).is_none());
        assert!(kept.claim(&work(Some("1"), "body", true)).is_some());
    }
}
