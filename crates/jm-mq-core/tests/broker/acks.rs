//! What may be promised of acks that are not waited for: none is late, none is lost unseen, none takes another along.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use jm_mq_core::ConsumerOptions;
use lapin::BasicProperties;

use crate::support::{Bench, Gate, LIMIT, Record, metric, one_worker, quick, recording, within};

/// Shorter than a tick of the time budget.
const SOON: Duration = Duration::from_secs(3);

fn task(n: usize) -> (BasicProperties, &'static str) {
    (BasicProperties::default().with_type("task".into()).with_message_id(n.to_string().into()), "{}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_a_handler_waits_is_acked_while_it_waits() {
    let bench = Bench::shared().await;
    let (runs, gate) = (Record::new(), Gate::closed());
    let hold = gate.clone();
    let router = recording(&runs, move |cx| {
        let hold = hold.clone();
        async move {
            // In the middle of what was sent ahead: others wait behind it.
            if cx.message_id() == Some("7") {
                hold.passed().await;
            }
            Ok(())
        }
    });
    bench.vhost.declare_queue("a.waits").await.unwrap();
    bench.vhost.publish_many("a.waits", (0..20).map(task)).await.unwrap();
    let options = ConsumerOptions { prefetch_per_worker: 50, ..one_worker() };
    let _running = bench.consume("a.waits", options, router).await;
    within("the eighth holds its worker", runs.reaches(8)).await;
    // Long before the channel's task looks after what was forgotten.
    bench.vhost.wait_for_counts("a.waits", SOON, |counts| counts.unacked == 13).await.unwrap();
    gate.open();
    bench.settled("a.waits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_blocks_its_thread_delays_neither_earlier_acks_nor_its_siblings() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let router = recording(&runs, move |cx| {
        let blocked = blocked.clone();
        async move {
            if cx.message_id() == Some("7") {
                // Until the test lets go of the other end.
                assert!(blocked.lock().unwrap().recv().is_err());
            }
            Ok(())
        }
    });
    bench.vhost.declare_queue("a.blocks").await.unwrap();
    bench.vhost.publish_many("a.blocks", (0..8).map(task)).await.unwrap();
    let options = ConsumerOptions { concurrency: 2, prefetch_per_worker: 50, ..quick() };
    let _running = bench.consume("a.blocks", options, router).await;
    bench.vhost.wait_for_counts("a.blocks", LIMIT, |counts| counts.unacked == 1).await.unwrap();
    // The broker sends to both in turn; what goes to the blocked one waits behind it.
    bench.vhost.publish_many("a.blocks", (8..12).map(task)).await.unwrap();
    bench.vhost.wait_for_counts("a.blocks", LIMIT, |counts| counts.ready == 0 && counts.unacked <= 3).await.unwrap();
    drop(release);
    bench.settled("a.blocks").await;
    assert_eq!(runs.len(), 12);
}

/// All of the application's runtime is blocked, which has one thread: nothing of it can look after the acks.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_sleeps_on_the_only_thread_right_after_quick_ones_does_not_delay_their_acks() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("a.sleeps").await.unwrap();
    bench.vhost.publish_many("a.sleeps", (0..20).map(task)).await.unwrap();
    let (runs, slept) = (Record::new(), Record::new());
    let router = recording(&runs, {
        let slept = slept.clone();
        move |cx| {
            if cx.message_id() == Some("7") {
                std::thread::sleep(2 * SOON);
                slept.add(());
            }
            async { Ok(()) }
        }
    });
    let options = ConsumerOptions { prefetch_per_worker: 50, ..one_worker() };
    let (consumer, (drain, drained)) = (bench.consumer("a.sleeps", options, router), tokio::sync::oneshot::channel());
    let application = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(consumer.run_until(async { drained.await.unwrap() }))
    });
    bench.vhost.wait_for_counts("a.sleeps", SOON, |counts| counts.unacked == 13).await.unwrap();
    assert_eq!((runs.len(), slept.len()), (8, 0), "it still sleeps");
    bench.settled("a.sleeps").await;
    drain.send(()).unwrap();
    tokio::task::spawn_blocking(|| application.join().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_that_become_one_settle_what_was_handled_and_nothing_else() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router = recording(&runs, |cx| async move {
        // Every tenth is handed back once: a nack between acks.
        let id: usize = cx.message_id().unwrap_or_default().parse().map_err(|_| "no number")?;
        if id % 10 == 3 && !cx.envelope().redelivered() { Err("later".into()) } else { Ok(()) }
    });
    bench.vhost.declare_queue("a.mixed").await.unwrap();
    bench.vhost.publish_many("a.mixed", (0..3000).map(task)).await.unwrap();
    let options = ConsumerOptions {
        concurrency: 3,
        prefetch_per_worker: 40,
        max_retry_attempts: 0,
        nack_requeue: true,
        ..quick()
    };
    let running = bench.consume("a.mixed", options, router).await;
    runs.reaches(3300).await;
    bench.settled("a.mixed").await;
    let mut ids: Vec<usize> = runs.all().into_iter().map(|(id, _)| id.parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids.len(), 3300, "each once, and once more what was handed back");
    ids.dedup();
    assert_eq!(ids, (0..3000).collect::<Vec<_>>());
    within("drained", running.shutdown()).await;
    for (name, labels) in [("jm_mq_lost_acks_total", "queue"), ("jm_mq_reconnects_total", "queue")] {
        assert!(metric(name, &[(labels, "a.mixed")]).abs() < f64::EPSILON, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_writes_every_ack_that_was_still_waiting_for_company() {
    let bench = Bench::shared().await;
    bench.vhost.declare_queue("a.drain").await.unwrap();
    bench.vhost.publish_many("a.drain", (0..20_000).map(task)).await.unwrap();
    let mut handled = 0;
    let mut left = 20_000;
    // Each drain comes at another moment.
    for n in 1..=8 {
        let runs = Record::new();
        let options = ConsumerOptions { concurrency: 2, prefetch_per_worker: 64, ..quick() };
        let running = bench.consume("a.drain", options, recording(&runs, |_| async { Ok(()) })).await;
        runs.reaches(n * 37).await;
        within("drained", running.shutdown()).await;
        handled += runs.len() as u64;
        let was = left;
        left = bench.left("a.drain").await;
        assert_eq!(was - left, runs.len() as u64, "what was handled is acked, and nothing else is");
    }
    assert_eq!(handled + left, 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drain_waited_for_is_acked_before_its_channel_is_closed() {
    let bench = Bench::shared().await;
    let (runs, gate) = (Record::new(), Gate::closed());
    let hold = gate.clone();
    let router = recording(&runs, move |cx| {
        let hold = hold.clone();
        async move {
            // In the middle of a stream, where acks wait for each other.
            if cx.message_id() == Some("1000") {
                hold.passed().await;
            }
            Ok(())
        }
    });
    bench.vhost.declare_queue("a.waited").await.unwrap();
    bench.vhost.publish_many("a.waited", (0..2000).map(task)).await.unwrap();
    let options = ConsumerOptions { prefetch_per_worker: 64, ..one_worker() };
    let running = bench.consume("a.waited", options, router).await;
    within("it is reached", runs.reaches(1001)).await;
    let drain = tokio::spawn(running.shutdown());
    bench.vhost.wait_for_counts("a.waited", LIMIT, |counts| (counts.ready, counts.unacked) == (999, 1)).await.unwrap();
    gate.open();
    let report = within("drained", drain).await.unwrap();
    assert_eq!((bench.left("a.waited").await, report.cut_off), (999, 0));
}
