//! What operators see: metrics, and the logs of failures.

use std::time::Duration;

use jm_mq_core::{ConsumerOptions, HandlerError, Message, Outgoing, metrics};

use crate::support::{
    Bench, Gate, Record, held, logs, metric, metric_becomes, metric_reaches, one_worker, quick, recording, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_the_workers_and_what_they_hold_are_gauges() {
    let bench = Bench::shared().await;
    let queue = [("queue", "m.gauges")];
    let runs = Record::new();
    let gate = Gate::closed();
    let router = held(&runs, &gate);
    let options = ConsumerOptions { concurrency: 2, prefetch_per_worker: 2, ..quick() };
    let running = bench.consume("m.gauges", options, router).await;
    for n in 0..7 {
        bench.send("m.gauges", "task", &n.to_string(), "{}").await;
    }
    runs.reaches(2).await;
    metric_becomes(metrics::QUEUE_MESSAGES_READY, &queue, 3.0).await;
    metric_becomes(metrics::QUEUE_CONSUMERS, &queue, 2.0).await;
    metric_becomes(metrics::IN_FLIGHT, &queue, 2.0).await;
    metric_becomes(metrics::WORKERS, &queue, 2.0).await;
    metric_becomes(metrics::CONSUMER_READY, &queue, 1.0).await;
    metric_reaches(metrics::OLDEST_UNACKED_SECONDS, &queue, 1.0).await;
    assert!(metric(metrics::CONNECTIONS, &[("role", "consumer"), ("state", "open")]) >= 1.0);
    gate.open();
    bench.settled("m.gauges").await;
    metric_becomes(metrics::OLDEST_UNACKED_SECONDS, &queue, 0.0).await;
    metric_becomes(metrics::IN_FLIGHT, &queue, 0.0).await;
    metric_becomes("jm_mq_handler_seconds_count", &[queue[0], ("type", "task"), ("outcome", "ok")], 7.0).await;
    running.shutdown().await;
    metric_becomes(metrics::CONSUMER_READY, &queue, 0.0).await;
    metric_becomes(metrics::WORKERS, &queue, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_dropped_or_cut_off_leaves_no_gauge_behind() {
    let bench = Bench::shared().await;
    let queue = [("queue", "m.dropped")];
    let runs = Record::new();
    for drop_it in [true, false] {
        let router = recording(&runs, |_| async { std::future::pending::<Result<(), _>>().await });
        let options = ConsumerOptions { drain_timeout: Duration::from_millis(100), ..one_worker() };
        let running = bench.consume("m.dropped", options, router).await;
        bench.send("m.dropped", "task", "1", "{}").await;
        metric_becomes(metrics::IN_FLIGHT, &queue, 1.0).await;
        if drop_it {
            drop(running);
        } else {
            within("drained", running.shutdown()).await;
        }
        for gauge in [metrics::IN_FLIGHT, metrics::CONSUMER_READY, metrics::WORKERS] {
            metric_becomes(gauge, &queue, 0.0).await;
        }
        assert_eq!(bench.left("m.dropped").await, 1);
        bench.vhost.purge_queue("m.dropped").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_has_its_help_and_random_types_share_one_label() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let options = ConsumerOptions { max_retry_attempts: 1, ..one_worker() };
    let router =
        recording(&runs, |cx| async move { if cx.envelope().redelivered() { Ok(()) } else { Err("once".into()) } });
    let _running = bench.consume("m.all", options, router).await;
    bench.vhost.close_connections("on purpose").await.unwrap();
    metric_becomes(metrics::RECONNECTS, &[("queue", "m.all")], 1.0).await;
    bench.send("m.all", "task", "1", "{}").await;
    for n in 0..500 {
        bench.send("m.all", &format!("random-{n}"), "1", "{}").await;
    }
    bench.publisher.publish(&Outgoing::new("m.all", "m.all", Message::new("task", "{}"))).await.unwrap();
    bench.dead("m.all", 500).await;
    bench.settled("m.all").await;
    let dead = [("queue", "m.all"), ("type", "other"), ("outcome", "dead_letter")];
    metric_becomes(metrics::DELIVERIES, &dead, 500.0).await;
    let rendered = crate::support::metrics().render();
    assert!(!rendered.contains("random-"));
    let families = [
        metrics::QUEUE_MESSAGES_READY,
        metrics::QUEUE_CONSUMERS,
        metrics::DELIVERIES,
        metrics::HANDLER_SECONDS,
        metrics::RETRIES,
        metrics::CONNECTIONS,
        metrics::CONNECTION_BLOCKED,
        metrics::NACKS,
        metrics::DEAD_LETTERS,
        metrics::IN_FLIGHT,
        metrics::WORKERS,
        metrics::CONSUMER_READY,
        metrics::OLDEST_UNACKED_SECONDS,
        metrics::RECONNECTS,
        metrics::LOST_ACKS,
        metrics::KEPT_RESULTS,
        metrics::PUBLISHES,
        metrics::PUBLISH_CONFIRM_SECONDS,
    ];
    for family in families {
        assert!(rendered.contains(&format!("# HELP {family} ")), "{family} has no description");
        assert!(rendered.lines().any(|line| line.starts_with(family)), "{family} has no series");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_runs_are_warnings_and_final_failures_errors_once_each_and_without_the_body() {
    let logs = logs();
    let bench = Bench::shared().await;
    let runs = Record::new();
    let options = ConsumerOptions { max_retry_attempts: 2, ..one_worker() };
    let router = recording(&runs, |cx| async move {
        if cx.envelope().redelivered() { Ok(()) } else { Err::<(), _>(HandlerError::retryable("engine is busy")) }
    });
    let _running = bench.consume("m.logged", options, router).await;
    bench.send("m.logged", "task", "id-17", r#"{"private": "diary"}"#).await;
    bench.settled("m.logged").await;
    let log = String::from_utf8(logs.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("id-17") && line.contains("m.logged")).collect();
    let count = |level: &str| lines.iter().filter(|line| line.contains(level)).count();
    assert_eq!((count("WARN"), count("ERROR")), (2, 1), "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("engine is busy")), "{lines:#?}");
    assert!(!log.contains("diary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_with_other_type_names_are_served_by_an_option() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let options = ConsumerOptions { type_aliases: [("summary".to_owned(), "task".to_owned())].into(), ..one_worker() };
    let _running = bench.consume("m.alias", options, recording(&runs, |_| async { Ok(()) })).await;
    bench.send("m.alias", "summary", "1", "{}").await;
    runs.reaches(1).await;
    metric_becomes(metrics::DELIVERIES, &[("queue", "m.alias"), ("type", "task"), ("outcome", "ack")], 1.0).await;
}
