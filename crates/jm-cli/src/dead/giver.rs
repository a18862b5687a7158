//! Publishing one message, once.

use std::time::Duration;

use jm_mq_core::{BasicProperties, ConnectError, Connection};
use lapin::{
    Channel, Confirmation, ErrorKind,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::time::timeout;

use super::{
    glance::{Trouble, lost},
    origin::Target,
};
use crate::{
    amqp::{self, ACCESS_REFUSED},
    operator::Operator,
    topology::ask_to_write,
};

/// A connection in confirm mode.
///
/// The core's publisher publishes again when it has lost its connection. Here that would be one repeat more: the message
/// itself is back in its queue then, and is given once more from there.
#[derive(Debug)]
pub(crate) struct Giver {
    connection: Connection,
    channel: Channel,
    limit: Duration,
}

/// What became of a message whose fate is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// It is in a queue.
    Confirmed,
    /// It is in none, for this reason. Others may fare better.
    Refused(String),
}

impl Giver {
    pub(crate) async fn open(operator: &Operator<'_>) -> Result<Self, Trouble> {
        let connection = Connection::open(&operator.broker, "replay").await?;
        let channel = confirming(&connection).await?;
        Ok(Self { connection, channel, limit: operator.configuration.publisher.timeout })
    }

    /// Publishes, mandatory, and waits for the confirm. After an error the message may be in its queue or not.
    pub(crate) async fn give(
        &mut self,
        target: &Target,
        properties: BasicProperties,
        body: &[u8],
    ) -> Result<Given, Trouble> {
        let (exchange, key) = match (amqp::short(&target.exchange), amqp::short(&target.routing_key)) {
            (Ok(exchange), Ok(key)) => (exchange, key),
            (Err(error), _) | (_, Err(error)) => return Ok(Given::Refused(error.to_string())),
        };
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish = async { self.channel.basic_publish(exchange, key, options, body, properties).await?.await };
        let Ok(confirmed) = timeout(self.limit, publish).await else { return Err(Trouble::Lost(self.silent())) };
        match confirmed {
            Ok(Confirmation::Ack(None)) => Ok(Given::Confirmed),
            Ok(Confirmation::Ack(Some(returned))) => {
                Ok(Given::Refused(format!("{target} leads to no queue ({})", returned.reply_text)))
            }
            Ok(Confirmation::Nack(_)) => Ok(Given::Refused(format!("{target} takes no more: is its queue full?"))),
            Ok(Confirmation::NotRequested) => {
                Err(Trouble::Lost(ConnectError::Lost("the channel forgot its confirms".into())))
            }
            Err(error) => self.classify(&error, target).await,
        }
    }

    /// The broker closes the channel over a message that it cannot accept.
    async fn classify(&mut self, error: &lapin::Error, target: &Target) -> Result<Given, Trouble> {
        let ErrorKind::ProtocolError(reply) = error.kind() else { return Err(lost(error)) };
        let reason = reply.get_message().to_string();
        let refused = match reply.kind().get_id() {
            404 => format!("{target} does not exist"),
            311 | 403 | 406 => format!("{target}: {reason}"),
            _ => return Err(lost(error)),
        };
        self.channel = confirming(&self.connection).await?;
        Ok(Given::Refused(refused))
    }

    /// Why the user may not publish to the default exchange, or the broker takes nothing at the moment; `None` if it does.
    pub(crate) async fn refuses_default_exchange(&self) -> Result<Option<String>, Trouble> {
        Ok(match ask_to_write(&self.connection, "").await.map_err(Trouble::Ended)? {
            None => Some(self.silent().to_string()),
            Some(Err(refusal)) if refusal.code == ACCESS_REFUSED => Some(refusal.text),
            Some(_) => None,
        })
    }

    fn silent(&self) -> ConnectError {
        match self.connection.blocked() {
            Some(reason) => ConnectError::Lost(format!("the broker blocks publishers ({reason}); end its alarm first")),
            None => ConnectError::Lost(format!("no confirm within {:?}", self.limit)),
        }
    }

    pub(crate) async fn close(self) {
        self.connection.close().await;
    }
}

async fn confirming(connection: &Connection) -> Result<Channel, Trouble> {
    let channel = connection.channel().await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    connection.within("switching to confirms", select).await?.map_err(|error| lost(&error))?;
    Ok(channel)
}
