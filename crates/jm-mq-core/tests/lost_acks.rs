//! An ack that the broker never gets. In a process of its own, since it watches a gauge that all connections share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say so at once"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use jm_mq_core::{
    Broker, BrokerOptions, Consumer, ConsumerOptions, Context, HandlerError, Port, Publisher, PublisherOptions,
    RawMessage, Router, Topology,
};
use jm_testkit::{QueueCounts, RabbitNode};
use lapin::BasicProperties;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

const LIMIT: Duration = Duration::from_secs(30);

/// The sum of the samples whose line begins with `name` and has all of `labels` in it.
fn metric(recorder: &PrometheusHandle, name: &str, labels: &[&str]) -> f64 {
    let shown = recorder.render();
    let lines = shown.lines().filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Blocks its thread until something is so.
fn block_until(what: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < until, "{what} within {LIMIT:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// One thread for workers and channels: while the handler blocks it, nobody can notice that the connection is gone.
/// So the ack is made for a channel that is dead already.
#[tokio::test(flavor = "current_thread")]
async fn an_ack_on_a_dead_channel_is_counted_and_its_message_is_not_run_again() {
    let recorder = PrometheusBuilder::new().install_recorder().unwrap();
    let node = RabbitNode::start().await.unwrap();
    let vhost = node.vhost().await.unwrap();
    let options = BrokerOptions {
        port: Some(Port(vhost.port)),
        name: vhost.user.clone(),
        password: vhost.password.as_str().into(),
        vhost: vhost.name.clone(),
        ..BrokerOptions::default()
    };
    let broker = Broker::new(options).unwrap();
    let publisher = Publisher::new(&broker, PublisherOptions::default()).unwrap();
    let (runs, closing, shown) = (Arc::new(AtomicUsize::new(0)), Arc::new(vhost), recorder.clone());
    let (counted, vhost) = (Arc::clone(&runs), Arc::clone(&closing));
    let router = Router::new().fallback(move |_: RawMessage, _: Context| {
        counted.fetch_add(1, Ordering::SeqCst);
        let closing = Arc::clone(&closing);
        let close = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(closing.close_connections("on purpose")).unwrap();
        };
        thread::spawn(close).join().unwrap();
        let open = ["role=\"consumer\"", "state=\"open\""];
        block_until("the connection is gone", || metric(&shown, "jm_mq_connections", &open) < 0.5);
        async { Ok::<_, HandlerError>(()) }
    });
    let options = ConsumerOptions { concurrency: 1, ..ConsumerOptions::default() };
    let running = Consumer::new(&broker, &publisher, Topology::work_queue("lost"), options, router).unwrap().start();
    running.ready().await;
    vhost.publish("lost", BasicProperties::default().with_message_id("1".into()), b"{}").await.unwrap();
    vhost.wait_for_counts("lost", LIMIT, |counts: &QueueCounts| counts.consumers == 0).await.unwrap();
    vhost.wait_for_counts("lost", LIMIT, |counts| counts.is_empty() && counts.consumers == 1).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 1, "the redelivery needs nothing but its ack");
    running.shutdown().await;
    let of = |name, label| metric(&recorder, name, &["queue=\"lost\"", label]);
    assert!((of("jm_mq_lost_acks_total", "reason=\"write\"") - 1.0).abs() < f64::EPSILON, "{}", recorder.render());
    assert!((of("jm_mq_kept_results_total", "fate=\"used\"") - 1.0).abs() < f64::EPSILON, "{}", recorder.render());
}
