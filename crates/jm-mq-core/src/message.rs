//! What we publish: a typed body with the properties of the wire contract.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde::Serialize;
use uuid::Uuid;

use crate::trace::TraceContext;

/// A body whose AMQP `type` property is known from its Rust type.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Summarize { record: String, text: String }
///
/// impl jm_mq_core::Payload for Summarize {
///     const TYPE: &'static str = "llm.summarize";
/// }
/// ```
pub trait Payload {
    /// The value of the `type` property, at most 255 bytes.
    const TYPE: &'static str;
}

/// The content type of the specification. Consumers decode by `type`, never by this.
pub const CONTENT_TYPE_TEXT: &str = "text/plain";
/// The content type that says what the body really is.
pub const CONTENT_TYPE_JSON: &str = "application/json";

/// A message to publish.
///
/// It is persistent and carries `message_id` (a UUID of version 7 unless set: a repeated publish keeps it), `timestamp`, `type`
/// and content type `text/plain`, which is what the existing Go services send and expect. The publisher adds its
/// `app_id`. Names over 255 bytes are reported by the publish, not by a panic.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
    /// The first thing that cannot be sent, kept until somebody tries to.
    pub(crate) defect: Option<String>,
    /// Another application's message, to which nothing is added.
    pub(crate) verbatim: bool,
}

impl Message {
    /// A message of the given type with a body as it is.
    pub fn new(message_type: &str, body: impl Into<Bytes>) -> Self {
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        let properties = BasicProperties::default()
            .with_content_type(ShortString::from(CONTENT_TYPE_TEXT))
            .with_delivery_mode(PERSISTENT)
            .with_timestamp(now);
        Self { properties, body: body.into(), defect: None, verbatim: false }
            .set("type", message_type, BasicProperties::with_type)
            .message_id(&Uuid::now_v7().to_string())
    }

    /// A typed body as JSON.
    ///
    /// # Errors
    ///
    /// When `payload` cannot be written as JSON, such as a map whose keys are no strings.
    pub fn of<T: Payload + Serialize>(payload: &T) -> Result<Self, serde_json::Error> {
        Ok(Self::new(T::TYPE, serde_json::to_vec(payload)?))
    }

    /// Properties and body as they are, nothing added: for moving a message from one queue to another.
    pub(crate) fn verbatim(properties: BasicProperties, body: Bytes) -> Self {
        Self { properties, body, defect: None, verbatim: true }
    }

    /// Identifies the message; a repeat of the same work should have the same id.
    #[must_use]
    pub fn message_id(self, id: &str) -> Self {
        self.set("message_id", id, BasicProperties::with_message_id)
    }

    /// What the message belongs to: here, the record's id.
    #[must_use]
    pub fn correlation_id(self, id: &str) -> Self {
        self.set("correlation_id", id, BasicProperties::with_correlation_id)
    }

    /// The queue that wants the answer as well.
    #[must_use]
    pub fn reply_to(self, queue: &str) -> Self {
        self.set("reply_to", queue, BasicProperties::with_reply_to)
    }

    /// Says what the body is; default `text/plain`, as the specification has it.
    #[must_use]
    pub fn content_type(self, content_type: &str) -> Self {
        self.set("content_type", content_type, BasicProperties::with_content_type)
    }

    /// A header. Headers are for operators and tracing; what the work needs belongs into the body.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<AMQPValue>) -> Self {
        match ShortString::try_new(name) {
            Ok(name) => self.headers_mut(|headers| _ = headers.insert(name, value.into())),
            Err(error) => self.defect("header name", error),
        }
        self
    }

    /// The trace to which this message belongs.
    #[must_use]
    pub fn trace(mut self, context: TraceContext) -> Self {
        self.headers_mut(|headers| context.write_to(headers));
        self
    }

    /// Not written to disk by the broker: lost when it restarts.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.properties = self.properties.with_delivery_mode(TRANSIENT);
        self
    }

    /// The properties as they will be sent, without the publisher's `app_id`.
    pub fn properties(&self) -> &BasicProperties {
        &self.properties
    }

    /// The body as it will be sent.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    pub(crate) fn has_correlation_id(&self) -> bool {
        self.properties.correlation_id().is_some()
    }

    pub(crate) fn has_trace(&self) -> bool {
        self.properties.headers().as_ref().is_some_and(|headers| TraceContext::from_headers(headers).is_some())
    }

    fn headers_mut(&mut self, change: impl FnOnce(&mut FieldTable)) {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        change(&mut headers);
        self.properties = std::mem::take(&mut self.properties).with_headers(headers);
    }

    fn set(mut self, what: &str, value: &str, with: fn(BasicProperties, ShortString) -> BasicProperties) -> Self {
        match ShortString::try_new(value) {
            Ok(value) => self.properties = with(self.properties, value),
            Err(error) => self.defect(what, error),
        }
        self
    }

    fn defect(&mut self, what: &str, error: impl std::fmt::Display) {
        self.defect.get_or_insert_with(|| format!("{what}: {error}"));
    }
}

/// AMQP's delivery modes.
pub(crate) const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;

/// A message with its destination.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) message: Message,
    /// Whether its task fails with it. A reply to whoever asked need not arrive, and goes to an address that a stranger
    /// chose: by a connection of its own, see [`crate::Publisher`].
    pub(crate) required: bool,
}

impl Outgoing {
    /// To an exchange with a routing key. It is published `mandatory`: reaching no queue is an error.
    pub fn new(exchange: impl Into<String>, routing_key: impl Into<String>, message: Message) -> Self {
        Self { exchange: exchange.into(), routing_key: routing_key.into(), message, required: true }
    }

    /// Straight to a queue, through the default exchange.
    pub fn to_queue(queue: impl Into<String>, message: Message) -> Self {
        Self::new("", queue, message)
    }

    /// Where it goes.
    pub fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The key it goes with.
    pub fn routing_key(&self) -> &str {
        &self.routing_key
    }

    /// Whether the broker is to say when it reaches no queue. A reply that does not is no failure, and up to RabbitMQ 3.13 a
    /// direct reply comes back although it is delivered. But with a `/` it may be meant as an exchange and a key, which are
    /// not supported, and that should be told.
    pub(crate) fn mandatory(&self) -> bool {
        self.required || (self.routing_key.contains('/') && !self.routing_key.starts_with("amq.rabbitmq.reply-to"))
    }

    /// What goes there.
    pub fn message(&self) -> &Message {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Note {
        text: &'static str,
    }

    impl Payload for Note {
        const TYPE: &'static str = "note.test";
    }

    #[test]
    fn a_message_has_the_three_properties_of_the_go_services_and_an_identity() {
        let message = Message::of(&Note { text: "你好" }).unwrap();
        let properties = message.properties();
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "text/plain");
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "note.test");
        assert_eq!(message.body().as_ref(), r#"{"text":"你好"}"#.as_bytes());
        assert_eq!(*properties.delivery_mode(), Some(PERSISTENT));
        assert_eq!(Uuid::parse_str(properties.message_id().as_ref().unwrap().as_str()).unwrap().get_version_num(), 7);
        assert!(properties.timestamp().is_some());
    }

    #[test]
    fn a_name_that_amqp_cannot_carry_is_a_defect_and_no_panic() {
        let message = Message::new("t", "b").correlation_id(&"x".repeat(256)).header(&"h".repeat(256), 1);
        assert!(message.defect.unwrap().starts_with("correlation_id: "));
    }

    #[test]
    fn headers_and_trace_live_side_by_side() {
        let message = Message::new("t", "b").header("tenant", AMQPValue::from(7)).trace(TraceContext::root());
        assert!(message.has_trace());
        assert!(message.properties().headers().as_ref().unwrap().contains_key("tenant"));
    }
}
