//! A disk that is full, as the kernel tells it: writes beyond a file size limit fail.
//!
//! The limit holds for a whole process, so the test runs in one of its own, which is this program again. Its signal for
//! the limit is ignored by the shell that starts it; what is left is an error of each write.

use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{Database, created, cx, id, tasks, text_content, updated};

const CHILD: &str = "JM_RECORDS_TEST_DISK_FULL";

#[test]
fn a_full_disk_fails_the_attempt_and_leaves_nothing_half_written() {
    let test = "disk_full::on_a_disk_of_half_a_megabyte";
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.contains("survived a full disk"), "{printed}");
}

/// Not a test by itself: what the test above starts.
#[tokio::test]
async fn on_a_disk_of_half_a_megabyte() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let database = Database::sqlite();
    let worker = database.worker().await;
    worker.takes(&created("r", 1, text_content("one"))).await;
    let before = database.rows().await;

    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 512 * 1024, hard).unwrap();
    let large = updated("r", 2, text_content(&"many words ".repeat(100_000)));
    for attempt in 1..=3 {
        let error = worker.tries(&large, &cx().with_attempt(attempt)).await.unwrap_err();
        assert!(!error.is_permanent(), "{error}");
        println!("{error}");
    }
    assert_eq!(database.rows().await, before);
    // What is small still has room.
    worker.takes(&created("small", 1, text_content("t"))).await;

    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    assert_eq!(tasks(&worker.tries(&large, &cx().with_attempt(4)).await.unwrap()).len(), 2);
    let view = worker.store.record(&id("r")).await.unwrap().unwrap();
    assert_eq!((view.revision, view.tasks.len()), (Some(2), 2));
    let mut connection = database.connect().await;
    let check: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(check, "ok");
    println!("survived a full disk");
}
