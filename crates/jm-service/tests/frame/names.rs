//! Names that the system looks up: with several addresses, and without an answer.

use std::{fs, net::TcpListener, time::Instant};

use jm_testkit::WorkerProcess;
use nix::{sys::stat::Mode, unistd::mkfifo};

use crate::support::{LIMIT, ready, send, vhost, worker_with};

/// Where the system finds names, and where it is said that it looks there.
const HOSTS: &str = "/etc/hosts";
const SWITCH: &str = "/etc/nsswitch.conf";

#[tokio::test(flavor = "multi_thread")]
async fn a_name_whose_first_address_is_silent_is_no_reason_not_to_consume() {
    let vhost = vhost().await;
    let folder = tempfile::tempdir().unwrap();
    let (hosts, switch) = (folder.path().join("hosts"), folder.path().join("switch"));
    // The kernel accepts for it; nothing answers. The system prefers IPv6.
    let _silent = TcpListener::bind(("::1", vhost.port)).unwrap();
    fs::write(&hosts, "::1 rabbit.test\n127.0.0.1 rabbit.test\n").unwrap();
    fs::write(&switch, "hosts: files\n").unwrap();
    let worker =
        worker_with(&[(&hosts, HOSTS), (&switch, SWITCH)]).vhost(&vhost).env("JM_RABBITMQ__HOST", "rabbit.test");
    let worker = worker.start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    send(&vhost, "1", r#"{"name":"Ada"}"#).await;
    worker.wait_for_log("greeting", LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_that_hang_do_not_keep_a_drained_process_for_a_second() {
    let vhost = vhost().await;
    let folder = tempfile::tempdir().unwrap();
    let (hosts, switch) = (folder.path().join("hosts"), folder.path().join("switch"));
    // Opening it to read waits for a writer, for ever.
    mkfifo(&hosts, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    fs::write(&switch, "hosts: files\n").unwrap();
    let worker = || worker_with(&[(&hosts, HOSTS), (&switch, SWITCH)]).env("JM_CONSUMER__DRAIN_TIMEOUT", "100ms");

    let of_broker = worker().env("JM_RABBITMQ__HOST", "rabbit.test").env("JM_RABBITMQ__CONNECT_TIMEOUT", "100ms");
    let of_broker = of_broker.start().await.unwrap();
    of_broker.wait_for_log("did not answer within 100ms while looking up its address", LIMIT).await.unwrap();
    exits_within_a_second(of_broker).await;

    let of_handler = ready(worker().vhost(&vhost)).await;
    send(&vhost, "1", r#"{"name":"Ada","host":"engine.test"}"#).await;
    of_handler.wait_for_log("greeting", LIMIT).await.unwrap();
    exits_within_a_second(of_handler).await;
}

async fn exits_within_a_second(worker: WorkerProcess) {
    worker.terminate().unwrap();
    worker.wait_for_log("drained", LIMIT).await.unwrap();
    let drained = Instant::now();
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
    assert!(drained.elapsed().as_millis() < 1000, "{:?}", drained.elapsed());
}
