//! A dead letter: the message as it was, and what is known of its end.

use jiff::Timestamp;
use jm_mq_core::{AMQPValue, BasicProperties, FieldTable, dead_letters};

/// A message in a dead-letter queue, whether our workers put it there or a policy of the broker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Letter {
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

impl Letter {
    pub(crate) fn new(properties: BasicProperties, body: Vec<u8>) -> Self {
        Self { properties, body }
    }

    pub(crate) fn message_type(&self) -> Option<&str> {
        self.properties.kind().as_ref().map(lapin::types::ShortString::as_str)
    }

    pub(crate) fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(lapin::types::ShortString::as_str)
    }

    pub(crate) fn correlation_id(&self) -> Option<&str> {
        self.properties.correlation_id().as_ref().map(lapin::types::ShortString::as_str)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(name)
    }

    /// A header that holds text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        text(self.header(name)?)
    }

    /// Why it is here: the kind that a worker gave it, or the broker's reason.
    pub(crate) fn error_kind(&self) -> Option<String> {
        self.text(dead_letters::ERROR_KIND).or_else(|| self.death_text("reason"))
    }

    /// The error's text. The broker has none.
    pub(crate) fn error_text(&self) -> Option<String> {
        self.text(dead_letters::EXCEPTION_MESSAGE)
    }

    /// When it was given up.
    pub(crate) fn failed_at(&self) -> Option<Timestamp> {
        if let Some(at) = self.text(dead_letters::FAILED_AT) {
            return at.parse().ok();
        }
        match self.death()?.inner().get("time")? {
            AMQPValue::Timestamp(seconds) => Timestamp::from_second(i64::try_from(*seconds).ok()?).ok(),
            _ => None,
        }
    }

    /// How often the handler was run.
    pub(crate) fn attempts(&self) -> Option<u64> {
        dead_letters::count(self.header(dead_letters::ATTEMPTS)?)
    }

    /// How often a quorum queue has given it out, this time not counted.
    pub(crate) fn deliveries(&self) -> u64 {
        self.properties.headers().as_ref().map_or(0, dead_letters::deliveries)
    }

    /// The queue in which it died.
    pub(crate) fn original_queue(&self) -> Option<String> {
        self.text(dead_letters::ORIGINAL_QUEUE).or_else(|| self.death_text("queue"))
    }

    /// Its last death by the broker's record, which has the latest first.
    pub(crate) fn death(&self) -> Option<&FieldTable> {
        match self.header("x-death")? {
            AMQPValue::FieldArray(deaths) => deaths.as_slice().iter().find_map(|death| match death {
                AMQPValue::FieldTable(death) => Some(death),
                _ => None,
            }),
            _ => None,
        }
    }

    pub(crate) fn death_text(&self, name: &str) -> Option<String> {
        text(self.death()?.inner().get(name)?)
    }
}

pub(crate) fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}
