//! Whether a queue counts how often it gives a message out.

use jm_mq_core::{AMQPValue, ConnectError, Connection, FieldTable};
use lapin::{ErrorKind, options::QueueDeclareOptions};

use super::letter::Letter;
use crate::failure::Failure;

/// A message that was given out so often is not looked at any more: RabbitMQ 4 drops it after 20.
pub(crate) const MAX_DELIVERIES: u64 = 10;

/// What `x-queue-type` no broker knows. So a declaration with it creates nothing, even if the queue is gone meanwhile,
/// and the broker's refusal says what the queue's type is: the only way to learn it over AMQP.
const NO_TYPE: &str = "jm-asks";

/// Whether the queue is known to be a quorum queue. Where the broker does not say, because the user may not declare
/// anything for instance, the count in a message's headers is left.
pub(crate) async fn is_quorum(connection: &Connection, queue: &str) -> Result<bool, ConnectError> {
    let channel = connection.channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(NO_TYPE.into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared =
        connection.within("asking for a queue's type", channel.queue_declare(queue.into(), options, arguments));
    let Err(error) = declared.await? else { return Ok(false) };
    match error.kind() {
        ErrorKind::ProtocolError(reply) => Ok(says_quorum(reply.get_message().as_str())),
        _ => Err(ConnectError::Lost(error.to_string())),
    }
}

/// `inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received the value 'jm-asks' of type 'longstr' but
/// current is the value 'quorum' of type 'longstr'`
fn says_quorum(reply: &str) -> bool {
    reply.split_once(NO_TYPE).is_some_and(|(_, current)| current.contains("'quorum'"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_refusal_says_the_type() {
        let reply = |current: &str| {
            format!(
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'quorum' in vhost '/': received the \
                 value 'jm-asks' of type 'longstr' but current is {current}"
            )
        };
        assert!(says_quorum(&reply("the value 'quorum' of type 'longstr'")));
        assert!(!says_quorum(&reply("the value 'classic' of type 'longstr'")));
        assert!(!says_quorum(&reply("none")));
        assert!(!says_quorum("ACCESS_REFUSED - access to queue 'quorum' refused"));
    }
}
