//! What depends on the queue's type: that a stream is no work queue, and what a consumer announces where it may.

use std::time::Duration;

use jm_mq_core::{Consumer, ConsumerOptions, Declare, Router, RunningConsumer, Topology};
use jm_testkit::RabbitNode;
use lapin::types::{AMQPValue, FieldTable};

use crate::support::{
    Bench, Gate, LIMIT, Record, held, logs, metric, metric_becomes, metric_reaches, one_worker, quick, recording,
    waiting, within,
};

async fn declare(bench: &Bench, queue: &str, kind: &str) -> Topology {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    bench.vhost.declare_queue_with(queue, true, arguments).await.unwrap();
    bench.vhost.declare_queue(&format!("{queue}.dead")).await.unwrap();
    Topology { queue: queue.into(), declare: Declare::Check, ..Topology::default() }
}

fn start(bench: &Bench, topology: Topology, options: ConsumerOptions, router: Router) -> RunningConsumer {
    Consumer::new(&bench.broker, &bench.publisher, topology, options, router).unwrap().start()
}

/// Whether a quorum queue's consumer has a timeout of its own, and classic queues have none.
async fn takes_timeouts(node: &RabbitNode) -> bool {
    let version = node.version().await.unwrap();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (4, 3)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_one_clear_error_with_slow_retries_and_nothing_of_it_is_run() {
    let logs = logs();
    let bench = Bench::shared().await;
    let topology = declare(&bench, "q.stream", "stream").await;
    for n in 0..5 {
        bench.send("q.stream", "task", &n.to_string(), "{}").await;
    }
    let runs = Record::new();
    let running = start(&bench, topology, quick(), recording(&runs, |_| async { Ok(()) }));
    let error = waiting(&running).await;
    assert!(error.is_fatal() && !running.is_ready(), "{error}");
    let text = error.to_string();
    for word in ["queue `q.stream`", "stream", "classic or quorum queue"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let mut states = running.states();
    for _ in 0..4 {
        within("another attempt", states.changed()).await.unwrap();
    }
    assert_eq!(runs.len(), 0);
    let log = String::from_utf8(logs.lock().unwrap().clone()).unwrap();
    let reports = log.lines().filter(|line| line.contains("ERROR") && line.contains("\"q.stream\"")).count();
    assert_eq!(reports, 1, "reported once");
    within("stopped", running.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumers_timeout_is_announced_where_the_broker_takes_it_and_told_from_a_deleted_queue() {
    // Shorter than the workers are told: it holds where they cannot announce theirs.
    let timeouts = "[{rabbit, [{consumer_timeout, 2000}, {channel_tick_interval, 500}]}].";
    let node = RabbitNode::builder().advanced_config(timeouts).start().await.unwrap();
    let bench = Bench::on(&node).await;
    let topology = declare(&bench, "q.timeout", "quorum").await;
    let (runs, gate) = (Record::new(), Gate::closed());
    let options = ConsumerOptions { handler_timeout: Duration::ZERO, ..one_worker() };
    let running = start(&bench, topology, options, held(&runs, &gate));
    within("ready", running.ready()).await;
    bench.send("q.timeout", "task", "1", "{}").await;
    runs.reaches(1).await;
    let of_reason = |reason| metric("jm_mq_reconnects_total", &[("queue", "q.timeout"), ("reason", reason)]);
    if takes_timeouts(&node).await {
        let consumers = format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"q.timeout\">>)), rabbit_amqqueue:consumers(Q)",
            bench.vhost.name
        );
        let consumers = node.eval(&consumers).await.unwrap();
        assert!(consumers.contains("x-consumer-timeout") && consumers.contains("1800000"), "{consumers}");
        // The broker's own limit passes, and nothing happens.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(of_reason("timeout") < 0.5 && running.is_ready());
    } else {
        metric_reaches("jm_mq_reconnects_total", &[("queue", "q.timeout"), ("reason", "timeout")], 1.0).await;
    }
    gate.open();
    bench.settled("q.timeout").await;
    within("ready", running.ready()).await;
    bench.vhost.delete_queue("q.timeout").await.unwrap();
    metric_becomes("jm_mq_reconnects_total", &[("queue", "q.timeout"), ("reason", "cancelled")], 1.0).await;
}

/// On one thread, which the handler blocks: the worker can neither look at its time budget nor hand anything back.
#[tokio::test]
async fn a_consumer_that_the_broker_cancels_for_its_timeout_is_reported_as_such() {
    let logs = logs();
    let node = RabbitNode::builder()
        .advanced_config("[{rabbit, [{consumer_timeout, 1000}, {channel_tick_interval, 300}]}].")
        .start()
        .await
        .unwrap();
    let bench = Bench::on(&node).await;
    let topology = declare(&bench, "q.overrun", "quorum").await;
    let runs = Record::new();
    let router = recording(&runs, |cx| async move {
        if !cx.envelope().redelivered() {
            std::thread::sleep(Duration::from_millis(2500));
        }
        Ok(())
    });
    let options = ConsumerOptions { consumer_timeout: Duration::from_secs(1), ..one_worker() };
    let running = start(&bench, topology, options, router);
    within("ready", running.ready()).await;
    bench.send("q.overrun", "task", "1", "{}").await;
    metric_becomes("jm_mq_reconnects_total", &[("queue", "q.overrun"), ("reason", "timeout")], 1.0).await;
    bench.vhost.wait_for_counts("q.overrun", LIMIT, jm_testkit::QueueCounts::is_empty).await.unwrap();
    let log = String::from_utf8(logs.lock().unwrap().clone()).unwrap();
    let reconnects = |line: &&str| line.contains("reconnecting") && line.contains("\"q.overrun\"");
    let report = log.lines().find(reconnects).unwrap_or_default();
    for word in ["reason=\"timeout\"", "consumer_timeout (1s here", "handler_timeout"] {
        assert!(report.contains(word), "{word}: {report}");
    }
}
