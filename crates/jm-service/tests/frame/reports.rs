//! Error reports to a server that speaks Sentry's protocol.

use std::time::{Duration, Instant};

use jm_testkit::SentryServer;
use serde_json::Value;

use crate::support::{ANSWERS, LIMIT, TASKS, ready, send, vhost, worker};

fn tag<'a>(report: &'a Value, name: &str) -> &'a str {
    report["tags"][name].as_str().unwrap_or_else(|| panic!("no tag {name} in {report}"))
}

/// The protocol leaves out the level of an error.
fn level(report: &Value) -> &str {
    report["level"].as_str().unwrap_or("error")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failed_retry_and_each_final_failure_is_one_report_without_body_and_secret() {
    let vhost = vhost().await;
    let sentry = SentryServer::start().await.unwrap();
    let worker = ready(
        worker()
            .vhost(&vhost)
            .env("JM_SENTRY__DSN", sentry.dsn("publickey"))
            .env("JM_SENTRY__ENVIRONMENT", "test")
            .env("JM_CONSUMER__HANDLER_TIMEOUT", "50ms")
            .env("JM_CONSUMER__RETRY_BASE_DELAY", "10ms")
            .env("JM_CONSUMER__MAX_RETRY_ATTEMPTS", "2"),
    )
    .await;
    send(&vhost, "slow", r#"{"name":"canary body","millis":60000}"#).await;
    // The first run is no retry; the second is a failed one; the third is the last.
    let reports = sentry.wait_for_events(2, LIMIT).await.unwrap();
    send(&vhost, "wrong\u{9b}2J", r#"{"name":{"canary body":1}}"#).await;
    let reports = [reports, sentry.wait_for_events(3, LIMIT).await.unwrap()[2..].to_vec()].concat();
    let seen: Vec<[&str; 4]> =
        reports.iter().map(|r| [level(r), tag(r, "message_id"), tag(r, "attempt"), tag(r, "type")]).collect();
    assert_eq!(
        seen,
        [
            ["warning", "slow", "2", "example.greet"],
            ["error", "slow", "3", "example.greet"],
            ["error", r"wrong\u009b2J", "1", "example.greet"],
        ]
    );
    assert!(reports.iter().all(|report| tag(report, "queue") == TASKS && report["environment"] == "test"));
    assert_eq!((tag(&reports[1], "kind"), tag(&reports[2], "kind")), ("timeout", "undecodable"));
    let text = reports[1]["exception"]["values"][0]["value"].as_str();
    assert!(text.is_some_and(|text| text.contains("handler_timeout")), "{}", reports[1]);

    worker.terminate().unwrap();
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
    assert_eq!(sentry.wait_for_events(3, LIMIT).await.unwrap().len(), 3);
    for arrived in sentry.raw() {
        let arrived = String::from_utf8_lossy(&arrived);
        assert!(!arrived.contains("canary body") && !arrived.contains(&vhost.password), "{arrived}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_sentry_costs_a_handler_nothing() {
    let vhost = vhost().await;
    let sentry = SentryServer::silent().await.unwrap();
    let worker = ready(worker().vhost(&vhost).env("JM_SENTRY__DSN", sentry.dsn("publickey"))).await;
    // More failures than the transport's queue takes, and then something that works.
    for n in 0..200 {
        send(&vhost, &n.to_string(), r#"{"name":""}"#).await;
    }
    send(&vhost, "right", r#"{"name":"Ada"}"#).await;
    let started = Instant::now();
    vhost.wait_for_counts(ANSWERS, LIMIT, |counts| counts.ready == 1).await.unwrap();
    vhost.wait_for_counts(&format!("{TASKS}.dead"), LIMIT, |counts| counts.ready == 200).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    worker.terminate().unwrap();
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
}
