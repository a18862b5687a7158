//! Dead letters as the workers leave them.

use std::{collections::HashMap, ffi::OsStr, time::Duration};

use jm_testkit::{RabbitNode, Vhost};
use lapin::{
    BasicProperties, ExchangeKind,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};
use tokio::process::Command;

use crate::support::{self, Said};

/// What `jm` says, which always is something.
pub(crate) async fn said(command: Command, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Said {
    support::said(command, arguments).await.unwrap()
}

const LIMIT: Duration = Duration::from_mins(2);

pub(crate) const QUEUE: &str = "jm.llm";
pub(crate) const DEAD: &str = "jm.llm.dead";

/// A virtual host with a worker's exchange and queue, and a queue for its dead letters.
pub(crate) async fn vhost() -> Vhost {
    on(RabbitNode::shared().await.unwrap()).await
}

pub(crate) async fn on(node: &RabbitNode) -> Vhost {
    let vhost = node.vhost().await.unwrap();
    vhost.declare_exchange(QUEUE, ExchangeKind::Direct).await.unwrap();
    vhost.declare_queue(QUEUE).await.unwrap();
    vhost.bind(QUEUE, QUEUE, QUEUE).await.unwrap();
    vhost.declare_queue(DEAD).await.unwrap();
    vhost
}

/// A dead letter in the making.
pub(crate) struct Dead {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) error_kind: &'static str,
    pub(crate) error: String,
    pub(crate) failed_at: String,
    pub(crate) body: Vec<u8>,
    pub(crate) more: Vec<(&'static str, AMQPValue)>,
}

pub(crate) fn dead(id: &str) -> Dead {
    Dead {
        id: id.into(),
        kind: "llm.chat",
        error_kind: "exhausted",
        error: "503 Service Unavailable".into(),
        failed_at: "2026-11-23T12:00:00.5Z".into(),
        body: format!(r#"{{"messages":[{{"role":"user","content":"secret of {id}"}}]}}"#).into(),
        more: Vec::new(),
    }
}

impl Dead {
    pub(crate) fn message(&self) -> (BasicProperties, Vec<u8>) {
        let mut headers = FieldTable::default();
        for (name, value) in [
            ("x-exception-message", self.error.as_str()),
            ("x-original-exchange", QUEUE),
            ("x-original-routingKey", QUEUE),
            ("jm-original-queue", QUEUE),
            ("jm-error-kind", self.error_kind),
            ("jm-first-failed-at", &self.failed_at),
            ("jm-failed-at", &self.failed_at),
            ("jm-worker", "host/1#0"),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        headers.insert("jm-attempts".into(), AMQPValue::LongUInt(4));
        for (name, value) in &self.more {
            headers.insert((*name).into(), value.clone());
        }
        let properties = BasicProperties::default()
            .with_type(self.kind.into())
            .with_message_id(self.id.as_str().into())
            .with_content_type("text/plain".into())
            .with_delivery_mode(2)
            .with_priority(3)
            .with_timestamp(1_700_000_000)
            .with_headers(headers);
        (properties, self.body.clone())
    }
}

/// Puts them into the queue, in order.
pub(crate) async fn leave(vhost: &Vhost, dead: impl IntoIterator<Item = Dead>) {
    vhost.publish_many(DEAD, dead.into_iter().map(|dead| dead.message())).await.unwrap();
}

pub(crate) fn id(delivery: &Delivery) -> String {
    delivery.properties.message_id().as_ref().unwrap().to_string()
}

pub(crate) async fn ids(vhost: &Vhost, queue: &str) -> Vec<String> {
    vhost.take_all(queue).await.unwrap().iter().map(id).collect()
}

/// A message without the marks of a replay.
pub(crate) fn original(delivery: &Delivery) -> (BasicProperties, Vec<u8>) {
    let mut headers = FieldTable::default();
    for (name, value) in delivery.properties.headers().as_ref().unwrap() {
        if name.as_str() != "jm-replay" {
            headers.insert(name.clone(), value.clone());
        }
    }
    (delivery.properties.clone().with_headers(headers), delivery.data.clone())
}

/// Waits until so many have arrived in the target, or more.
pub(crate) async fn arrived(vhost: &Vhost, count: u64) {
    vhost.wait_for_counts(QUEUE, LIMIT, |counts| counts.ready >= count).await.unwrap();
}

/// How often each message is in the two queues together.
pub(crate) async fn everywhere(vhost: &Vhost) -> HashMap<String, usize> {
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.unacked == 0).await.unwrap();
    let mut found = HashMap::new();
    for queue in [QUEUE, DEAD] {
        for id in ids(vhost, queue).await {
            *found.entry(id).or_default() += 1;
        }
    }
    found
}
