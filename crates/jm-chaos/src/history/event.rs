//! The events, and how each is written.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::line::Field;
use crate::message::{Id, Queue};

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Microseconds of the monotonic clock.
    pub at: u64,
    /// What it was.
    pub what: What,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

/// An enum whose values are numbers in a history.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// In words.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }

        impl Field for $name {
            fn number(self) -> u64 {
                self as u64
            }

            fn of(number: u64) -> Option<Self> {
                Self::ALL.get(usize::try_from(number).ok()?).copied()
            }
        }
    };
}

numbered! {
    /// What a process of the campaign does.
    Role {
        /// Publishes messages and records which are confirmed.
        Publisher = "publisher",
        /// Consumes a queue through the core.
        Worker = "worker",
    }
}

numbered! {
    /// What a client tells the broker of a delivery.
    Verdict {
        /// Done.
        Ack = "ack",
        /// Back into the queue.
        Requeue = "requeue",
        /// Thrown away, or to the broker's own dead-letter policy.
        Reject = "reject",
    }
}

numbered! {
    /// How a run of a handler ended.
    Outcome {
        /// With success.
        Done = "done",
        /// With an error worth another try.
        Retryable = "retryable error",
        /// With an error that no retry mends.
        Permanent = "permanent error",
        /// By a panic.
        Panic = "panic",
        /// It was dropped before it had finished: it ran too long.
        Dropped = "dropped",
        /// It ended its process.
        Abort = "abort",
    }
}

numbered! {
    /// What is done to the processes and the broker.
    FaultKind {
        /// One process's connections are closed in order (FIN).
        LinkCut = "link cut",
        /// One process's connections are reset (RST).
        LinkReset = "link reset",
        /// One process's connections are reset after a number of bytes, mostly in the middle of a frame.
        MidFrameReset = "reset in mid-frame",
        /// One process's link gets latency.
        SlowLink = "slow link",
        /// One process's link carries a few bytes at a time.
        SlicedLink = "sliced link",
        /// One process's link stands still and then goes on.
        StalledLink = "stalled link",
        /// One process's link swallows everything, for longer than the heartbeat allows or not.
        Partition = "partition",
        /// New connections of one process are refused, and the present ones reset.
        Refused = "connections refused",
        /// A worker is killed (SIGKILL) and replaced.
        WorkerKill = "worker kill -9",
        /// A worker is told to stop (SIGTERM), drains, and is replaced.
        WorkerDrain = "worker SIGTERM",
        /// A worker is frozen (SIGSTOP) for a while.
        WorkerFreeze = "worker frozen",
        /// A publisher is killed (SIGKILL) and replaced.
        PublisherKill = "publisher kill -9",
        /// The broker closes all connections, as an operator does.
        CloseAll = "close_all_connections",
        /// The broker is killed (SIGKILL) and started again. Of a cluster: one node, which may lead queues.
        BrokerKill = "broker kill -9",
        /// The broker is frozen (SIGSTOP) for a while. Of a cluster: one node.
        BrokerFreeze = "broker frozen",
        /// The memory alarm: publishers are blocked.
        MemoryAlarm = "memory alarm",
        /// The disk alarm: publishers are blocked.
        DiskAlarm = "disk alarm",
        /// The user loses all permissions and all connections, and gets the permissions back.
        PermissionLoss = "permission loss",
        /// A queue is emptied, its publisher held, and then deleted from under its consumer.
        QueueDeletion = "queue deleted",
        /// The leader of a quorum queue is killed (SIGKILL) and started again.
        LeaderKill = "queue leader kill -9",
        /// What all handlers depend on is away for a while: each run fails.
        DependencyLoss = "dependency away",
    }
}

impl FaultKind {
    /// Whether it is between a process and the broker, and so explains what happens to connections and deliveries there.
    pub(crate) fn disturbs_connections(self) -> bool {
        self != Self::DependencyLoss
    }
}

/// The events by their letter in a history's lines, each with its fields in order.
macro_rules! events {
    ($($(#[$doc:meta])* $letter:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })+) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each event's text says what its fields are")]
        pub enum What { $($(#[$doc])* $name { $($(#[$field_doc])* $field: $type,)* },)+ }

        impl What {
            /// The event's letter and the numbers of its fields.
            pub(super) fn write(self, out: &mut super::line::Writer<'_>) {
                match self {
                    $(Self::$name { $($field,)* } => {
                        out.letter($letter);
                        $(out.field(Field::number($field));)*
                    })+
                }
            }

            /// The event of a letter and its numbers, if there is one.
            pub(super) fn read(letter: u8, numbers: &mut dyn Iterator<Item = u64>) -> Option<Self> {
                match letter {
                    $($letter => Some(Self::$name { $($field: <$type as Field>::of(numbers.next()?)?,)* }),)+
                    _ => None,
                }
            }
        }
    };
}

events! {
    // --- of the campaign ---
    /// A process was started. Its number is its own; its slot is what it stands in for.
    b'S' Started { process: u32, slot: u8, role: Role, queue: Queue, }
    /// It was told to stop.
    b'T' ToldToStop { process: u32, }
    /// It ended; `code` is its exit code, 128 and more for a signal.
    b'E' Exited { process: u32, code: u16, }
    /// A fault began. `slot` is the process it was done to, 255 for all.
    b'F' FaultBegan { fault: u32, kind: FaultKind, slot: u8, }
    /// What was broken works again: from here on the recovery counts.
    b'H' FaultHealed { fault: u32, }
    /// A fault turned out to have nothing to act on; it is not counted.
    b'V' FaultVoid { fault: u32, }
    /// What was in a queue at one moment.
    b'Q' Backlog { queue: Queue, ready: u64, unacked: u64, consumers: u64, }
    /// All faults are over, and the publishers have stopped.
    b'Z' Quiet { }
    /// What was in a queue when it had got as empty as it would, before the workers were stopped.
    b'R' Settled { queue: Queue, ready: u64, unacked: u64, consumers: u64, }
    /// What was in a queue at the end, after the workers were stopped.
    b'L' Left { queue: Queue, ready: u64, unacked: u64, }
    /// A message lay in the queue's dead-letter queue at the end; `intact`: its body is as published.
    b'D' Dead { queue: Queue, id: Id, intact: bool, poison: bool, }
    /// A message lay in the queue itself at the end.
    b'W' Waiting { queue: Queue, id: Id, }
    // --- of the tap ---
    /// A process connected to a node.
    b'o' Opened { connection: u32, process: u32, node: u8, }
    /// A connection ended; `by_client`: the process ended it, or was gone.
    b'x' Ended { connection: u32, by_client: bool, }
    /// The process sent a message; `number` is the channel's count of them, from 1, 0 without confirms.
    b'p' Published { connection: u32, channel: u16, number: u64, id: Id, queue: Queue, dead: bool, }
    /// The broker confirmed; `ok` is false for a nack.
    b'c' Confirmed { connection: u32, channel: u16, number: u64, multiple: bool, ok: bool, }
    /// The broker sent a message back: it reached no queue.
    b'u' Returned { connection: u32, channel: u16, id: Id, }
    /// The broker registered a consumer.
    b'k' ConsumeOk { connection: u32, channel: u16, }
    /// The broker confirmed the end of a consumer.
    b'l' CancelOk { connection: u32, channel: u16, }
    /// The broker ended a consumer: its queue is gone.
    b'm' Cancelled { connection: u32, channel: u16, }
    /// The broker delivered a message.
    b'd' Delivered { connection: u32, channel: u16, tag: u64, id: Id, redelivered: bool, }
    /// The process settled a delivery, or with `multiple` all up to it.
    b's' SettledBy { connection: u32, channel: u16, tag: u64, multiple: bool, verdict: Verdict, }
    /// A channel (0: the connection) was closed with a code, by the broker or by the process.
    b'z' Closed { connection: u32, channel: u16, code: u16, by_broker: bool, }
    // --- of the processes ---
    /// The process listens to signals from here on: before it connects.
    b'a' Attentive { process: u32, }
    /// The publisher is about to publish.
    b'i' Intended { id: Id, }
    /// The publisher was told that the broker has it.
    b'y' Accepted { id: Id, }
    /// The publisher was told that it is not confirmed.
    b'n' Unconfirmed { id: Id, }
    /// A handler began a run.
    b'r' RunBegan { process: u32, id: Id, attempt: u32, }
    /// A handler's run ended.
    b'e' RunEnded { process: u32, id: Id, outcome: Outcome, }
}

/// The slot of a fault that is done to all.
pub const EVERYONE: u8 = 255;
