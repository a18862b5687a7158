//! Alive and ready, from the first moment to the drain.

use std::{net::TcpListener, process::Output};

use jm_testkit::{HttpServer, TcpProxy, WorkerProcess};

use crate::support::{ANSWERS, LIMIT, TASKS, ready, send, vhost, worker};

async fn not_ready(worker: &WorkerProcess) -> String {
    worker.wait_until("/health/ready", 503, LIMIT).await.unwrap()
}

/// The state follows its log line by some microseconds.
async fn reason_with(worker: &WorkerProcess, words: &str) {
    let looking = async { while !not_ready(worker).await.contains(words) {} };
    tokio::time::timeout(LIMIT, looking).await.unwrap_or_else(|_| panic!("no {words} in the reason"));
}

/// What `--health` says and ends with, asked with this address as `http.listen`.
async fn asked(listen: &str) -> (i32, String, String) {
    let asking = worker().arg("--health").env("JM_HTTP__LISTEN", listen).output(LIMIT).await;
    let Output { status, stdout, stderr } = asking.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_option_asks_the_worker_with_the_same_configuration() {
    let vhost = vhost().await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await.unwrap();
    proxy.refuse(true);
    let port = proxy.port().to_string();
    let worker = worker().vhost(&vhost).env("JM_RABBITMQ__PORT", &port).start().await.unwrap();
    // As in a container, where it listens on every address.
    let listen = format!("0.0.0.0:{}", worker.http_port());
    reason_with(&worker, "cannot reach RabbitMQ").await;
    let (code, said, reason) = asked(&listen).await;
    assert_eq!((code, said.as_str(), reason.lines().count()), (1, "", 1), "{reason}");
    assert!(reason.starts_with("not ready: cannot reach RabbitMQ"), "{reason}");

    proxy.refuse(false);
    worker.wait_ready(LIMIT).await.unwrap();
    assert_eq!(asked(&listen).await, (0, "ready\n".to_owned(), String::new()));
    worker.kill().unwrap();
    worker.wait(LIMIT).await.unwrap();
    let (code, _, reason) = asked(&listen).await;
    assert_eq!((code, reason.contains("does the worker run?")), (1, true), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_option_waits_for_no_silent_server_and_trusts_no_other_one() {
    // The kernel accepts for it; nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, _, reason) = asked(&silent.local_addr().unwrap().to_string()).await;
    assert_eq!((code, reason.contains("did not answer within 3s")), (1, true), "{reason}");
    let other = HttpServer::start().await.unwrap();
    let (code, _, reason) = asked(&format!("127.0.0.1:{}", other.port())).await;
    assert_eq!((code, reason.contains("404") && reason.contains("another program")), (1, true), "{reason}");
    let (code, _, reason) = asked("nowhere").await;
    assert_eq!((code, reason.contains("http.listen")), (78, true), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_alive_without_a_broker_and_ready_only_while_it_consumes() {
    let vhost = vhost().await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await.unwrap();
    proxy.refuse(true);
    let port = proxy.port().to_string();
    let worker = worker().vhost(&vhost).env("JM_RABBITMQ__PORT", &port).start().await.unwrap();
    worker.wait_until("/health/live", 200, LIMIT).await.unwrap();
    let reason = not_ready(&worker).await;
    assert!(reason.starts_with("not ready: "), "{reason}");
    worker.wait_for_log("cannot reach RabbitMQ", LIMIT).await.unwrap();

    proxy.refuse(false);
    worker.wait_ready(LIMIT).await.unwrap();
    proxy.refuse(true);
    proxy.cut();
    reason_with(&worker, "cannot reach RabbitMQ").await;
    assert!(worker.live().await);
    proxy.refuse(false);
    worker.wait_ready(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_in_the_reason_and_the_password_is_not() {
    let vhost = vhost().await;
    let worker = worker().vhost(&vhost).env("JM_RABBITMQ__PASSWORD", "canary").start().await.unwrap();
    let line = worker.wait_for_log("refuses user", LIMIT).await.unwrap();
    assert!(line.contains("check the name and the password"), "{line}");
    reason_with(&worker, "refuses user").await;
    assert!(!format!("{}{}", worker.stdout(), worker.stderr()).contains("canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_runs_hands_back_the_rest_and_ends_with_0() {
    let vhost = vhost().await;
    let worker =
        ready(worker().vhost(&vhost).env("JM_CONSUMER__CONCURRENCY", "1").env("JM_CONSUMER__PREFETCH_PER_WORKER", "5"))
            .await;
    for id in ["1", "2", "3"] {
        send(&vhost, id, r#"{"name":"Ada","millis":700}"#).await;
    }
    worker.wait_for_log("greeting", LIMIT).await.unwrap();
    worker.terminate().unwrap();
    reason_with(&worker, "not ready: draining\n").await;
    assert!(worker.live().await);
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
    let left =
        vhost.wait_for_counts(TASKS, LIMIT, |counts| counts.consumers == 0 && counts.unacked == 0).await.unwrap();
    let answered = vhost.queue_counts(ANSWERS).await.unwrap();
    assert_eq!((left.ready, answered.ready), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_and_the_broker_has_the_task_back() {
    use std::os::unix::process::ExitStatusExt;
    let vhost = vhost().await;
    let worker = ready(worker().vhost(&vhost)).await;
    send(&vhost, "1", r#"{"name":"Ada","millis":60000}"#).await;
    worker.wait_for_log("greeting", LIMIT).await.unwrap();
    worker.interrupt().unwrap();
    worker.wait_for_log("draining; a second signal", LIMIT).await.unwrap();
    worker.interrupt().unwrap();
    let status = worker.wait(LIMIT).await.unwrap();
    assert_eq!((status.code(), status.signal()), (Some(130), None));
    let given_back = vhost.wait_for_counts(TASKS, LIMIT, |counts| counts.ready == 1 && counts.unacked == 0).await;
    given_back.unwrap();
}
