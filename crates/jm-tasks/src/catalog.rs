//! All message types in one list: for schemas, for tools, for tests.

use jm_mq_core::Payload;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Chat, Completed, Diarize, Diarized, Embed, Embedded, RecordCreated, RecordDeleted, RecordUpdated, Summarize, Title,
    Transcribe, Transcribed, queue,
};

/// A message type: its name, its queue, its schema.
#[derive(Clone, Copy, Debug)]
pub struct MessageType {
    /// The AMQP `type` property.
    pub name: &'static str,
    /// The queue it is sent to.
    pub queue: &'static str,
    schema: fn() -> Schema,
    reread: fn(&serde_json::Value) -> Result<serde_json::Value, serde_json::Error>,
}

/// Every type of the wire contract.
pub const CATALOG: &[MessageType] = &[
    MessageType::of::<Chat>(queue::LLM),
    MessageType::of::<Summarize>(queue::LLM),
    MessageType::of::<Title>(queue::LLM),
    MessageType::of::<Completed>(queue::RECORD_EVENTS),
    MessageType::of::<Transcribe>(queue::ASR),
    MessageType::of::<Transcribed>(queue::RECORD_EVENTS),
    MessageType::of::<Diarize>(queue::SD),
    MessageType::of::<Diarized>(queue::RECORD_EVENTS),
    MessageType::of::<Embed>(queue::EMBED),
    MessageType::of::<Embedded>(queue::RECORD_EVENTS),
    MessageType::of::<RecordCreated>(queue::RECORD_EVENTS),
    MessageType::of::<RecordUpdated>(queue::RECORD_EVENTS),
    MessageType::of::<RecordDeleted>(queue::RECORD_EVENTS),
];

impl MessageType {
    const fn of<T: Payload + JsonSchema + Serialize + DeserializeOwned>(queue: &'static str) -> Self {
        Self { name: T::TYPE, queue, schema: schema::<T>, reread: reread::<T> }
    }

    /// The type of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        CATALOG.iter().find(|known| known.name == name)
    }

    /// The JSON Schema (draft 2020-12) of the body.
    pub fn schema(&self) -> Schema {
        (self.schema)()
    }

    /// Reads a body as a worker would, and writes it again: what survives is what the type knows of.
    ///
    /// # Errors
    ///
    /// What a worker would dead-letter the body for.
    pub fn reread(&self, body: &serde_json::Value) -> Result<serde_json::Value, serde_json::Error> {
        (self.reread)(body)
    }
}

fn schema<T: Payload + JsonSchema>() -> Schema {
    let generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.insert("title".into(), T::TYPE.into());
    schema
}

fn reread<T: Serialize + DeserializeOwned>(body: &serde_json::Value) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(body.clone())?)
}
