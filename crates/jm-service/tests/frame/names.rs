//! Names that the system looks up: with several addresses, and without an answer.

use std::{fs, net::TcpListener, os::unix::fs::OpenOptionsExt as _, time::Instant};

use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};

use crate::support::{LIMIT, send, vhost, worker_with};

/// Where the system finds names, and where it is said that it looks there.
const HOSTS: &str = "/etc/hosts";
const SWITCH: &str = "/etc/nsswitch.conf";

#[tokio::test(flavor = "multi_thread")]
async fn a_name_whose_first_address_is_silent_is_no_reason_not_to_consume() {
    let vhost = vhost().await;
    let folder = tempfile::tempdir().unwrap();
    let (hosts, switch) = (folder.path().join("hosts"), folder.path().join("switch"));
    // The kernel accepts for it; nothing answers.
    let _silent = TcpListener::bind(("127.0.7.9", vhost.port)).unwrap();
    fs::write(&hosts, "127.0.7.9 rabbit.test\n127.0.0.1 rabbit.test\n").unwrap();
    fs::write(&switch, "hosts: files\n").unwrap();
    let worker = worker_with(&[(&hosts, HOSTS), (&switch, SWITCH)]).vhost(&vhost).env("JM_RABBITMQ__HOST", "rabbit.test");
    let worker = worker.start().await.unwrap();
    worker.wait_ready(LIMIT).await.unwrap();
    send(&vhost, "1", r#"{"name":"Ada"}"#).await;
    worker.wait_for_log("greeting", LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_that_hangs_does_not_keep_a_drained_process_for_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let (hosts, switch) = (folder.path().join("hosts"), folder.path().join("switch"));
    // Whoever opens it to read waits for a writer, and then for what it writes.
    mkfifo(&hosts, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    fs::write(&switch, "hosts: files\n").unwrap();
    let worker = worker_with(&[(&hosts, HOSTS), (&switch, SWITCH)]).env("JM_RABBITMQ__HOST", "rabbit.test");
    let worker = worker.start().await.unwrap();
    let looked_up = async {
        loop {
            // Possible once there is a reader.
            match fs::OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&hosts) {
                Ok(writer) => break writer,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    };
    let _writer = tokio::time::timeout(LIMIT, looked_up).await.unwrap();
    worker.terminate().unwrap();
    worker.wait_for_log("drained", LIMIT).await.unwrap();
    let drained = Instant::now();
    assert_eq!(worker.wait(LIMIT).await.unwrap().code(), Some(0));
    assert!(drained.elapsed().as_millis() < 1000, "{:?}", drained.elapsed());
}
