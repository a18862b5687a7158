//! Answers whose confirm takes longer than the publisher's timeout.

use std::{collections::HashSet, time::Duration};

use jm_mq_core::{
    Broker, Consumer, ConsumerOptions, Message, Outgoing, Publisher, PublisherOptions, Topology, metrics,
};
use jm_testkit::{RabbitNode, TcpProxy};
use lapin::message::Delivery;

use crate::support::{
    Bench, Record, broker_options, hold_up, let_go, metric, metric_reaches, one_worker, quick, recording, within,
};

/// Much shorter than what the tests make a confirm take.
const TIMEOUT: Duration = Duration::from_millis(300);

fn impatient(channels: usize) -> PublisherOptions {
    PublisherOptions { timeout: TIMEOUT, channels, ..PublisherOptions::default() }
}

fn ids(messages: &[Delivery]) -> Vec<String> {
    messages.iter().map(|message| message.properties.message_id().clone().unwrap().to_string()).collect()
}

/// Each task is answered with one event, which has the task's id.
fn events(cx: &jm_mq_core::Context, exchange: &str, body: impl Into<Vec<u8>>) -> Outgoing {
    let id = cx.message_id().unwrap().to_owned();
    Outgoing::new(exchange, exchange, Message::new("done", body.into()).message_id(&id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirm_after_the_timeout_counts_and_no_event_is_published_twice() {
    let node = RabbitNode::shared().await.unwrap();
    let bench = Bench::on(node).await;
    let options = broker_options(&bench.vhost, bench.vhost.port);
    let bench = Bench::with(bench.vhost, options, impatient(16));
    bench.publisher.declare(&Topology::work_queue("late.events")).await.unwrap();
    let runs = Record::new();
    let router = recording(&runs, |cx| async move { Ok(events(&cx, "late.events", "yes")) });
    let _running = bench.consume("late.tasks", quick(), router).await;
    hold_up(node, &bench.vhost, "late.events").await;
    for n in 0..4 {
        bench.send("late.tasks", "task", &n.to_string(), "{}").await;
    }
    // That it takes long is told all the same.
    let late = [("exchange", "late.events"), ("outcome", "timed_out")];
    metric_reaches(metrics::PUBLISHES, &late, 12.0).await;
    let_go(node, &bench.vhost, "late.events").await;
    bench.settled("late.tasks").await;
    let mut events = ids(&bench.vhost.take_all("late.events").await.unwrap());
    events.sort_unstable();
    assert_eq!(events, ["0", "1", "2", "3"], "one event for each task");
    assert_eq!(runs.len(), 4);
    assert!((metric(metrics::PUBLISHES, &[("exchange", "late.events"), ("outcome", "confirmed")]) - 4.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_long_over_a_slow_link_is_written_once() {
    let bench = Bench::shared().await;
    bench.publisher.declare(&Topology::work_queue("late.large")).await.unwrap();
    let proxy = TcpProxy::start(([127, 0, 0, 1], bench.vhost.port).into()).await.unwrap();
    let broker = Broker::new(broker_options(&bench.vhost, proxy.port())).unwrap();
    let publisher = Publisher::new(&broker, impatient(16)).unwrap();
    let runs = Record::new();
    let router = recording(&runs, |cx| async move { Ok(events(&cx, "late.large", vec![b'x'; 200_000])) });
    // The tasks come another way.
    let tasks = Topology::work_queue("late.link");
    let consumer = Consumer::new(&bench.broker, &publisher, tasks, quick(), router).unwrap();
    let running = consumer.start();
    within("ready", running.ready()).await;
    // 0.4 MB in a second at most.
    proxy.slice(Some(400));
    for n in 0..2 {
        bench.send("late.link", "task", &n.to_string(), "{}").await;
    }
    metric_reaches(metrics::PUBLISHES, &[("exchange", "late.large"), ("outcome", "timed_out")], 1.0).await;
    bench.settled("late.link").await;
    let mut events = ids(&bench.vhost.take_all("late.large").await.unwrap());
    events.sort_unstable();
    assert_eq!(events, ["0", "1"], "one event for each task");
    assert_eq!((runs.len(), proxy.accepted()), (2, 1), "by one connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_repeated_only_when_its_connection_is_gone_and_with_the_same_id() {
    let bench = Bench::shared().await;
    bench.publisher.declare(&Topology::work_queue("late.repeated")).await.unwrap();
    let proxy = TcpProxy::start(([127, 0, 0, 1], bench.vhost.port).into()).await.unwrap();
    let broker = Broker::new(broker_options(&bench.vhost, proxy.port())).unwrap();
    let publisher = Publisher::new(&broker, impatient(16)).unwrap();
    publisher.publish(&Outgoing::to_queue("late.repeated", Message::new("t", "b").message_id("first"))).await.unwrap();
    let runs = Record::new();
    let router = recording(&runs, |cx| async move { Ok(events(&cx, "late.repeated", "yes")) });
    let consumer =
        Consumer::new(&bench.broker, &publisher, Topology::work_queue("late.silent"), one_worker(), router).unwrap();
    let running = consumer.start();
    within("ready", running.ready()).await;
    // What the proxy has then never arrives.
    proxy.stall(true);
    bench.send("late.silent", "task", "task", "{}").await;
    metric_reaches(metrics::PUBLISHES, &[("exchange", "late.repeated"), ("outcome", "timed_out")], 3.0).await;
    assert_eq!(proxy.accepted(), 1, "nothing else was tried meanwhile");
    assert_eq!(bench.vhost.queue_counts("late.silent").await.unwrap().unacked, 1);
    proxy.reset();
    proxy.heal();
    bench.settled("late.silent").await;
    assert_eq!(ids(&bench.vhost.take_all("late.repeated").await.unwrap()), ["first", "task"]);
    assert_eq!(runs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_confirm_leaves_its_channel_to_the_others_and_does_not_hold_up_a_drain() {
    let node = RabbitNode::shared().await.unwrap();
    let bench = Bench::on(node).await;
    let options = broker_options(&bench.vhost, bench.vhost.port);
    let bench = Bench::with(bench.vhost, options, impatient(1));
    for queue in ["late.stuck", "late.free"] {
        bench.publisher.declare(&Topology::work_queue(queue)).await.unwrap();
    }
    let runs = Record::new();
    let router = recording(&runs, |cx| async move {
        let exchange = if cx.message_id() == Some("stuck") { "late.stuck" } else { "late.free" };
        Ok(events(&cx, exchange, "yes"))
    });
    let options = ConsumerOptions { concurrency: 2, prefetch_per_worker: 1, drain_timeout: TIMEOUT, ..quick() };
    let running = bench.consume("late.shared", options, router).await;
    hold_up(node, &bench.vhost, "late.stuck").await;
    bench.send("late.shared", "task", "stuck", "{}").await;
    runs.reaches(1).await;
    let free: HashSet<String> = (0..20).map(|n| n.to_string()).collect();
    for id in &free {
        bench.send("late.shared", "task", id, "{}").await;
    }
    // All but the one that is stuck.
    bench.ready("late.free", 20).await;
    assert_eq!(bench.vhost.queue_counts("late.shared").await.unwrap().unacked, 1);
    let report = within("drained", running.shutdown()).await;
    assert!(report.took < Duration::from_secs(4), "{report:?}");
    assert_eq!(report.cut_off, 1);
    assert_eq!(bench.left("late.shared").await, 1, "it goes back");
    let_go(node, &bench.vhost, "late.stuck").await;
    assert_eq!(ids(&bench.vhost.take_all("late.free").await.unwrap()).into_iter().collect::<HashSet<_>>(), free);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_answer_has_no_confirm_goes_back_in_time_and_neither_runs_nor_is_answered_twice() {
    let node = RabbitNode::shared().await.unwrap();
    let bench = Bench::on(node).await;
    let options = broker_options(&bench.vhost, bench.vhost.port);
    let bench = Bench::with(bench.vhost, options, impatient(16));
    bench.publisher.declare(&Topology::work_queue("late.budget.events")).await.unwrap();
    let runs = Record::new();
    let router = recording(&runs, |cx| async move { Ok(events(&cx, "late.budget.events", "yes")) });
    let options = ConsumerOptions {
        concurrency: 2,
        consumer_timeout: Duration::from_secs(1),
        handler_timeout: Duration::ZERO,
        ..quick()
    };
    let _running = bench.consume("late.budget", options, router).await;
    hold_up(node, &bench.vhost, "late.budget.events").await;
    bench.send("late.budget", "task", "1", "{}").await;
    // Before the broker would close the channel, again and again.
    metric_reaches(metrics::NACKS, &[("queue", "late.budget"), ("requeue", "true")], 2.0).await;
    let_go(node, &bench.vhost, "late.budget.events").await;
    bench.settled("late.budget").await;
    assert_eq!(ids(&bench.vhost.take_all("late.budget.events").await.unwrap()), ["1"]);
    assert_eq!(runs.len(), 1);
}
