//! A PostgreSQL server of the kit's own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jm_testkit::PostgresServer;

const OWNER: &str = "JM_TESTKIT_TEST_POSTGRES_OWNER";

#[tokio::test]
async fn databases_are_apart_and_what_was_committed_survives_a_crash() {
    let server = PostgresServer::start().await.unwrap();
    let (first, second) = (server.database().await.unwrap(), server.database().await.unwrap());
    assert!(first.ends_with("/test1") && second.ends_with("/test2"), "{first} {second}");
    server.sql("test1", "CREATE TABLE t (n BIGINT); INSERT INTO t VALUES (7)").await.unwrap();
    assert!(server.sql("test2", "SELECT n FROM t").await.unwrap_err().to_string().contains("does not exist"));

    let before = server.pid().unwrap();
    server.kill().await.unwrap();
    assert_eq!(server.pid(), None);
    assert!(server.sql("test1", "SELECT 1").await.is_err());
    server.restart().await.unwrap();
    assert_ne!(server.pid(), Some(before));
    assert_eq!(server.sql("test1", "SELECT n FROM t").await.unwrap(), "7");
}

#[tokio::test]
async fn a_server_asks_for_its_password() {
    let server = PostgresServer::shared().await.unwrap();
    let mut psql = tokio::process::Command::new("psql");
    psql.args(["-w", "-h", "127.0.0.1", "-U", "jm", "-p", &server.port().to_string(), "-c", "SELECT 1", "postgres"]);
    let answer = psql.env("PGPASSWORD", "wrong").output().await.unwrap();
    let error = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(!answer.status.success() && error.contains("password authentication failed"), "{error}");
}

/// Not a test by itself: the process that the test below starts and kills.
#[tokio::test]
async fn owner_of_a_postgres_server() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let server = PostgresServer::shared().await.unwrap();
    println!("\nserver {} {}", server.pid().unwrap(), server.folder().display());
    std::future::pending::<()>().await;
}

#[test]
fn nothing_of_a_postgres_server_is_left_after_its_owner_was_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["postgres::owner_of_a_postgres_server", "--exact", "--nocapture"])
        .env(OWNER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("server ")).expect("the owner started none");
    let words: Vec<&str> = line.split(' ').collect();
    let (server, folder) = (words[1], Path::new(words[2]));
    // The first process, and the helpers that every server has.
    let before = processes_in(folder);
    assert!(before.len() >= 4 && before.contains(&PathBuf::from("/proc").join(server)), "{before:?}");

    owner.kill().unwrap();
    owner.wait().unwrap();
    let begin = Instant::now();
    while (!processes_in(folder).is_empty() || folder.exists()) && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("gone after {:?}", begin.elapsed());
    assert_eq!(processes_in(folder), Vec::<PathBuf>::new());
    assert!(!folder.exists());
}

/// The processes that work in the folder or below it.
fn processes_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    entries.filter(|process| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))).collect()
}
