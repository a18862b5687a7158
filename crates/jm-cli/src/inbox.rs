//! A queue of jm's own, which goes with its connection: for what others answer.

use futures_util::StreamExt as _;
use jm_mq_core::{ConnectError, Connection, FieldTable};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, QueueDeclareOptions},
};

use crate::{
    amqp::{self, ACCESS_REFUSED},
    dead::Trouble,
    failure::Failure,
    operator::Operator,
};

/// Its name is the broker's choice, and nobody else can consume it.
#[derive(Debug)]
pub(crate) struct Inbox {
    connection: Connection,
    /// Ends with its last handle, and with it the queue.
    _channel: Channel,
    deliveries: Consumer,
    queue: String,
}

impl Inbox {
    /// On a connection of its own. `purpose` shows in the broker's list of connections.
    pub(crate) async fn open(operator: &Operator<'_>, purpose: &str) -> Result<Self, Trouble> {
        let connection = Connection::open(&operator.broker, purpose).await?;
        let channel = connection.channel().await?;
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let declare = channel.queue_declare("".into(), options, FieldTable::default());
        let declared = connection.within("declaring a queue of one's own", declare).await?;
        let queue = declared.map_err(|error| refused(&error))?.name().clone();
        let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let consume = channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default());
        let consuming = connection.within("listening for answers", consume).await?;
        let deliveries = consuming.map_err(|error| refused(&error))?;
        Ok(Self { connection, _channel: channel, deliveries, queue: queue.to_string() })
    }

    /// Where it is to be sent.
    pub(crate) fn queue(&self) -> &str {
        &self.queue
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Result<Delivery, ConnectError> {
        match self.deliveries.next().await {
            Some(Ok(delivery)) => Ok(delivery),
            Some(Err(error)) => Err(ConnectError::Lost(error.to_string())),
            None => Err(ConnectError::Lost(format!("the broker deleted queue `{}`", self.queue))),
        }
    }

    pub(crate) async fn close(self) {
        self.connection.close().await;
    }
}

/// A user may lack the right to it, and would lack it on every other connection.
fn refused(error: &lapin::Error) -> Trouble {
    match amqp::refusal(error) {
        Ok(refusal) if refusal.code == ACCESS_REFUSED => Trouble::Ended(Failure::unavailable(format_args!(
            "RabbitMQ refuses jm a queue of its own: {}; grant the user permission to configure and read `^amq\\.gen-`",
            refusal.text
        ))),
        Ok(refusal) => Trouble::Lost(ConnectError::Lost(refusal.text)),
        Err(error) => error.into(),
    }
}
