//! Replies to whoever asked: wanted, and never the reason why a task is not done.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use jm_mq_core::{
    Answers, Context, HandlerError, Message, Outgoing, PublisherOptions, Router, Topology, dead_letters, metrics,
};
use jm_testkit::RabbitNode;
use lapin::{
    BasicProperties,
    message::Delivery,
    options::{BasicConsumeOptions, BasicPublishOptions},
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    Bench, Record, broker_options, hold_up, let_go, logs, metric, metric_reaches, one_worker, quick, within,
};

/// Answers each task with an event, which has the task's id, and whoever asked.
fn answering(exchange: &'static str) -> Router {
    Router::new().on_type("task", move |_: serde_json::Value, cx: Context| async move {
        let event = Message::new("done", "yes").message_id(cx.message_id().unwrap_or_default());
        let answers = Answers::from(Outgoing::new(exchange, exchange, event));
        let reply = Message::new("reply", "yes");
        // Every broker fails to read this: the client library and RabbitMQ differ over this type of header.
        let unreadable = AMQPValue::ShortString("text".into());
        let bad = cx.reply_to() == Some(UNREADABLE);
        Ok::<_, HandlerError>(answers.and_reply(&cx, if bad { reply.header("unreadable", unreadable) } else { reply }))
    })
}

/// Who asks there gets a reply that no broker takes.
const UNREADABLE: &str = "r.unreadable";

fn asked(id: &str, reply_to: &str) -> BasicProperties {
    BasicProperties::default().with_type("task".into()).with_message_id(id.into()).with_reply_to(reply_to.into())
}

fn told(id: &str, queue: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(dead_letters::OUTCOME_TO.into(), AMQPValue::LongString(queue.into()));
    BasicProperties::default().with_type("task".into()).with_message_id(id.into()).with_headers(headers)
}

fn ids(messages: &[Delivery]) -> Vec<String> {
    messages.iter().map(|message| message.properties.message_id().clone().unwrap().to_string()).collect()
}

fn lines_with(word: &str) -> Vec<String> {
    let log = String::from_utf8(logs().lock().unwrap().clone()).unwrap();
    log.lines().filter(|line| line.contains(word) && !line.contains("DEBUG")).map(str::to_owned).collect()
}

fn full() -> FieldTable {
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(1));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    full
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_reply_arrives_once_and_nothing_is_said_to_be_wrong_with_it() {
    logs();
    let bench = Bench::shared().await;
    bench.publisher.declare(&Topology::work_queue("r.direct.events")).await.unwrap();
    let addresses = Record::new();
    let router = Router::new().on_type("task", {
        let addresses = addresses.clone();
        move |_: serde_json::Value, cx: Context| {
            addresses.add(cx.reply_to().unwrap().to_owned());
            let event = Outgoing::new("r.direct.events", "r.direct.events", Message::new("done", "yes"));
            async move { Ok::<_, HandlerError>(Answers::from(event).and_reply(&cx, Message::new("reply", "yes"))) }
        }
    });
    let _running = bench.consume("r.direct", one_worker(), router).await;
    let requester = bench.vhost.channel().await.unwrap();
    let no_ack = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut replies = requester
        .basic_consume("amq.rabbitmq.reply-to".into(), "".into(), no_ack, FieldTable::default())
        .await
        .unwrap();
    let publish = async |id: &str| {
        let properties = asked(id, "amq.rabbitmq.reply-to");
        requester.basic_publish("".into(), "r.direct".into(), BasicPublishOptions::default(), b"{}", properties).await
    };
    for id in ["direct 1", "direct 2"] {
        publish(id).await.unwrap();
        let reply = within("a reply", replies.next()).await.unwrap().unwrap();
        assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), id);
    }
    bench.settled("r.direct").await;
    let address = &addresses.all()[0];
    assert!(address.starts_with("amq.rabbitmq.reply-to."), "{address}");
    assert_eq!(lines_with(address), Vec::<String>::new());
    // Whoever asked may be gone by then.
    publish("direct 3").await.unwrap();
    drop((replies, requester));
    bench.settled("r.direct").await;
    bench.ready("r.direct.events", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reply_is_counted_told_once_and_its_task_done() {
    logs();
    let bench = Bench::shared().await;
    bench.publisher.declare(&Topology::work_queue("r.refused.events")).await.unwrap();
    bench.vhost.declare_queue_with("r.full", true, full()).await.unwrap();
    bench.vhost.publish("r.full", BasicProperties::default(), b"in the way").await.unwrap();
    let options = jm_mq_core::ConsumerOptions { nack_requeue: false, ..one_worker() };
    let _running = bench.consume("r.refused", options, answering("r.refused.events")).await;
    let refused = metric(metrics::REPLIES, &[("outcome", "refused")]);
    bench.vhost.publish("r.refused", asked("refused 1", "r.full"), b"{}").await.unwrap();
    bench.vhost.publish("r.refused", told("refused 2", "r.full"), b"{}").await.unwrap();
    bench.settled("r.refused").await;
    assert_eq!(ids(&bench.vhost.take_all("r.refused.events").await.unwrap()), ["refused 1", "refused 2"]);
    assert!(bench.vhost.take_all("r.refused.dead").await.unwrap().is_empty());
    metric_reaches(metrics::REPLIES, &[("outcome", "refused")], refused + 2.0).await;
    for id in ["refused 1", "refused 2"] {
        let lines = lines_with(id);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("WARN") && lines[0].contains("r.full"), "{lines:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_gets_no_confirm_is_waited_for_once_and_its_task_done() {
    let node = RabbitNode::shared().await.unwrap();
    let bench = Bench::on(node).await;
    let timeout = Duration::from_millis(500);
    let options = broker_options(&bench.vhost, bench.vhost.port);
    let bench = Bench::with(bench.vhost, options, PublisherOptions { timeout, ..PublisherOptions::default() });
    bench.publisher.declare(&Topology::work_queue("r.late.events")).await.unwrap();
    bench.vhost.declare_queue("r.stuck").await.unwrap();
    let _running = bench.consume("r.late", one_worker(), answering("r.late.events")).await;
    hold_up(node, &bench.vhost, "r.stuck").await;
    let late = metric(metrics::REPLIES, &[("outcome", "timed_out")]);
    bench.vhost.publish("r.late", asked("late", "r.stuck"), b"{}").await.unwrap();
    bench.settled("r.late").await;
    metric_reaches(metrics::REPLIES, &[("outcome", "timed_out")], late + 1.0).await;
    assert_eq!(bench.vhost.take_all("r.late.events").await.unwrap().len(), 1);
    let_go(node, &bench.vhost, "r.stuck").await;
    bench.ready("r.stuck", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_with_a_key_is_no_address_of_a_reply_and_that_is_told() {
    logs();
    let bench = Bench::shared().await;
    bench.publisher.declare(&Topology::work_queue("r.slash.events")).await.unwrap();
    let _running = bench.consume("r.slash", one_worker(), answering("r.slash.events")).await;
    bench.vhost.declare_queue("r.slash/queue").await.unwrap();
    let unroutable = metric(metrics::REPLIES, &[("outcome", "unroutable")]);
    bench.vhost.publish("r.slash", asked("slash 1", "r.slash.events/r.slash.events"), b"{}").await.unwrap();
    bench.vhost.publish("r.slash", asked("slash 2", "r.slash/queue"), b"{}").await.unwrap();
    bench.settled("r.slash").await;
    assert_eq!(ids(&bench.vhost.take_all("r.slash.events").await.unwrap()), ["slash 1", "slash 2"]);
    assert_eq!(bench.vhost.take_all("r.slash/queue").await.unwrap().len(), 1, "a queue may be named like that");
    metric_reaches(metrics::REPLIES, &[("outcome", "unroutable")], unroutable + 1.0).await;
    let lines = lines_with("slash 1");
    assert!(lines.len() == 1 && lines[0].contains("`exchange/key` is not supported"), "{lines:#?}");
    assert!(lines_with("slash 2").is_empty());
}

/// RabbitMQ 3.10 takes the last four for addresses of direct replies, and fails over them.
const POISON: [&str; 5] = [
    UNREADABLE,
    "amq.rabbitmq.reply-to.g1h2AAAA.none",
    "amq.rabbitmq.reply-to.",
    "amq.rabbitmq.reply-to.!/%",
    "amq.rabbitmq.reply-to.g2dkAA1ub25vZGVAbm93aGVyZQAAA+gAAAAAAA==.x",
];

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_close_the_connection_hold_up_nobody_and_their_tasks_are_done() {
    let bench = Bench::shared().await;
    bench.publisher.declare(&Topology::work_queue("r.poison.events")).await.unwrap();
    for queue in ["r.asker", "r.told"] {
        bench.vhost.declare_queue(queue).await.unwrap();
    }
    let _running = bench.consume("r.poison", quick(), answering("r.poison.events")).await;
    let before = metric(metrics::REPLIES, &[("outcome", "invalid")]);
    let begun = Instant::now();
    for address in POISON {
        bench.vhost.publish("r.poison", asked(&format!("asked {address}"), address), b"{}").await.unwrap();
        bench.vhost.publish("r.poison", told(&format!("told {address}"), address), b"{}").await.unwrap();
    }
    bench.vhost.publish("r.poison", told("told", "r.told"), b"{}").await.unwrap();
    let honest = (0..100).map(|n| (asked(&n.to_string(), "r.asker"), "{}"));
    bench.vhost.publish_many("r.poison", honest).await.unwrap();
    bench.settled("r.poison").await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let events = ids(&bench.vhost.take_all("r.poison.events").await.unwrap());
    assert_eq!((events.len(), events.iter().collect::<HashSet<_>>().len()), (111, 111), "each task's event, once");
    let replies = bench.vhost.take_all("r.asker").await.unwrap();
    let replied = replies.iter().map(|reply| reply.properties.correlation_id().clone().unwrap().to_string());
    assert_eq!(replied.collect::<HashSet<_>>().len(), 100, "every honest reply");
    let outcome = bench.vhost.take_all("r.told").await.unwrap().remove(0);
    assert_eq!(outcome.properties.kind().as_ref().unwrap().as_str(), dead_letters::OUTCOME_TYPE);
    assert!(bench.vhost.take_all("r.poison.dead").await.unwrap().is_empty());
    assert!(metric(metrics::REPLIES, &[("outcome", "invalid")]) > before);
}
