//! What a consumer does when its connection, its broker, its queue or its permissions go away, and come back.

use std::time::{Duration, Instant};

use jm_mq_core::{ConsumerOptions, Message, Outgoing, Publisher, PublisherOptions, Topology};
use jm_testkit::{RabbitNode, TcpProxy};
use lapin::BasicProperties;

use crate::support::{
    Bench, Gate, LIMIT, Record, broker_options, held, metric, metric_becomes, metric_reaches, not_ready, one_worker,
    quick, recording, waiting, within,
};

fn task(id: &str) -> BasicProperties {
    BasicProperties::default().with_type("task".into()).with_message_id(id.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_handlers_that_run_while_the_connection_is_lost_run_once_and_their_messages_are_settled() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let done = Record::new();
    bench.vhost.declare_queue("o.answers").await.unwrap();
    let router = recording(&runs, {
        let done = done.clone();
        move |cx| {
            let done = done.clone();
            async move {
                // The work itself: three seconds of it.
                tokio::time::sleep(Duration::from_secs(3)).await;
                done.add(cx.message_id().map(str::to_owned));
                Ok(Outgoing::to_queue("o.answers", Message::new("done", "yes")))
            }
        }
    });
    let running = bench.consume("o.lost", ConsumerOptions { prefetch_per_worker: 1, ..quick() }, router).await;
    for n in 0..10 {
        // Half of them without an id, as the Go services send them.
        let properties =
            if n % 2 == 0 { task(&n.to_string()) } else { BasicProperties::default().with_type("task".into()) };
        bench.vhost.publish("o.lost", properties, format!("{{\"n\": {n}}}").as_bytes()).await.unwrap();
    }
    runs.reaches(10).await;
    assert!(bench.vhost.close_connections("on purpose").await.unwrap() >= 1);
    not_ready(&running).await;
    within("ready again", running.ready()).await;
    assert_eq!(done.len(), 0, "all ten still run");
    bench.settled("o.lost").await;
    assert_eq!(runs.len(), 10, "each ran once: {:?}", runs.all());
    assert_eq!(done.len(), 10);
    bench.ready("o.answers", 10).await;
    metric_becomes("jm_mq_kept_results_total", &[("queue", "o.lost"), ("fate", "used")], 10.0).await;
    assert!(metric("jm_mq_reconnects_total", &[("queue", "o.lost")]) >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backoff_ends_with_its_connection_and_the_message_starts_again() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router =
        recording(&runs, |cx| async move { if cx.envelope().redelivered() { Ok(()) } else { Err("later".into()) } });
    let options = ConsumerOptions { retry_base_delay: LIMIT * 4, retry_max_delay: LIMIT * 4, ..one_worker() };
    let _running = bench.consume("o.backoff", options, router).await;
    bench.send("o.backoff", "task", "1", "{}").await;
    runs.reaches(1).await;
    bench.vhost.close_connections("on purpose").await.unwrap();
    bench.settled("o.backoff").await;
    assert_eq!(runs.all(), [("1".to_owned(), 1), ("1".to_owned(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_work_resumes_within_a_second_of_the_brokers_answer() {
    let node = RabbitNode::start().await.unwrap();
    let bench = Bench::on(&node).await;
    let runs = Record::new();
    let running = bench.consume("o.killed", quick(), recording(&runs, |_| async { Ok(()) })).await;
    node.kill().await.unwrap();
    not_ready(&running).await;
    let error = waiting(&running).await;
    assert!(!error.is_fatal(), "{error}");
    assert!(!running.is_ready());

    // Sent as soon as anybody takes it.
    let options = PublisherOptions { timeout: LIMIT, ..PublisherOptions::default() };
    let publisher = Publisher::new(&bench.broker, options).unwrap();
    let first = tokio::spawn(async move {
        publisher.publish(&Outgoing::to_queue("o.killed", Message::new("task", "{}").message_id("first"))).await
    });
    node.start_again().await.unwrap();
    node.wait_until_up(LIMIT).await.unwrap();
    let answered = Instant::now();
    runs.reaches(1).await;
    assert!(answered.elapsed() < Duration::from_secs(1), "{:?}", answered.elapsed());
    assert!(running.is_ready());
    first.await.unwrap().unwrap();
    bench.settled("o.killed").await;
}

type Inject<'a> = Box<dyn Fn() + Send + Sync + 'a>;

#[tokio::test(flavor = "multi_thread")]
async fn slow_sliced_and_cut_links_cause_no_double_ack_and_no_hang() {
    let bench = Bench::shared().await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], bench.vhost.port).into()).await.unwrap();
    let bench = Bench::at(bench.vhost, proxy.port());
    let runs = Record::new();
    let running = bench.consume("o.link", quick(), recording(&runs, |_| async { Ok(()) })).await;
    let mut sent = 0;
    let faults: [(&str, Inject<'_>); 6] = [
        ("delay", Box::new(|| proxy.delay(Some(Duration::from_millis(20))))),
        ("slice", Box::new(|| proxy.slice(Some(7)))),
        ("cut", Box::new(|| proxy.cut())),
        ("reset", Box::new(|| proxy.reset())),
        ("reset in mid-frame", Box::new(|| proxy.reset_after(1500))),
        (
            "refuse",
            Box::new(|| {
                proxy.refuse(true);
                proxy.cut();
            }),
        ),
    ];
    for (name, inject) in &faults {
        inject();
        let batch: Vec<_> = (sent..sent + 100).map(|n| (task(&n.to_string()), "{}")).collect();
        bench.vhost.publish_many("o.link", batch).await.unwrap();
        sent += 100;
        if *name == "refuse" {
            waiting(&running).await;
        }
        proxy.heal();
        bench.settled("o.link").await;
    }
    let mut ids: Vec<usize> = runs.all().into_iter().map(|(id, _)| id.parse().unwrap()).collect();
    let runs_in_all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids, (0..sent).collect::<Vec<_>>(), "every message was handled");
    assert!(runs_in_all < sent * 2, "{runs_in_all} runs of {sent} messages");
    // A second ack of one delivery would be answered with 406 and closed channels, again and again.
    let before = metric("jm_mq_reconnects_total", &[("queue", "o.link")]);
    bench.send("o.link", "task", "last", "{}").await;
    bench.settled("o.link").await;
    assert!((metric("jm_mq_reconnects_total", &[("queue", "o.link")]) - before).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_an_alarm_consumers_settle_and_what_needs_a_publish_waits_unacked() {
    let node = RabbitNode::start().await.unwrap();
    let bench = Bench::on(&node).await;
    let options = PublisherOptions { timeout: Duration::from_secs(1), ..PublisherOptions::default() };
    let bench = Bench::with(bench.vhost.clone(), broker_options(&bench.vhost, node.port()), options);
    // By an exchange of its own, whose publishes no other test counts.
    bench.publisher.declare(&Topology::work_queue("o.out")).await.unwrap();
    let timed_out = [("exchange", "o.out"), ("outcome", "timed_out")];
    for fault in ["memory", "disk"] {
        let queue = format!("o.alarm.{fault}");
        let runs = Record::new();
        let gate = Gate::closed();
        let hold = gate.clone();
        let router = recording(&runs, move |cx| {
            let hold = hold.clone();
            async move {
                hold.passed().await;
                let answer = Outgoing::new("o.out", "o.out", Message::new("done", "yes"));
                Ok(if cx.message_id() == Some("answers") { vec![answer] } else { vec![] })
            }
        });
        let _running = bench.consume(&queue, quick(), router).await;
        bench.send(&queue, "task", "answers", "{}").await;
        bench.send(&queue, "task", "quiet", "{}").await;
        runs.reaches(2).await;
        let alarm = async |on: bool| match fault {
            "memory" => node.memory_alarm(on).await.unwrap(),
            _ => node.disk_alarm(on).await.unwrap(),
        };
        let before = metric("jm_mq_publishes_total", &timed_out);
        alarm(true).await;
        gate.open();
        // The quiet one is acked; the other has no confirm for its answer.
        bench.vhost.wait_for_counts(&queue, LIMIT, |counts| counts.unacked == 1).await.unwrap();
        metric_reaches("jm_mq_connection_blocked", &[("role", "publisher")], 1.0).await;
        metric_reaches("jm_mq_publishes_total", &timed_out, before + 2.0).await;
        assert_eq!(bench.vhost.queue_counts(&queue).await.unwrap().unacked, 1, "still unacked");
        alarm(false).await;
        bench.settled(&queue).await;
        assert_eq!(runs.len(), 2, "each handler ran once");
        assert!(!bench.vhost.take_all("o.out").await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_consumer_timeout_costs_a_channel_only_if_we_do_not_know_of_it() {
    // The broker looks every half second, not every minute.
    let timeouts = "[{rabbit, [{consumer_timeout, 3000}, {channel_tick_interval, 500}]}].";
    let node = RabbitNode::builder().advanced_config(timeouts).start().await.unwrap();
    let bench = Bench::on(&node).await;
    // From 4.3 on classic queues have none; a quorum queue's consumer announces its own.
    let applies = node.version().await.unwrap().as_str() < "4.3";
    let unknown = if applies { 1.0 } else { 0.0 };
    for (queue, known, reconnects) in [("o.known", Duration::from_secs(3), 0.0), ("o.unknown", LIMIT * 60, unknown)] {
        let runs = Record::new();
        let gate = Gate::closed();
        let options = ConsumerOptions { consumer_timeout: known, handler_timeout: Duration::ZERO, ..one_worker() };
        let _running = bench.consume(queue, options, held(&runs, &gate)).await;
        bench.send(queue, "task", "overruns", "{}").await;
        bench.send(queue, "task", "behind it", "{}").await;
        runs.reaches(1).await;
        if known < LIMIT {
            // The buffered one after half of the time, the running one before the end.
            metric_reaches("jm_mq_nacks_total", &[("queue", queue), ("requeue", "true")], 4.0).await;
        } else if applies {
            metric_reaches("jm_mq_reconnects_total", &[("queue", queue)], 1.0).await;
        } else {
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        gate.open();
        bench.settled(queue).await;
        assert_eq!(runs.len(), 2, "each ran once: {:?}", runs.all());
        let seen = metric("jm_mq_reconnects_total", &[("queue", queue)]);
        assert!((seen - reconnects).abs() < f64::EPSILON, "{queue}: {seen} reconnects");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_noticed_within_a_second_and_declared_again_within_five() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let running = bench.consume("o.deleted", quick(), recording(&runs, |_| async { Ok(()) })).await;
    let mut states = running.states();
    states.mark_unchanged();
    let begun = Instant::now();
    bench.vhost.delete_queue("o.deleted").await.unwrap();
    within("a change", states.changed()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    within("ready again", running.ready()).await;
    bench.send("o.deleted", "task", "1", "{}").await;
    runs.reaches(1).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
