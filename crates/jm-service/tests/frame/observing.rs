//! Logs and metrics.

use std::{net::TcpStream, time::Duration};

use serde_json::Value;

use crate::support::{ANSWERS, LIMIT, TASKS, ready, send, vhost, worker};

#[tokio::test(flavor = "multi_thread")]
async fn every_log_line_is_json_where_nobody_watches_and_holds_neither_bodies_nor_secrets() {
    let vhost = vhost().await;
    let worker = ready(worker().vhost(&vhost).env("JM_LOG__LEVEL", "trace")).await;
    send(&vhost, "wrong\r\n\u{1b}[31mid", r#"{"name":["canary body"]}"#).await;
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
    let text = worker.metrics().await.unwrap();
    assert!(text.contains("# HELP jm_mq_retries_total ") && text.contains("# TYPE jm_mq_handler_seconds histogram"));
    let (status, body) = worker.get("/nothing").await.unwrap();
    assert_eq!((status, body.contains("/health/ready")), (404, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_that_never_read_and_two_hundred_at_once_hold_up_nothing() {
    use std::io::Write;
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
