//! Results of work whose message went back to the broker while it ran.
//!
//! When a connection is lost, the broker gives its unsettled messages out again, to us or to another replica. A
//! handler that was running then runs on; if the same message comes back to this process, it is answered with that
//! result and not run a second time.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
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
    room: Arc<Room>,
    used: Counter,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    result: oneshot::Receiver<Fulfilled>,
    end: Arc<OnceLock<RunEnd>>,
}

/// How a run has ended, for those who look after the entries.
#[derive(Debug)]
enum RunEnd {
    Kept(Instant),
    WithoutResult,
}

/// A result with the room it takes, and since when.
#[derive(Debug)]
struct Fulfilled {
    result: KeptResult,
    at: Instant,
    _room: Reserved,
}

/// What makes a redelivery the same message. The broker gives it back as it was, but for its delivery count among the
/// headers. All of this has to agree: a producer that uses one id for different messages must not lose any, and two
/// equal questions have two askers.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    exchange: ShortString,
    routing_key: ShortString,
    names: [Option<ShortString>; 4],
    timestamp: Option<u64>,
    body: Bytes,
    /// A copy in the place of a returned message is another one: the original's ack may be lost.
    returns: u64,
}

/// More is never needed: it would take as many lost connections, each with all workers busy, within `MAX_AGE`.
const MAX_ENTRIES: usize = 4096;
/// For the bodies and answers of finished runs. What still runs is in memory anyway.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// What has not come back so long after its run ended has gone elsewhere, and another message may look the same.
const MAX_AGE: Duration = Duration::from_mins(10);

/// The bytes that are kept at present.
#[derive(Debug)]
struct Room {
    bytes: AtomicUsize,
    evicted: Counter,
}

/// A part of the room, given back when dropped.
#[derive(Debug)]
struct Reserved {
    room: Arc<Room>,
    bytes: usize,
}

/// The duty to say how a run has ended, once it has. Dropped without a word: the message has to be run again.
#[derive(Debug)]
pub(super) struct Promise {
    result: Option<oneshot::Sender<Fulfilled>>,
    end: Arc<OnceLock<RunEnd>>,
    room: Arc<Room>,
    body_bytes: usize,
}

/// A run of the same message, finished or under way.
#[derive(Debug)]
pub(super) struct Claim(oneshot::Receiver<Fulfilled>);

impl KeptResults {
    pub(super) fn new(used: Counter, evicted: Counter) -> Self {
        Self { entries: Mutex::default(), room: Arc::new(Room { bytes: AtomicUsize::new(0), evicted }), used }
    }

    /// Announces that the result of a run, which may still be going on, will be kept.
    pub(super) fn promise(&self, work: &Work) -> Promise {
        self.promise_for(Identity::of(work), work)
    }

    /// The same for a message that is returned: it may come back as a copy.
    pub(super) fn promise_return(&self, work: &Work) -> Promise {
        let identity = Identity::of(work);
        let returns = identity.returns + u64::from(work.nacks_count);
        self.promise_for(Identity { returns, ..identity }, work)
    }

    fn promise_for(&self, identity: Identity, work: &Work) -> Promise {
        let (sender, result) = oneshot::channel();
        let end = Arc::<OnceLock<RunEnd>>::default();
        let mut entries = self.entries();
        entries.push_back(Entry { identity, result, end: Arc::clone(&end) });
        if entries.len() > MAX_ENTRIES {
            entries.pop_front();
            self.room.evicted.increment(1);
        }
        Promise { result: Some(sender), end, room: Arc::clone(&self.room), body_bytes: work.body.len() }
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
        let mut entries = self.entries();
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

    /// The entries that may still be claimed with profit.
    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| match entry.end.get() {
            None => true,
            Some(RunEnd::Kept(at)) => at.elapsed() <= MAX_AGE,
            Some(RunEnd::WithoutResult) => false,
        });
        entries
    }
}

impl Promise {
    pub(super) fn fulfil(mut self, result: KeptResult) {
        let result_bytes = match &result {
            KeptResult::Answers(answers) => answers.messages().iter().map(|answer| answer.message().body().len()).sum(),
            KeptResult::Failed(failure) => failure.text.len(),
            KeptResult::Settled => 0,
        };
        let room = Reserved::new(&self.room, self.body_bytes + result_bytes);
        if self.room.is_full() {
            // The message will be run again.
            self.room.evicted.increment(1);
            return;
        }
        let at = Instant::now();
        self.end.get_or_init(|| RunEnd::Kept(at));
        if let Some(sender) = self.result.take() {
            // Nobody claims it any more when it was evicted, which was counted then.
            drop(sender.send(Fulfilled { result, at, _room: room }));
        }
    }

    /// Passes the duty on to an earlier run of the same message.
    pub(super) async fn fulfil_from(self, mut earlier: Claim) {
        if let Some(result) = earlier.result().await {
            self.fulfil(result);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.end.get_or_init(|| RunEnd::WithoutResult);
    }
}

impl Claim {
    /// Waits for the run to end; `None` if it ended without a result, or so long ago that this may be another message
    /// which looks the same.
    pub(super) async fn result(&mut self) -> Option<KeptResult> {
        let fulfilled = (&mut self.0).await.ok()?;
        (fulfilled.at.elapsed() <= MAX_AGE).then_some(fulfilled.result)
    }
}

impl Room {
    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > MAX_BYTES
    }
}

impl Reserved {
    fn new(room: &Arc<Room>, bytes: usize) -> Self {
        room.bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { room: Arc::clone(room), bytes }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Identity {
    fn of(work: &Work) -> Self {
        let properties = work.envelope.properties();
        Self {
            exchange: work.envelope.exchange.clone(),
            routing_key: work.envelope.routing_key.clone(),
            names: [
                properties.message_id().clone(),
                properties.kind().clone(),
                properties.correlation_id().clone(),
                properties.reply_to().clone(),
            ],
            timestamp: *properties.timestamp(),
            body: work.body.clone(),
            returns: work.envelope.past.returns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        envelope::{Envelope, Past},
        settlement::FailureKind,
    };
    use lapin::BasicProperties;

    fn work(id: Option<&str>, body: &'static str, redelivered: bool) -> Work {
        let properties = BasicProperties::default().with_type("t".into());
        let properties = match id {
            Some(id) => properties.with_message_id(id.into()),
            None => properties,
        };
        let (exchange, routing_key) = ("".into(), "q".into());
        let past = Past::default();
        let envelope = Envelope { queue: "q".into(), exchange, routing_key, redelivered, properties, past };
        Work { envelope: Arc::new(envelope), body: Bytes::from_static(body.as_bytes()), nacks_count: false }
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
        let mut claim = kept.claim(&work(Some("1"), "body", true)).unwrap();
        assert!(matches!(claim.result().await, Some(KeptResult::Settled)));
        assert!(kept.claim(&work(Some("1"), "body", true)).is_none(), "the second time");
    }

    #[tokio::test]
    async fn a_copy_has_the_result_that_was_kept_for_it_and_not_its_originals() {
        let kept = kept();
        let original = Work { nacks_count: true, ..work(Some("1"), "body", false) };
        kept.promise_return(&original).fulfil(KeptResult::Failed(Failure::unrun(FailureKind::Permanent, "no")));
        // Its ack was lost.
        kept.keep(&original, KeptResult::Settled);
        let mut envelope = (*work(Some("1"), "body", true).envelope).clone();
        envelope.past.returns = 1;
        let copy = Work { envelope: Arc::new(envelope), ..original };
        assert!(matches!(kept.claim(&copy).unwrap().result().await, Some(KeptResult::Failed(_))));
        assert!(kept.claim(&copy).is_none());
        let mut again = kept.claim(&work(Some("1"), "body", true)).unwrap();
        assert!(matches!(again.result().await, Some(KeptResult::Settled)));
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
        let mut claim = kept.claim(&work(Some("1"), "body", true)).unwrap();
        drop(promise);
        assert!(claim.result().await.is_none());
        drop(kept.promise(&work(Some("1"), "body", false)));
        assert!(kept.entries().is_empty(), "nothing to claim, and nothing held");
    }

    #[tokio::test]
    async fn answers_that_are_too_large_to_keep_let_the_message_run_again() {
        use crate::message::{Message, Outgoing};
        let kept = kept();
        let huge = Outgoing::to_queue("q", Message::new("t", vec![0; MAX_BYTES + 1]));
        kept.keep(&work(Some("1"), "body", false), KeptResult::Answers(huge.into()));
        assert!(kept.claim(&work(Some("1"), "body", true)).is_none());
        assert_eq!(kept.room.bytes.load(Ordering::Relaxed), 0, "all room is given back");
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
