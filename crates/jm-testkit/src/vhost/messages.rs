//! Messages put into queues and taken out of them by the test itself.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions};
use lapin::{BasicProperties, Confirmation};

use super::Vhost;
use super::outsider::short;
use crate::limit::within;

/// One message. In an alarm the broker does not answer, and the message is delivered when the alarm is over.
const LIMIT: Duration = Duration::from_secs(10);

/// Messages on the way at once: enough to be quick, few enough to bound what is kept in memory.
const PIPELINE: usize = 500;

impl Vhost {
    /// Publishes one message to a queue and returns once the broker has confirmed it. Fails when the queue does not
    /// exist, when the broker refuses the message, and after 10 s; then the message may still arrive.
    pub async fn publish(&self, queue: &str, properties: BasicProperties, body: &[u8]) -> Result<()> {
        self.publish_many(queue, [(properties, body)]).await.map(drop)
    }

    /// Publishes many messages to a queue, in order and many at a time, and returns how many once the broker has
    /// confirmed all. Fails as [`Vhost::publish`] does.
    pub async fn publish_many<Body: AsRef<[u8]>>(
        &self,
        queue: &str,
        messages: impl IntoIterator<Item = (BasicProperties, Body)>,
    ) -> Result<usize> {
        let kept = self.publishing.channel().await?;
        let (channel, key, what) = (kept.channel()?, short(queue)?, format!("publish to {}", self.of(queue)));
        // Mandatory: the default exchange drops what is for a queue that does not exist.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (mut confirms, mut count, mut messages) = (Vec::with_capacity(PIPELINE), 0, messages.into_iter());
        loop {
            let next = messages.next();
            let last = next.is_none();
            if let Some((properties, body)) = next {
                let write = channel.basic_publish(short("")?, key.clone(), options, body.as_ref(), properties);
                confirms.push(within(LIMIT, &what, write).await?);
                count += 1;
            }
            if last || confirms.len() == PIPELINE {
                for confirm in confirms.drain(..) {
                    match within(LIMIT, &what, confirm).await? {
                        Confirmation::Ack(None) => {}
                        Confirmation::Ack(Some(_)) => bail!("could not {what}: it does not exist"),
                        Confirmation::Nack(_) => bail!("could not {what}: the broker refused the message"),
                        Confirmation::NotRequested => bail!("could not {what}: confirms are off"),
                    }
                }
            }
            if last {
                return Ok(count);
            }
        }
    }

    /// Takes all ready messages of a queue, acknowledging each, until it is empty.
    pub async fn take_all(&self, queue: &str) -> Result<Vec<Delivery>> {
        let kept = self.looking.channel().await?;
        let (channel, name, what) = (kept.channel()?, short(queue)?, format!("take from {}", self.of(queue)));
        let mut taken = Vec::new();
        loop {
            let get = channel.basic_get(name.clone(), BasicGetOptions::default());
            let Some(message) = within(LIMIT, &what, get).await? else { return Ok(taken) };
            let acked = within(LIMIT, &what, message.ack(BasicAckOptions::default())).await;
            if !acked.with_context(|| format!("{} messages were taken before", taken.len()))? {
                bail!("could not {what}: the channel closed before the acknowledgement");
            }
            taken.push(message.delivery);
        }
    }
}
