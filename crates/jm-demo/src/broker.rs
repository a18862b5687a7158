//! The broker as seen from outside: notes go in, and queues are looked into.

use anyhow::{Context as _, Result};
use jm_mq_core::{Broker, BrokerOptions, Message, Outgoing, Publisher, PublisherOptions};
use jm_tasks::{RecordContent, RecordCreated, queue};
use lapin::{Channel, Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};

use crate::{
    dead_letters::DeadLetters,
    notes::{Content, Note},
    recordings::Recordings,
    tap::Tap,
    workers::Kind,
};

/// A connection that publishes, and one that looks.
pub struct Desk {
    publisher: Publisher,
    connection: Connection,
    counting: Channel,
    recordings: Recordings,
}

impl Desk {
    /// Connects to the broker at this address. Recordings are copied to where the workers read them.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached.
    pub async fn open(amqp: &str, recordings: Recordings) -> Result<Self> {
        let broker = Broker::new(BrokerOptions::from_dsn(amqp)?)?;
        let publisher = Publisher::new(&broker, PublisherOptions::default())?;
        let connected = Connection::connect(amqp, ConnectionProperties::default()).await;
        let connection = connected.context("could not connect to the broker")?;
        let counting = connection.create_channel().await?;
        Ok(Self { publisher, connection, counting, recordings })
    }

    /// Publishes a note as the product's services do, and returns once the broker has confirmed it.
    ///
    /// # Errors
    ///
    /// When its recording cannot be copied, or the message is not confirmed.
    pub async fn publish(&self, note: &Note) -> Result<()> {
        let content = match &note.content {
            Content::Text(text) => RecordContent { text: Some(text.clone()), ..RecordContent::default() },
            Content::Recording(file) => {
                RecordContent { audio: Some(self.recordings.admit(file, &note.id)?), ..RecordContent::default() }
            }
        };
        let content = RecordContent { title: Some(note.title.clone()), ..content };
        let created = RecordCreated { record_id: note.id.clone(), revision: 1, content };
        let message = Message::of(&created)?.correlation_id(note.id.as_str());
        let outgoing = Outgoing::new(queue::RECORD_EVENTS, queue::RECORD_EVENTS, message);
        self.publisher.publish(&outgoing).await.with_context(|| format!("could not publish the note {:?}", note.title))
    }

    /// Listens to all that is published to the five exchanges from now on.
    ///
    /// # Errors
    ///
    /// When the broker refuses.
    pub async fn tap(&self) -> Result<Tap> {
        Tap::open(&self.connection.create_channel().await?).await.context("could not listen to the exchanges")
    }

    /// Looks into the dead-letter queues.
    pub fn dead_letters(&self) -> DeadLetters<'_> {
        DeadLetters::new(&self.connection)
    }

    /// How many messages wait in each worker's queue, in the order of [`Kind::ALL`].
    ///
    /// # Errors
    ///
    /// When a queue is not there, or the broker does not answer.
    pub async fn waiting(&self) -> Result<[u32; 5]> {
        let mut counts = [0; 5];
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        for (count, kind) in counts.iter_mut().zip(Kind::ALL) {
            let queue = self.counting.queue_declare(kind.queue().into(), options, FieldTable::default()).await;
            *count = queue.with_context(|| format!("could not count what waits in {}", kind.queue()))?.message_count();
        }
        Ok(counts)
    }

    /// Closes both connections.
    pub async fn close(self) {
        self.publisher.close().await;
        // It is of no use any more, however it ends.
        let _ = self.connection.close(200, "done".into()).await;
    }
}
