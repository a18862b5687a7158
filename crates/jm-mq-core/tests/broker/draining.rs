//! Shutdown: what runs may finish, the rest goes back, and nothing stays unacked.

use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use jm_mq_core::{ConsumerOptions, Message, Outgoing};
use jm_testkit::{QueueCounts, TcpProxy};
use lapin::BasicProperties;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::support::{Bench, Gate, LIMIT, Record, held, metric_reaches, one_worker, quick, recording, within};

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_consumer_drains_at_once() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let running = bench.consume("d.idle", quick(), recording(&runs, |_| async { Ok(()) })).await;
    let report = within("drained", running.shutdown()).await;
    assert!(report.took < Duration::from_secs(1), "{report:?}");
    assert_eq!((report.handed_back, report.cut_off), (0, 0));
    assert_eq!(bench.left("d.idle").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_handlers_finish_and_buffered_deliveries_go_back_within_a_second() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let gate = Gate::closed();
    let router = held(&runs, &gate);
    let running = bench.consume("d.buffered", quick(), router).await;
    let task =
        |n: usize| (BasicProperties::default().with_type("task".into()).with_message_id(n.to_string().into()), "{}");
    bench.vhost.publish_many("d.buffered", (0..50).map(task)).await.unwrap();
    bench.vhost.wait_for_counts("d.buffered", LIMIT, |counts| counts.unacked == 50).await.unwrap();
    runs.reaches(10).await;

    let begun = Instant::now();
    let shutdown = tokio::spawn(running.shutdown());
    bench
        .vhost
        .wait_for_counts("d.buffered", LIMIT, |counts| {
            counts.ready == 40 && counts.unacked == 10 && counts.consumers == 0
        })
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    gate.open();
    let report = within("drained", shutdown).await.unwrap();
    assert_eq!((report.handed_back, report.cut_off), (40, 0));
    assert_eq!(runs.len(), 10, "nothing was started after the cancellation");
    assert_eq!(bench.left("d.buffered").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_quick_messages_does_not_keep_a_drain_from_beginning() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let task =
        |n: usize| (BasicProperties::default().with_type("task".into()).with_message_id(n.to_string().into()), "{}");
    bench.vhost.declare_queue("d.flood").await.unwrap();
    bench.vhost.publish_many("d.flood", (0..30_000).map(task)).await.unwrap();
    let options = ConsumerOptions { prefetch_per_worker: 100, ..quick() };
    let running = bench.consume("d.flood", options, recording(&runs, |_| async { Ok(()) })).await;
    runs.reaches(1000).await;
    let report = within("drained", running.shutdown()).await;
    assert!(report.took < Duration::from_secs(2), "{report:?}");
    let handled = runs.len() as u64;
    assert!(handled < 30_000, "the drain came in the middle");
    assert_eq!(bench.left("d.flood").await, 30_000 - handled, "each is handled or back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_runs_past_the_deadline_is_cut_off_and_its_message_goes_back() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let cancelled = Record::new();
    let router = recording(&runs, {
        let cancelled = cancelled.clone();
        move |cx| {
            let cancelled = cancelled.clone();
            async move {
                let token = cx.cancellation().clone();
                tokio::spawn(async move {
                    token.cancelled().await;
                    cancelled.add(());
                });
                std::future::pending::<Result<(), _>>().await
            }
        }
    });
    let options = ConsumerOptions { drain_timeout: Duration::from_millis(300), ..one_worker() };
    let running = bench.consume("d.deadline", options, router).await;
    bench.send("d.deadline", "task", "1", "{}").await;
    runs.reaches(1).await;
    let report = within("drained", running.shutdown()).await;
    assert_eq!(report.cut_off, 1);
    assert!(report.took >= Duration::from_millis(300) && report.took < Duration::from_secs(2), "{report:?}");
    cancelled.reaches(1).await;
    assert_eq!(bench.left("d.deadline").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_blocks_its_thread_past_the_deadline_does_not_hold_up_its_message() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Arc::new(std::sync::Mutex::new(blocked));
    let router = recording(&runs, move |_| {
        let blocked = blocked.clone();
        async move {
            // Until the test lets go of the other end.
            assert!(blocked.lock().unwrap().recv().is_err());
            Ok(())
        }
    });
    let options = ConsumerOptions { drain_timeout: Duration::from_millis(300), ..one_worker() };
    let running = bench.consume("d.blocked", options, router).await;
    bench.send("d.blocked", "task", "1", "{}").await;
    runs.reaches(1).await;
    let shutdown = tokio::spawn(running.shutdown());
    bench.vhost.wait_for_counts("d.blocked", LIMIT, |counts| counts.ready == 1 && counts.unacked == 0).await.unwrap();
    drop(release);
    assert_eq!(within("drained", shutdown).await.unwrap().cut_off, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_a_backoff_goes_back_at_once() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let options = ConsumerOptions { retry_base_delay: LIMIT * 4, retry_max_delay: LIMIT * 4, ..one_worker() };
    let router = recording(&runs, |_| async { Err::<(), _>("later".into()) });
    let running = bench.consume("d.backoff", options, router).await;
    bench.send("d.backoff", "task", "1", "{}").await;
    runs.reaches(1).await;
    let report = within("drained", running.shutdown()).await;
    assert!(report.took < Duration::from_secs(2), "{report:?}");
    assert_eq!(bench.left("d.backoff").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_reconnecting_stops_at_once() {
    let bench = Bench::shared().await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], bench.vhost.port).into()).await.unwrap();
    let bench = Bench::at(bench.vhost, proxy.port());
    let runs = Record::new();
    for fault in ["refused", "silent"] {
        proxy.heal();
        let running = bench.consume("d.reconnecting", quick(), recording(&runs, |_| async { Ok(()) })).await;
        let mut states = running.states();
        match fault {
            "refused" => proxy.refuse(true),
            _ => proxy.swallow(true),
        }
        proxy.cut();
        let away = |state: &jm_mq_core::ConsumerState| !matches!(state, jm_mq_core::ConsumerState::Ready);
        within("away", states.wait_for(away)).await.unwrap();
        let report = within("stopped", running.shutdown()).await;
        assert!(report.took < Duration::from_secs(2), "{fault}: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_published_does_not_hold_up_a_drain() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let options = ConsumerOptions { retry_base_delay: LIMIT * 4, retry_max_delay: LIMIT * 4, ..one_worker() };
    let router = recording(&runs, |_| async { Ok(Outgoing::to_queue("d.nowhere", Message::new("t", "b"))) });
    let running = bench.consume("d.unpublished", options, router).await;
    bench.send("d.unpublished", "task", "1", "{}").await;
    metric_reaches("jm_mq_handler_seconds_count", &[("queue", "d.unpublished"), ("outcome", "ok")], 1.0).await;
    let report = within("drained", running.shutdown()).await;
    assert!(report.took < Duration::from_secs(5), "{report:?}");
    assert_eq!(bench.left("d.unpublished").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_whose_connection_is_lost_ends_and_loses_nothing() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let gate = Gate::closed();
    let router = held(&runs, &gate);
    let running = bench.consume("d.lost", one_worker(), router).await;
    bench.send("d.lost", "task", "1", "{}").await;
    runs.reaches(1).await;
    let shutdown = tokio::spawn(running.shutdown());
    bench.vhost.wait_for_counts("d.lost", LIMIT, |counts| counts.consumers == 0).await.unwrap();
    bench.vhost.close_connections("on purpose").await.unwrap();
    within("ended", shutdown).await.unwrap();
    assert_eq!(bench.left("d.lost").await, 1);
}

/// The example worker as a process of its own.
struct WorkerProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

fn example(name: &str) -> PathBuf {
    let target = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let built = target.join("examples").join(name);
    assert!(built.exists(), "{} is missing: cargo build --examples", built.display());
    built
}

impl WorkerProcess {
    async fn start(bench: &Bench) -> Self {
        let mut child = Command::new(example("worker"))
            .env("AMQP_DSN", bench.vhost.uri())
            .env("NO_COLOR", "1")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut worker = Self { child, lines };
        worker.says("consuming", 1).await;
        worker
    }

    /// Reads on until that many lines contain `word`.
    async fn says(&mut self, word: &str, count: usize) {
        let mut seen = 0;
        while seen < count {
            let line = within(word, self.lines.next_line()).await.unwrap();
            seen += usize::from(line.unwrap_or_else(|| panic!("ended before it said {word:?}")).contains(word));
        }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().unwrap().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        within("ended", self.child.wait()).await.unwrap()
    }
}

async fn fifty_greetings(bench: &Bench, millis: u64) {
    let greet = BasicProperties::default().with_type("example.greet".into());
    let body = |n: usize| format!(r#"{{"name": "{n}", "millis": {millis}}}"#);
    bench.vhost.publish_many("example.greet", (0..50).map(|n| (greet.clone(), body(n)))).await.unwrap();
    bench.vhost.wait_for_counts("example.greet", LIMIT, |counts| counts.unacked == 50).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_work_together() {
    let bench = Bench::shared().await;
    let mut worker = WorkerProcess::start(&bench).await;
    let output = Command::new(example("publisher"))
        .args(["Ada", "", "王选"])
        .env("AMQP_DSN", bench.vhost.uri())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().matches("confirmed").count(), 3);
    bench.ready("example.greeted", 2).await;
    assert_eq!(bench.dead("example.greet", 1).await.len(), 1, "nobody to greet");
    worker.signal(nix::sys::signal::SIGTERM);
    assert_eq!(worker.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_a_process_and_it_exits_with_0() {
    let bench = Bench::shared().await;
    let mut worker = WorkerProcess::start(&bench).await;
    fifty_greetings(&bench, 2500).await;
    worker.signal(nix::sys::signal::SIGTERM);
    let begun = Instant::now();
    let back = |counts: &QueueCounts| counts.ready == 40 && counts.unacked == 10 && counts.consumers == 0;
    bench.vhost.wait_for_counts("example.greet", LIMIT, back).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(worker.ended().await.code(), Some(0));
    assert_eq!(bench.left("example.greet").await, 40, "ten were finished");
    bench.ready("example.greeted", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_process_at_once_and_the_broker_has_everything_back() {
    let bench = Bench::shared().await;
    let mut worker = WorkerProcess::start(&bench).await;
    fifty_greetings(&bench, 600_000).await;
    worker.signal(nix::sys::signal::SIGTERM);
    worker.says("draining", 1).await;
    worker.signal(nix::sys::signal::SIGINT);
    let begun = Instant::now();
    assert_eq!(worker.ended().await.code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    bench.ready("example.greet", 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing() {
    let bench = Bench::shared().await;
    let mut worker = WorkerProcess::start(&bench).await;
    fifty_greetings(&bench, 600_000).await;
    worker.signal(nix::sys::signal::SIGKILL);
    worker.ended().await;
    bench.ready("example.greet", 50).await;
}
