//! Names that the system looks up: with several addresses, and without an answer.

use std::{fs, net::TcpListener, os::unix::fs::OpenOptionsExt as _, time::Instant};

use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};

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
    // Whoever opens it to read waits for a writer, and then for what it writes.
    mkfifo(&hosts, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    fs::write(&switch, "hosts: files\n").unwrap();
    let worker = || worker_with(&[(&hosts, HOSTS), (&switch, SWITCH)]).env("JM_CONSUMER__DRAIN_TIMEOUT", "100ms");
    // The broker's name, and one that a handler looks up.
    for named in [true, false] {
        let worker = match named {
            true => worker().env("JM_RABBITMQ__HOST", "rabbit.test").start().await.unwrap(),
            false => ready(worker().vhost(&vhost)).await,
        };
        if !named {
            send(&vhost, "1", r#"{"name":"Ada","host":"engine.test"}"#).await;
        }
        let looked_up = async {
            loop {
                // Possible once there is a reader.
                match fs::OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&hosts) {
                    Ok(writer) => break writer,
                    Err(_) => tokio::task::yield_now().await,
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
}
