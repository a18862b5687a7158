//! Logs and metrics.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::process::Command;

use crate::support::{ANSWERS, LIMIT, TASKS, program, ready, send, vhost, worker};

/// As the tests were built, and the worker with them.
const REVISION: &str = match option_env!("JM_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

#[tokio::test(flavor = "multi_thread")]
async fn every_log_line_is_json_where_nobody_watches_and_holds_neither_bodies_nor_secrets() {
    let vhost = vhost().await;
    let worker = ready(worker().vhost(&vhost).env("JM_LOG__LEVEL", "trace")).await;
    send(&vhost, "wrong\r\n\u{1b}[31mid\u{9b}2J\u{202e}\u{7f}", r#"{"name":["canary body"]}"#).await;
    send(&vhost, "right", r#"{"name":"canary body"}"#).await;
    vhost.wait_for_counts(ANSWERS, LIMIT, |counts| counts.ready == 1).await.unwrap();
    vhost.wait_for_counts(&format!("{TASKS}.dead"), LIMIT, |counts| counts.ready == 1).await.unwrap();
    worker.terminate().unwrap();
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
    let logged = worker.stdout();
    let lines: Vec<Value> =
        logged.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let dead: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "undecodable").collect();
    let [dead] = dead[..] else { panic!("{dead:?}") };
    assert_eq!((&dead["level"], &dead["queue"]), (&"ERROR".into(), &TASKS.into()));
    assert!(dead["error"].as_str().unwrap().contains(": name: invalid type: "), "{dead}");
    assert!(lines.iter().any(|line| line["message"] == "drained"));
    let is_plain = |letter: char| letter == '\n' || !jm_service::escape::is_obeyed(letter);
    assert!(logged.chars().all(is_plain) && logged.contains("\\u009b2J\\u202e\\u007f"), "{logged}");
    assert!(!logged.contains("canary body") && !logged.contains(&vhost.password), "{logged}");
    assert_eq!(worker.stderr(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_the_queue_the_handler_and_the_process() {
    let vhost = vhost().await;
    let worker = ready(worker().vhost(&vhost).env("JM_CONSUMER__BACKLOG_INTERVAL", "100ms")).await;
    send(&vhost, "1", r#"{"name":"Ada"}"#).await;
    send(&vhost, "2", r#"{"name":""}"#).await;
    let of_queue = ("queue", TASKS);
    worker.wait_for_metric("jm_mq_deliveries_total", &[of_queue, ("outcome", "ack")], 1.0, LIMIT).await.unwrap();
    worker.wait_for_metric("jm_mq_dead_letters_total", &[of_queue, ("kind", "permanent")], 1.0, LIMIT).await.unwrap();
    worker.wait_for_metric("jm_mq_queue_consumers", &[of_queue], 4.0, LIMIT).await.unwrap();
    for (name, labels) in [
        ("jm_mq_handler_seconds_bucket", &[of_queue, ("type", "example.greet"), ("le", "0.25")][..]),
        ("jm_mq_publishes_total", &[("exchange", ANSWERS), ("outcome", "confirmed")]),
        ("jm_mq_consumer_ready", &[of_queue]),
        ("process_resident_memory_bytes", &[]),
        ("process_threads", &[]),
    ] {
        let value = worker.metric(name, labels).await.unwrap();
        assert!(value.is_some_and(|value| value > 0.0), "{name} {labels:?} is {value:?}");
    }
    // One answer and one dead letter, each on the channel that was free.
    let idle = [("state", "idle")];
    worker.wait_for_metric("jm_mq_publisher_channels", &idle, 1.0, LIMIT).await.unwrap();
    for (name, labels, expected) in [
        (
            "jm_build_info",
            &[("worker", "greet-worker"), ("version", env!("CARGO_PKG_VERSION")), ("revision", REVISION)][..],
            1.0,
        ),
        ("jm_mq_publisher_channels", &[("state", "leased")], 0.0),
        ("jm_mq_publisher_channels_max", &[], 16.0),
        ("jm_mq_consumer_timeout_seconds", &[of_queue], 1800.0),
        ("jm_mq_draining", &[of_queue], 0.0),
        ("jm_mq_dead_letters_total", &[of_queue, ("kind", "poison")], 0.0),
        ("jm_mq_reconnects_total", &[of_queue, ("reason", "lost")], 0.0),
        ("jm_mq_publishes_total", &[("exchange", ANSWERS), ("outcome", "unroutable")], 0.0),
        ("jm_mq_publishes_total", &[("exchange", "amq.default"), ("outcome", "confirmed")], 1.0),
    ] {
        assert_eq!(worker.metric(name, labels).await.unwrap(), Some(expected), "{name} {labels:?}");
    }
    let text = worker.metrics().await.unwrap();
    assert!(text.contains("# HELP jm_mq_retries_total ") && text.contains("# TYPE jm_mq_handler_seconds histogram"));
    let (status, body) = worker.get("/nothing").await.unwrap();
    assert_eq!((status, body.contains("/health/ready")), (404, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_that_never_read_and_two_hundred_at_once_hold_up_nothing() {
    let vhost = vhost().await;
    let worker = ready(worker().vhost(&vhost)).await;
    let silent: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", worker.http_port())).unwrap();
            // Many pages in a row, of which not one byte is read.
            stream.write_all(&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200)).unwrap();
            stream
        })
        .collect();
    let scrapes = (0..200).map(|_| worker.metrics());
    let scraped = tokio::time::timeout(LIMIT, futures_util::future::join_all(scrapes)).await.unwrap();
    assert!(scraped.iter().all(|text| text.as_ref().is_ok_and(|text| text.contains("jm_mq_consumer_ready"))));
    send(&vhost, "1", r#"{"name":"Ada"}"#).await;
    vhost.wait_for_counts(ANSWERS, Duration::from_secs(5), |counts| counts.ready == 1).await.unwrap();
    assert!(worker.ready().await);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_more_headers_than_anybody_sends_is_refused() {
    let vhost = vhost().await;
    let worker = ready(worker().vhost(&vhost)).await;
    let answer = |headers: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", worker.http_port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // It may be refused before all of it is written.
        let _ = stream.write_all(format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes());
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).unwrap_or(0);
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    assert!(answer(&"a: b\r\n".repeat(60)).starts_with("HTTP/1.1 200"));
    for headers in ["a: b\r\n".repeat(70), format!("a: {}\r\n", "b".repeat(17 * 1024))] {
        let answer = answer(&headers);
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_read_the_logs_holds_up_nothing() {
    let vhost = vhost().await;
    // The output goes into a pipe that nobody reads, so the kit's process, which reads all the time, will not do.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut sleeper = Command::new(program())
        .env_clear()
        .envs([
            ("JM_RABBITMQ__NAME", &vhost.user),
            ("JM_RABBITMQ__PASSWORD", &vhost.password),
            ("JM_RABBITMQ__VHOST", &vhost.name),
        ])
        .env("JM_RABBITMQ__PORT", vhost.port.to_string())
        .env("JM_HTTP__LISTEN", address.to_string())
        .env("JM_LOG__LEVEL", "trace")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    vhost.wait_for_counts(TASKS, LIMIT, |counts| counts.consumers == 4).await.unwrap();
    // A line for each task and more, far beyond what a pipe holds.
    let task = || (lapin::BasicProperties::default().with_type("example.greet".into()), br#"{"name":"Ada"}"#);
    vhost.publish_many(TASKS, std::iter::repeat_with(task).take(3000)).await.unwrap();
    vhost.wait_for_counts(ANSWERS, LIMIT, |counts| counts.ready == 3000).await.unwrap();
    let mut probe = TcpStream::connect(address).unwrap();
    probe.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    probe.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let pid = nix::unistd::Pid::from_raw(sleeper.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = tokio::time::timeout(LIMIT, sleeper.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_level_makes_the_broker_client_print_bodies() {
    let vhost = vhost().await;
    let worker = ready(worker().vhost(&vhost).env("JM_LOG__LEVEL", "trace,lapin=trace,lapin::channel=trace")).await;
    send(&vhost, "1", r#"{"name":"Ada"}"#).await;
    vhost.wait_for_counts(ANSWERS, LIMIT, |counts| counts.ready == 1).await.unwrap();
    worker.wait_for_log("greeting", LIMIT).await.unwrap();
    assert!(
        worker.stdout().contains("TRACE") && !worker.stdout().contains("\"target\":\"lapin"),
        "{}",
        worker.stdout()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_that_a_full_disk_does_not_take_are_counted() {
    let vhost = vhost().await;
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut worker = Command::new(program())
        .env_clear()
        .envs([
            ("JM_RABBITMQ__NAME", &vhost.user),
            ("JM_RABBITMQ__PASSWORD", &vhost.password),
            ("JM_RABBITMQ__VHOST", &vhost.name),
        ])
        .env("JM_RABBITMQ__PORT", vhost.port.to_string())
        .env("JM_HTTP__LISTEN", address.to_string())
        .stdout(full)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    vhost.wait_for_counts(TASKS, LIMIT, |counts| counts.consumers == 4).await.unwrap();
    let scraped = async {
        loop {
            let mut scrape = TcpStream::connect(address).unwrap();
            scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut page = String::new();
            scrape.read_to_string(&mut page).unwrap();
            let count = page.lines().find_map(|line| line.strip_prefix("jm_log_lines_dropped_total "));
            if count.and_then(|count| count.parse().ok()).unwrap_or(0_u64) > 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, scraped).await.expect("what was logged at the start is counted");
    let pid = nix::unistd::Pid::from_raw(worker.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(tokio::time::timeout(LIMIT, worker.wait()).await.unwrap().unwrap().code(), Some(0));
}
