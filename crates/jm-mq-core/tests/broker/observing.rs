//! What operators see: metrics, and the logs of failures.

use std::time::Duration;

use jm_mq_core::{
    ConsumerOptions, ConsumerState, HandlerError, Message, Outgoing, PublisherOptions, Router, Topology, metrics,
};
use jm_testkit::{RabbitNode, TcpProxy};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::support::{
    Bench, Gate, Record, broker_options, held, logs, metric, metric_becomes, metric_reaches, one_worker, quick,
    recording, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_counted_is_there_at_0_before_it_happens() {
    let bench = Bench::shared().await;
    let router = Router::new().on_type("task", async |(): (), _| Ok::<_, HandlerError>(()));
    let consumer = bench.consumer("m.zero", quick(), router);
    let _consumer = consumer.answering_to(Topology::work_queue("m.zero.answers")).unwrap();
    let rendered = crate::support::metrics().render();
    for (family, label, values) in [
        (
            metrics::DEAD_LETTERS,
            "kind",
            &["permanent", "exhausted", "timeout", "panic", "undecodable", "unknown_type", "too_large", "poison"][..],
        ),
        (metrics::RECONNECTS, "reason", &["lost", "cancelled", "panic"]),
        (metrics::NACKS, "requeue", &["true", "false"]),
        (metrics::LOST_ACKS, "reason", &["channel", "write"]),
        (metrics::KEPT_RESULTS, "fate", &["used", "evicted"]),
    ] {
        for value in values {
            let series = format!("{family}{{queue=\"m.zero\",{label}=\"{value}\"}} 0");
            assert!(rendered.lines().any(|line| line == series), "no {series}");
        }
    }
    for exchange in ["m.zero.answers", metrics::DEFAULT_EXCHANGE] {
        for outcome in ["confirmed", "unroutable", "refused", "timed_out", "not_connected", "invalid", "forbidden"] {
            let series = format!("{}{{exchange=\"{exchange}\",outcome=\"{outcome}\"}} ", metrics::PUBLISHES);
            let found = rendered.lines().find(|line| line.starts_with(&series));
            // Other tests publish to the default exchange too.
            let count = found.and_then(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("no {series}"));
            assert!(count == "0" || exchange == metrics::DEFAULT_EXCHANGE, "{series}{count}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_is_1_from_the_order_to_stop_until_the_last_handler_has_ended() {
    let bench = Bench::shared().await;
    let queue = [("queue", "m.draining")];
    let runs = Record::new();
    let gate = Gate::closed();
    let running = bench.consume("m.draining", one_worker(), held(&runs, &gate)).await;
    bench.send("m.draining", "task", "1", "{}").await;
    runs.reaches(1).await;
    assert!(metric(metrics::DRAINING, &queue).abs() < f64::EPSILON);
    let mut states = running.states();
    let shutdown = tokio::spawn(running.shutdown());
    within("draining", states.wait_for(|state| matches!(state, ConsumerState::Draining))).await.unwrap();
    assert!((metric(metrics::DRAINING, &queue) - 1.0).abs() < f64::EPSILON);
    gate.open();
    within("drained", shutdown).await.unwrap();
    metric_becomes(metrics::DRAINING, &queue, 0.0).await;
}

/// On one thread, so that its recorder sees its own publisher alone.
#[tokio::test]
async fn a_publishers_channels_are_leased_or_idle_and_gone_with_it() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = ::metrics::set_default_local_recorder(&recorder);
    let series = |name: &str| {
        let rendered = recorder.handle().render();
        let value = rendered.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        value.unwrap_or_else(|| panic!("no {name} in {rendered}")).trim().parse::<u32>().unwrap()
    };
    let channels = || {
        let of = |state: &str| series(&format!("{}{{state=\"{state}\"}}", metrics::PUBLISHER_CHANNELS));
        (of("leased"), of("idle"), series(&format!("{} ", metrics::PUBLISHER_CHANNELS_MAX)))
    };
    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await.unwrap();
    let options = PublisherOptions { channels: 3, ..PublisherOptions::default() };
    let bench = Bench::with(vhost.clone(), broker_options(&vhost, proxy.port()), options);
    assert_eq!(channels(), (0, 0, 3));
    bench.publisher.declare(&Topology::work_queue("m.channels")).await.unwrap();
    assert_eq!(channels(), (0, 1, 3));

    proxy.stall(true);
    let message = Outgoing::new("m.channels", "m.channels", Message::new("task", "{}"));
    {
        let publish = bench.publisher.publish(&message);
        tokio::pin!(publish);
        // Polled once, it waits for its confirm.
        assert!(futures_util::poll!(&mut publish).is_pending());
        assert_eq!(channels(), (1, 0, 3));
        proxy.stall(false);
        within("confirmed", publish).await.unwrap();
    }
    assert_eq!(channels(), (0, 1, 3));

    // One that nobody waits for any more is thrown away with its channel.
    proxy.stall(true);
    {
        let given_up = bench.publisher.publish(&message);
        tokio::pin!(given_up);
        assert!(futures_util::poll!(&mut given_up).is_pending());
        assert_eq!(channels(), (1, 0, 3));
    }
    assert_eq!(channels(), (0, 0, 3));
    proxy.stall(false);
    bench.publisher.publish(&message).await.unwrap();
    assert_eq!(channels(), (0, 1, 3));
    drop(bench);
    assert_eq!(channels(), (0, 0, 0));
}

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
    metric_becomes(metrics::CONSUMER_TIMEOUT_SECONDS, &queue, 1800.0).await;
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
        for gauge in [metrics::IN_FLIGHT, metrics::CONSUMER_READY, metrics::DRAINING, metrics::WORKERS] {
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
        metrics::DRAINING,
        metrics::OLDEST_UNACKED_SECONDS,
        metrics::CONSUMER_TIMEOUT_SECONDS,
        metrics::RECONNECTS,
        metrics::LOST_ACKS,
        metrics::KEPT_RESULTS,
        metrics::PUBLISHES,
        metrics::REPLIES,
        metrics::PUBLISH_CONFIRM_SECONDS,
        metrics::PUBLISHER_CHANNELS,
        metrics::PUBLISHER_CHANNELS_MAX,
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
