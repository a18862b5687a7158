//! Whether a queue counts how often it gives a message out.

use jm_mq_core::{ConnectError, Connection};
use lapin::types::ShortString;

use super::letter::Letter;
use crate::{amqp, failure::Failure, management::Management};

/// A message that was given out so often is not looked at any more: RabbitMQ 4 drops it after 20.
pub(crate) const MAX_DELIVERIES: u64 = 10;

/// Whether the queue is known to be a quorum queue. Where neither the broker says so, because the user may not declare
/// anything for instance, nor its management API, the count in a message's headers is left.
pub(crate) async fn is_quorum(
    connection: &Connection,
    management: Option<&Management>,
    queue: ShortString,
) -> Result<bool, ConnectError> {
    let mut kind = amqp::queue_type(connection, queue.clone()).await?;
    if let (None, Some(management)) = (&kind, management) {
        // What it does not tell is as unknown as without it.
        kind = management.queue(queue.as_str()).await.ok().flatten().and_then(|told| told.kind);
    }
    Ok(kind.as_deref() == Some("quorum"))
}

/// Refuses to look, unless somebody said that it may count.
pub(crate) fn refuse(queue: &str) -> Failure {
    Failure::usage(format_args!(
        "`{queue}` is a quorum queue: each look counts as a delivery of what is looked at, and RabbitMQ 4 drops a \
         message after 20; --count-deliveries looks all the same"
    ))
}

/// Refuses to look at a message once more.
pub(crate) fn refuse_letter(queue: &str, letter: &Letter) -> Failure {
    Failure::unavailable(format_args!(
        "`{queue}` has given out {} {} times before, and RabbitMQ 4 drops it after 20; it went back, and jm looks no \
         further: take what is at the front by `jm dead drop --save FILE --limit N` without a filter",
        letter.message_id().map_or("a message".to_owned(), |id| format!("message `{id}`")),
        letter.deliveries()
    ))
}
