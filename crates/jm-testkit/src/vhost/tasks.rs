//! Messages as producers send them and as requesters read them: a type, ids, a JSON body.

use std::time::Duration;

use anyhow::{Context, Result};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

use super::Vhost;

/// A message that was taken out of a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The `type` property; empty if it has none.
    pub kind: String,
    /// The `message_id` property.
    pub id: Option<String>,
    /// The `correlation_id` property.
    pub correlation_id: Option<String>,
    /// The headers that hold text.
    pub headers: Vec<(String, String)>,
    /// The body as JSON; null if it is none.
    pub body: Value,
}

impl Received {
    fn of(delivery: &Delivery) -> Self {
        let properties = &delivery.properties;
        let headers = properties.headers().as_ref().map(FieldTable::inner).into_iter().flatten();
        let text = |value: &AMQPValue| match value {
            AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
            _ => None,
        };
        Self {
            kind: properties.kind().as_ref().map(ToString::to_string).unwrap_or_default(),
            id: properties.message_id().as_ref().map(ToString::to_string),
            correlation_id: properties.correlation_id().as_ref().map(ToString::to_string),
            headers: headers.filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect(),
            body: serde_json::from_slice(&delivery.data).unwrap_or_default(),
        }
    }

    /// A header that holds text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Vhost {
    /// Sends a task to a queue, with an id, and with `reply_to` if it is given. Fails as [`Vhost::publish`] does.
    pub async fn send(&self, queue: &str, kind: &str, id: &str, reply_to: Option<&str>, body: &Value) -> Result<()> {
        let properties = BasicProperties::default().with_type(kind.into()).with_message_id(id.into());
        let properties = match reply_to {
            Some(queue) => properties.with_reply_to(queue.into()),
            None => properties,
        };
        self.publish(queue, properties, body.to_string().as_bytes()).await
    }

    /// Waits until a queue that nobody consumes has exactly `count` messages, and takes them. Fails after `limit`.
    pub async fn receive(&self, queue: &str, count: u64, limit: Duration) -> Result<Vec<Received>> {
        self.wait_for_counts(queue, limit, |counts| counts.ready == count)
            .await
            .with_context(|| format!("{count} messages in {queue}"))?;
        Ok(self.take_all(queue).await?.iter().map(Received::of).collect())
    }
}
