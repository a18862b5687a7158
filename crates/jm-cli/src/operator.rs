//! What every command has at hand.

use jm_mq_core::{Broker, Connection, Publisher};

use crate::{configuration::Configuration, failure::Failure, interrupt::Interrupt, output::Output};

/// The operator, with configuration, broker, output, and an ear for Ctrl-C.
#[derive(Debug)]
pub(crate) struct Operator<'a> {
    pub(crate) configuration: Configuration,
    pub(crate) output: Output,
    pub(crate) interrupt: &'a Interrupt,
    /// Nothing is dialled yet.
    pub(crate) broker: Broker,
}

impl<'a> Operator<'a> {
    /// Reads the TLS files that the configuration names.
    pub(crate) fn new(configuration: Configuration, output: Output, interrupt: &'a Interrupt) -> Result<Self, Failure> {
        let broker = Broker::new(configuration.rabbitmq.clone())?;
        Ok(Self { configuration, output, interrupt, broker })
    }

    /// A connection of its own. `purpose` shows in the broker's list of connections.
    pub(crate) async fn connect(&self, purpose: &str) -> Result<Connection, Failure> {
        Ok(Connection::open(&self.broker, purpose).await?)
    }

    /// For confirmed publishing, on connections of its own.
    pub(crate) fn publisher(&self) -> Result<Publisher, Failure> {
        Ok(Publisher::new(&self.broker, self.configuration.publisher.clone())?)
    }
}
