//! What a consumer does when its connection, its broker, its queue or its permissions go away, and come back.

use std::time::{Duration, Instant};

use jm_mq_core::{
    BrokerOptions, ConnectError, ConsumerOptions, ConsumerState, ExchangeKind, Message, Outgoing, Publisher,
    PublisherOptions, Router, RunningConsumer, Topology,
};
use jm_testkit::{RabbitNode, TcpProxy};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    Bench, Gate, LIMIT, Record, broker_options, held, logs, metric, metric_becomes, metric_reaches, one_worker, quick,
    recording, within,
};

async fn not_ready(running: &RunningConsumer) {
    let mut states = running.states();
    within("not ready", states.wait_for(|state| !matches!(state, ConsumerState::Ready))).await.unwrap();
}

/// Waits until the consumer has given up for now, and returns why.
async fn waiting(running: &RunningConsumer) -> ConnectError {
    let mut states = running.states();
    let state =
        within("waiting", states.wait_for(|state| matches!(state, ConsumerState::Waiting { .. }))).await.unwrap();
    match &*state {
        ConsumerState::Waiting { error } => error.clone(),
        other => unreachable!("{other:?}"),
    }
}

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
    bench.vhost.declare_queue("o.out").await.unwrap();
    for fault in ["memory", "disk"] {
        let queue = format!("o.alarm.{fault}");
        let runs = Record::new();
        let gate = Gate::closed();
        let hold = gate.clone();
        let router = recording(&runs, move |cx| {
            let hold = hold.clone();
            async move {
                hold.passed().await;
                let answer = Outgoing::to_queue("o.out", Message::new("done", "yes"));
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
        alarm(true).await;
        gate.open();
        // The quiet one is acked; the other has no confirm for its answer.
        bench.vhost.wait_for_counts(&queue, LIMIT, |counts| counts.unacked == 1).await.unwrap();
        metric_reaches("jm_mq_connection_blocked", &[("role", "publisher")], 1.0).await;
        metric_reaches("jm_mq_publishes_total", &[("exchange", ""), ("outcome", "timed_out")], 1.0).await;
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
    for (queue, known, reconnects) in [("o.known", Duration::from_secs(3), 0.0), ("o.unknown", LIMIT * 60, 1.0)] {
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
        } else {
            metric_reaches("jm_mq_reconnects_total", &[("queue", queue)], 1.0).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_one_clear_error_slow_retries_and_nobody_elses_trouble() {
    let logs = logs();
    let bench = Bench::shared().await;
    let mut other = FieldTable::default();
    other.insert("x-max-length".into(), AMQPValue::LongInt(10));
    bench.vhost.declare_queue_with("o.other", true, other).await.unwrap();
    let runs = Record::new();
    let running = bench.consumer("o.other", quick(), recording(&runs, |_| async { Ok(()) })).start();
    let fine = bench.consume("o.fine", quick(), recording(&runs, |_| async { Ok(()) })).await;

    let error = waiting(&running).await;
    assert!(error.is_fatal());
    let text = error.to_string();
    for word in ["queue `o.other` (durable, no arguments)", "x-max-length", "set `declare` to `check`"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    bench.send("o.fine", "task", "1", "{}").await;
    runs.reaches(1).await;
    assert!(fine.is_ready() && !running.is_ready());

    bench.vhost.delete_queue("o.other").await.unwrap();
    within("ready once it is mended", running.ready()).await;
    let log = String::from_utf8(logs.lock().unwrap().clone()).unwrap();
    let reports = log.lines().filter(|line| line.contains("ERROR") && line.contains("\"o.other\"")).count();
    assert_eq!(reports, 1, "reported once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_reaches_nobody_keeps_its_task_unacked_until_it_does() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router = recording(&runs, |_| async { Ok(Outgoing::new("o.results", "key", Message::new("done", "yes"))) });
    let topology = Topology::new("o.results", "o.results", ExchangeKind::Direct, "key");
    bench.publisher.declare(&topology).await.unwrap();
    let _running = bench.consume("o.unroutable", one_worker(), router).await;
    let faults: [&str; 2] = ["unbound", "deleted"];
    for (n, fault) in faults.into_iter().enumerate() {
        match fault {
            "unbound" => bench.vhost.unbind("o.results", "o.results", "key").await.unwrap(),
            _ => bench.vhost.delete_exchange("o.results").await.unwrap(),
        }
        let failed = metric("jm_mq_publishes_total", &[("exchange", "o.results"), ("outcome", "unroutable")]);
        bench.send("o.unroutable", "task", &n.to_string(), "{}").await;
        metric_reaches("jm_mq_publishes_total", &[("exchange", "o.results"), ("outcome", "unroutable")], failed + 6.0)
            .await;
        assert!(!bench.vhost.queue_counts("o.unroutable").await.unwrap().is_empty());
        bench.publisher.declare(&topology).await.unwrap();
        bench.settled("o.unroutable").await;
        assert_eq!(bench.vhost.take_all("o.results").await.unwrap().len(), 1, "{fault}");
        assert_eq!(runs.len(), n + 1, "the handler's result was kept, and it ran once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_answer_keeps_its_task_and_a_full_dead_letter_queue_keeps_its_message() {
    let bench = Bench::shared().await;
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(1));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    bench.vhost.declare_queue_with("o.full", true, full.clone()).await.unwrap();
    bench.vhost.publish("o.full", BasicProperties::default(), b"in the way").await.unwrap();
    let runs = Record::new();
    let router = recording(&runs, |_| async { Ok(Outgoing::to_queue("o.full", Message::new("done", "yes"))) });
    let _running = bench.consume("o.refused", one_worker(), router).await;
    bench.send("o.refused", "task", "1", "{}").await;
    runs.reaches(1).await;
    metric_reaches("jm_mq_publishes_total", &[("exchange", ""), ("outcome", "refused")], 2.0).await;
    assert!(!bench.vhost.queue_counts("o.refused").await.unwrap().is_empty());
    bench.vhost.purge_queue("o.full").await.unwrap();
    bench.settled("o.refused").await;
    assert_eq!(runs.len(), 1);

    let policy = r#"{"max-length": 1, "overflow": "reject-publish"}"#;
    bench.vhost.set_policy("full", "^o\\.refused\\.dead$", policy).await.unwrap();
    bench.vhost.publish("o.refused.dead", BasicProperties::default(), b"in the way").await.unwrap();
    let refused = metric("jm_mq_publishes_total", &[("exchange", ""), ("outcome", "refused")]);
    bench.send("o.refused", "other", "2", "{}").await;
    metric_reaches("jm_mq_publishes_total", &[("exchange", ""), ("outcome", "refused")], refused + 2.0).await;
    assert!(!bench.vhost.queue_counts("o.refused").await.unwrap().is_empty());
    bench.vhost.purge_queue("o.refused.dead").await.unwrap();
    bench.settled("o.refused").await;
    assert_eq!(bench.vhost.take_all("o.refused.dead").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_queue_that_was_deleted_is_declared_again() {
    let bench = Bench::shared().await;
    let _running = bench.consume("o.redeclared", one_worker(), Router::new().on_type("task", ok)).await;
    bench.vhost.delete_queue("o.redeclared.dead").await.unwrap();
    bench.send("o.redeclared", "unknown", "1", "{}").await;
    assert_eq!(bench.dead("o.redeclared", 1).await.len(), 1);
    bench.settled("o.redeclared").await;
}

async fn ok(_: serde_json::Value, _: jm_mq_core::Context) -> Result<(), jm_mq_core::HandlerError> {
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_rights_are_clear_errors_and_are_recovered_from_without_a_restart_or_a_leaked_secret() {
    const CANARY: &str = "c4n@ry/:%-word";
    let logs = logs();
    let node = RabbitNode::shared().await.unwrap();
    let bench = Bench::on(node).await;
    let vhost = &bench.vhost;
    vhost.add_user("canary-user", CANARY).await.unwrap();
    vhost.set_permissions("canary-user", ".*", ".*", ".*").await.unwrap();
    let options =
        BrokerOptions { name: "canary-user".into(), password: CANARY.into(), ..broker_options(vhost, node.port()) };
    let bench = Bench::with(vhost.clone(), options, PublisherOptions::default());
    let vhost = &bench.vhost;
    let runs = Record::new();
    let running = bench.consume("o.rights", quick(), recording(&runs, |_| async { Ok(()) })).await;
    let mut errors = Vec::new();
    for fault in ["permissions", "password", "vhost"] {
        match fault {
            "permissions" => vhost.clear_permissions("canary-user").await.unwrap(),
            "password" => vhost.change_password("canary-user", "another").await.unwrap(),
            _ => vhost.delete().await.unwrap(),
        }
        if fault != "vhost" {
            vhost.close_connections("on purpose").await.unwrap();
        }
        not_ready(&running).await;
        let mut states = running.states();
        let refused = |state: &ConsumerState| matches!(state, ConsumerState::Waiting { error } if error.is_fatal());
        let state = within("refused", states.wait_for(refused)).await.unwrap().clone();
        errors.push(format!("{fault}: {state:?}"));
        let ConsumerState::Waiting { error } = state else { unreachable!() };
        let text = error.to_string();
        assert!(text.contains("canary-user") || text.contains("permission"), "{fault}: {text}");
        match fault {
            "permissions" => vhost.set_permissions("canary-user", ".*", ".*", ".*").await.unwrap(),
            "password" => vhost.change_password("canary-user", CANARY).await.unwrap(),
            _ => {
                vhost.create().await.unwrap();
                vhost.set_permissions("canary-user", ".*", ".*", ".*").await.unwrap();
            }
        }
        within("ready again", running.ready()).await;
    }
    bench.send("o.rights", "task", "1", "{}").await;
    runs.reaches(1).await;
    let log = String::from_utf8(logs.lock().unwrap().clone()).unwrap();
    let escaped = "c4n%40ry%2F%3A%25%2Dword";
    for output in errors.iter().chain([&log, &format!("{:?} {:?}", bench.broker, running)]) {
        assert!(!output.contains(CANARY) && !output.contains(escaped), "{output}");
    }
    assert!(log.contains("o.rights"), "the log was looked at");
}
