//! What a dead letter's headers say, and those of a message that is put back: for tools that read and replay them.
//!
//! The body and the properties of a dead letter are the original's, but for those that would move or delete it. Where
//! it is put back its headers may stay as they are: the core reads none of those that it writes here, and writes them
//! anew should the message fail again. The broker's own counts, [`BROKER_COUNTS`], are another matter: with them the
//! message would be taken for one that kills workers.

/// The last error's text.
pub const EXCEPTION_MESSAGE: &str = "x-exception-message";
/// Where the message was published first.
pub const ORIGINAL_EXCHANGE: &str = "x-original-exchange";
/// The key it was published with.
pub const ORIGINAL_ROUTING_KEY: &str = "x-original-routingKey";
/// The kind of failure.
pub const ERROR_KIND: &str = "jm-error-kind";
/// Runs of the handler.
pub const ATTEMPTS: &str = "jm-attempts";
/// When the first run failed; RFC 3339, UTC.
pub const FIRST_FAILED_AT: &str = "jm-first-failed-at";
/// When it was given up; RFC 3339, UTC.
pub const FAILED_AT: &str = "jm-failed-at";
/// The process that gave it up.
pub const WORKER: &str = "jm-worker";
/// The queue it was consumed from.
pub const ORIGINAL_QUEUE: &str = "jm-original-queue";
/// How many of the original headers had to go to make room.
pub const HEADERS_DROPPED: &str = "jm-headers-dropped";

/// How often a quorum queue has given the message out, in the broker's words.
pub const BROKER_COUNTS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];

/// Which replay put the message back; text that the replaying tool chooses.
pub const REPLAY: &str = "jm-replay";
/// The queue that wants to hear when the message is done. The worker then publishes a message of type
/// [`OUTCOME_TYPE`] to it, together with the handler's answers and before the ack, whose correlation id is the value
/// of [`REPLAY`]. That the queue is gone is no failure. Of a failure nothing is said: the dead letter says it.
pub const OUTCOME_TO: &str = "jm-outcome-to";
/// The type of what is sent to [`OUTCOME_TO`]. Its body is empty.
pub const OUTCOME_TYPE: &str = "jm.done";
