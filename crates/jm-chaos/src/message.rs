//! The campaign's messages: what each is called, what it asks for, and what its body is. All of it follows from the
//! seed and the number, so that the checker knows without being told.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::Field;

/// The queues of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// Most of the work; what fails for good is dead-lettered.
    Work,
    /// As the specification's example: `nack_requeue`, what fails goes back into the queue.
    Again,
    /// One worker, in order.
    Ordered,
    /// A quorum queue with messages that end their process.
    Poison,
    /// Deleted from under its consumer now and then, when nothing is in it.
    Gone,
    /// The answers of all of them.
    Done,
}

impl Queue {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Work, Self::Again, Self::Ordered, Self::Poison, Self::Gone, Self::Done];

    /// Its name on the broker, also its exchange's and its routing key.
    pub fn name(self) -> &'static str {
        match self {
            Self::Work => "chaos.work",
            Self::Again => "chaos.again",
            Self::Ordered => "chaos.ordered",
            Self::Poison => "chaos.poison",
            Self::Gone => "chaos.gone",
            Self::Done => "chaos.done",
        }
    }

    /// The queue of its dead letters.
    pub fn dead(self) -> String {
        format!("{}.dead", self.name())
    }

    /// The queue of a name, and whether it is the one for dead letters.
    pub fn named(name: &str) -> Option<(Self, bool)> {
        let (live, dead) = name.strip_suffix(".dead").map_or((name, false), |live| (live, true));
        Self::ALL.into_iter().find(|queue| queue.name() == live).map(|queue| (queue, dead))
    }
}

impl Field for Queue {
    fn number(self) -> u64 {
        self as u64
    }

    fn of(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// A message's number: queue, publisher and count in one, or the answer to such a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

const ANSWER: u64 = 1 << 63;
const QUEUE_SHIFT: u32 = 56;
const PUBLISHER_SHIFT: u32 = 48;

impl Id {
    /// What is recorded of a message whose id is not one of ours.
    pub const FOREIGN: Self = Self(u64::MAX);

    /// The `count`th message of a publisher for a queue.
    pub fn message(queue: Queue, publisher: u8, count: u64) -> Self {
        Self((queue as u64) << QUEUE_SHIFT | u64::from(publisher) << PUBLISHER_SHIFT | count)
    }

    /// The answer to this message.
    #[must_use]
    pub fn answer(self) -> Self {
        Self(self.0 | ANSWER)
    }

    /// The message that this is the answer to.
    pub fn question(self) -> Option<Self> {
        (self.is_answer() && self != Self::FOREIGN).then_some(Self(self.0 & !ANSWER))
    }

    /// Whether it is an answer.
    pub fn is_answer(self) -> bool {
        self.0 & ANSWER != 0
    }

    /// The queue it is for.
    pub fn queue(self) -> Queue {
        if self.is_answer() { Queue::Done } else { Queue::of(self.0 >> QUEUE_SHIFT & 0x7f).unwrap_or(Queue::Done) }
    }

    /// Who publishes it.
    pub fn publisher(self) -> u8 {
        (self.0 >> PUBLISHER_SHIFT & 0xff) as u8
    }

    /// Which of its publisher's messages for its queue it is.
    pub fn count(self) -> u64 {
        self.0 & ((1 << PUBLISHER_SHIFT) - 1)
    }

    /// From a `message_id`.
    pub fn parse(text: &str) -> Self {
        text.parse().map_or(Self::FOREIGN, Self)
    }

    /// As a number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl Field for Id {
    fn number(self) -> u64 {
        self.0
    }

    fn of(number: u64) -> Option<Self> {
        Some(Self(number))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = if self.is_answer() { "answer to " } else { "" };
        let question = Self(self.0 & !ANSWER);
        write!(f, "{answer}{}/{}/{}", question.queue().name(), self.publisher(), self.count())
    }
}

/// What a message has its handler do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Answer.
    Answer,
    /// Answer after some time.
    Slow,
    /// Block the thread for some time, and answer.
    Block,
    /// Fail this many runs with a retryable error, counted in the process, and then answer.
    Fail(u8),
    /// Fail each time.
    AlwaysFail,
    /// Fail in a way that no retry mends.
    Permanent,
    /// Panic in the first run.
    Panic,
    /// Panic each time.
    AlwaysPanic,
    /// Run for too long in the first run.
    Hang,
    /// Run for too long each time.
    AlwaysHang,
    /// End the process.
    Abort,
    /// The body is not what its type says; the handler is never run.
    Undecodable,
    /// Nobody handles the type; the handler is never run.
    UnknownType,
}

impl Deed {
    /// What the message with this number asks for.
    pub fn of(seed: u64, id: Id) -> Self {
        let draw = mix(seed, id.get()) % 10_000;
        let table: &[(u64, Self)] = match id.queue() {
            _ if id.is_answer() => &[(30, Self::Fail(1))],
            Queue::Work => &[
                (60, Self::Fail(1)),
                (30, Self::Fail(2)),
                (20, Self::AlwaysFail),
                (30, Self::Permanent),
                (20, Self::Panic),
                (8, Self::AlwaysPanic),
                (6, Self::Hang),
                (4, Self::AlwaysHang),
                (6, Self::Block),
                (40, Self::Slow),
                (15, Self::Undecodable),
                (15, Self::UnknownType),
            ],
            Queue::Again => &[(50, Self::Fail(5)), (50, Self::Fail(1)), (20, Self::Permanent)],
            Queue::Ordered => &[(30, Self::Fail(1)), (50, Self::Slow)],
            Queue::Poison => &[(100, Self::Abort)],
            Queue::Gone => &[(100, Self::Fail(1))],
            Queue::Done => &[],
        };
        let mut sum = 0;
        for &(share, deed) in table {
            sum += share;
            if draw < sum {
                return deed;
            }
        }
        Self::Answer
    }

    /// Whether it ends among the dead letters, and never succeeds.
    pub fn is_hopeless(self) -> bool {
        match self {
            Self::AlwaysFail
            | Self::Permanent
            | Self::AlwaysPanic
            | Self::AlwaysHang
            | Self::Abort
            | Self::Undecodable
            | Self::UnknownType => true,
            Self::Answer | Self::Slow | Self::Block | Self::Fail(_) | Self::Panic | Self::Hang => false,
        }
    }

    /// Whether it is a fault in itself, for the count of them.
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::Answer | Self::Slow)
    }

    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Slow => "slow",
            Self::Block => "handler blocks its thread",
            Self::Fail(_) => "handler fails and recovers",
            Self::AlwaysFail => "handler fails each time",
            Self::Permanent => "permanent error",
            Self::Panic => "panic",
            Self::AlwaysPanic => "panic each time",
            Self::Hang => "hang",
            Self::AlwaysHang => "hang each time",
            Self::Abort => "poison: ends its process",
            Self::Undecodable => "undecodable",
            Self::UnknownType => "unknown type",
        }
    }
}

/// The `type` of a message that has a handler.
pub const TASK: &str = "chaos.task";
/// The `type` of a message that has none.
pub const UNKNOWN: &str = "chaos.unknown";

/// The body of the message with this number.
pub fn body(seed: u64, id: Id) -> Vec<u8> {
    let pad = mix(seed ^ 0xb0d7, id.get()) % 120;
    let pad = "x".repeat(usize::try_from(pad).unwrap_or_default());
    let whole = format!(r#"{{"id":{},"pad":"{pad}"}}"#, id.get());
    match Deed::of(seed, id) {
        // Cut in the middle, and no text.
        Deed::Undecodable => [&whole.as_bytes()[..10], &[0xff, 0xfe]].concat(),
        _ => whole.into_bytes(),
    }
}

/// A well-mixed number of two (`SplitMix64`).
fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_queue_its_publisher_and_its_count() {
        for queue in Queue::ALL {
            let id = Id::message(queue, 200, 123_456_789);
            assert_eq!((id.queue(), id.publisher(), id.count(), id.is_answer()), (queue, 200, 123_456_789, false));
            let answer = id.answer();
            assert_eq!((answer.queue(), answer.question()), (Queue::Done, Some(id)));
            assert_eq!(Id::parse(&id.to_string()), id);
        }
        assert_eq!(Id::parse("not ours"), Id::FOREIGN);
        assert_eq!(Id::FOREIGN.question(), None);
    }

    #[test]
    fn what_a_message_asks_for_follows_from_seed_and_number() {
        let deeds = |seed| (0..50_000).map(|n| Deed::of(seed, Id::message(Queue::Work, 0, n))).collect::<Vec<_>>();
        assert_eq!(deeds(7), deeds(7));
        assert_ne!(deeds(7), deeds(8));
        let hopeless = deeds(7).iter().filter(|deed| deed.is_hopeless()).count();
        // 92 of 10,000 are expected: 460 of these.
        assert!((350..570).contains(&hopeless), "{hopeless}");
    }

    #[test]
    fn queues_are_found_by_their_names() {
        assert_eq!(Queue::named("chaos.again.dead"), Some((Queue::Again, true)));
        assert_eq!(Queue::named("chaos.done"), Some((Queue::Done, false)));
        assert_eq!(Queue::named("amq.gen"), None);
    }
}
