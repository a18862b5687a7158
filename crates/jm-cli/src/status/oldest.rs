//! The message at the head of a dead-letter queue: looked at, and put back.

use jiff::Timestamp;
use jm_mq_core::{BasicProperties, Connection};
use lapin::{
    options::{BasicGetOptions, BasicNackOptions},
    types::AMQPValue,
};
use serde::Serialize;

use crate::{amqp, failure::Failure};

/// When it failed, what it is, and why it failed. The keys are for programs: they stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Oldest {
    pub(super) at: Timestamp,
    #[serde(rename = "type")]
    message_type: Option<String>,
    error_kind: Option<String>,
}

/// The first message of a classic queue; `None` if there is none, or it does not say when it failed.
///
/// It is taken with `basic.get`, unsettled, and given back by `nack(requeue=true)`: it keeps its place. A consumer would
/// be given as many as its prefetch, and show in the broker's lists. Should this process die in between, the broker
/// puts it back as well.
pub(super) async fn oldest(connection: &Connection, queue: &str) -> Result<Option<Oldest>, Failure> {
    let name = amqp::short(queue)?;
    let looked = amqp::ask(connection, "looking at the oldest dead letter", async |channel| {
        let Some(message) = channel.basic_get(name, BasicGetOptions::default()).await? else { return Ok(None) };
        message.nack(BasicNackOptions { requeue: true, multiple: false }).await?;
        Ok(read(&message.properties))
    });
    // A queue that is gone meanwhile, or not ours to read from, tells nothing.
    Ok(looked.await?.unwrap_or_default())
}

fn read(properties: &BasicProperties) -> Option<Oldest> {
    let headers = properties.headers().clone().unwrap_or_default();
    let text = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        _ => None,
    };
    let failed_at = text("jm-failed-at").and_then(|at| at.parse().ok());
    // What a policy of the broker has dead-lettered says when in `x-death`; the newest death is the first.
    let at = failed_at.or_else(|| match headers.inner().get("x-death") {
        Some(AMQPValue::FieldArray(deaths)) => match deaths.as_slice().first() {
            Some(AMQPValue::FieldTable(death)) => match death.inner().get("time") {
                Some(AMQPValue::Timestamp(seconds)) => {
                    i64::try_from(*seconds).ok().and_then(|at| Timestamp::from_second(at).ok())
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    Some(Oldest {
        at: at?,
        message_type: properties.kind().as_ref().map(ToString::to_string),
        error_kind: text("jm-error-kind"),
    })
}
