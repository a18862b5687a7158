//! Who takes part: the places that the campaign's processes stand in for. A process that is killed is replaced in its
//! place.

use crate::{history::Role, message::Queue};

/// A place: what its process does, for which queue, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Publish or work.
    pub role: Role,
    /// For which queue.
    pub queue: Queue,
    /// Of a publisher: its share of all messages, in thousandths. Of a worker: handlers at a time.
    pub size: u32,
    /// Of a worker: deliveries sent ahead to each handler.
    pub prefetch: u16,
}

const fn worker(queue: Queue, handlers: u32, prefetch: u16) -> Part {
    Part { role: Role::Worker, queue, size: handlers, prefetch }
}

const fn publisher(queue: Queue, share: u32) -> Part {
    Part { role: Role::Publisher, queue, size: share, prefetch: 0 }
}

/// All places. A slot is the index of one.
pub const CAST: [Part; 14] = [
    worker(Queue::Work, 6, 10),
    worker(Queue::Work, 6, 10),
    worker(Queue::Again, 4, 5),
    // In order: one handler.
    worker(Queue::Ordered, 1, 20),
    // Its neighbours must not go down with it: one at a time, none sent ahead.
    worker(Queue::Poison, 1, 1),
    worker(Queue::Gone, 2, 5),
    worker(Queue::Done, 4, 20),
    worker(Queue::Done, 4, 20),
    publisher(Queue::Work, 350),
    publisher(Queue::Work, 350),
    publisher(Queue::Again, 120),
    publisher(Queue::Ordered, 120),
    publisher(Queue::Poison, 5),
    publisher(Queue::Gone, 55),
];

/// The slots of a role.
pub fn slots(role: Role) -> impl Iterator<Item = u8> {
    (0_u8..).zip(CAST).filter(move |(_, part)| part.role == role).map(|(slot, _)| slot)
}

/// Runs after the first failed one: the workers' `max_retry_attempts`.
pub const MAX_RETRY_ATTEMPTS: u32 = 2;

/// The workers' `max_deliveries`: a message that a quorum queue gave out more often is taken for poison.
pub const fn max_deliveries(queue: Queue) -> u64 {
    match queue {
        // The poison is to show soon.
        Queue::Poison => 3,
        // The core's default, below the 20 at which RabbitMQ 4 drops a message.
        Queue::Work | Queue::Again | Queue::Ordered | Queue::Gone | Queue::Done => 15,
    }
}
