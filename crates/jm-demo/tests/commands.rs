//! The command as people and `make` use it, with engines that only pretend: what it prints, keeps, and leaves behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

#[path = "support/leftovers.rs"]
mod leftovers;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use jm_testkit::{OpenAiServer, record_tone};
use lapin::{BasicProperties, Connection, ConnectionProperties, options, types::FieldTable};
use leftovers::{processes_in, wait_until_empty, wait_until_nothing_runs_in};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_mins(2);

/// A home and a folder for temporary files of its own, and a server for the engines.
struct Machine {
    folder: TempDir,
    engine: OpenAiServer,
}

impl Machine {
    async fn new() -> Self {
        // Among others' folders a plain name is needed: RabbitMQ hangs at some.
        let folder = tempfile::Builder::new().prefix("jm-demo-test").tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { folder, engine: OpenAiServer::start().await.unwrap() }
    }

    fn temporary(&self) -> std::path::PathBuf {
        self.folder.path().join("tmp")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_jm-demo"));
        let worker = program.with_file_name("llm-worker");
        assert!(worker.exists(), "build all workers first: cargo build --workspace");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("XDG_STATE_HOME", self.folder.path()).env("TMPDIR", self.temporary()).env("NO_COLOR", "1");
        command
    }

    fn with_engines(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.args(["--engines", &self.engine.base_url()]);
        command
    }

    /// Off the runtime's threads, on which the engine answers.
    async fn output(&self, mut command: Command) -> Output {
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn said(&self, command: Command, code: i32) -> String {
        let output = self.output(command).await;
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
        // A path and an address are as long as they are.
        let own =
            out.lines().filter(|line| !line.contains("amqp:") && !line.contains(self.folder.path().to_str().unwrap()));
        for line in own {
            assert!(console::measure_text_width(line) <= 80, "{line}");
        }
        format!("{out}\n{err}")
    }
}

/// Whatever happens to a test, what it has put up goes with it.
impl Drop for Machine {
    fn drop(&mut self) {
        let mut down = self.command(&["down"]);
        let _ = down.output();
    }
}

async fn line_with(child: &mut Child, text: &'static str) {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let found = tokio::task::spawn_blocking(move || {
        let mut lines = lines.map_while(Result::ok);
        let mut said = Vec::new();
        let found = lines.by_ref().inspect(|line| said.push(line.clone())).any(|line| line.contains(text));
        // The rest is read, so that the process never waits.
        std::thread::spawn(move || lines.count());
        if found { Ok(()) } else { Err(said) }
    });
    let found = tokio::time::timeout(LIMIT, found).await.unwrap().unwrap();
    found.unwrap_or_else(|said| panic!("it ended without a line with {text:?}; it said:\n{}", said.join("\n")));
}

async fn wait_for(mut child: Child) -> Option<i32> {
    tokio::task::spawn_blocking(move || child.wait().unwrap().code()).await.unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn amqp_in(said: &str) -> String {
    said.lines().find_map(|line| line.strip_prefix("AMQP")).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_its_notes_and_leaves_nothing() {
    let machine = Machine::new().await;
    let recording = machine.folder.path().join("通话 1.wav");
    record_tone(&recording, 12).unwrap();
    let said = machine.said(machine.with_engines(&["run", "--audio", recording.to_str().unwrap()]), 0).await;
    for expected in [
        "── 通话 1.wav ──",
        "── 五月去杭州的安排 ──",
        "speakers   2 in 12.0 s (default)",
        "  0:00 S1",
        "summary    summary of ",
        "8 numbers: ",
        "nearest    ",
        "took       speakers ",
        "all notes came to their end as expected",
        "Release meeting, Tuesday: summary, ",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
    // Each result is told once, with its time: four of the call, and two of each of the five texts.
    let results: Vec<&str> = said.lines().filter(|line| is_result(line)).collect();
    assert_eq!(results.len(), 14, "{said}");
    assert!(results.iter().all(|line| line.ends_with(" after its task")), "{results:#?}");
    assert_eq!(said.lines().filter(|line| line.starts_with("took ")).count(), 6, "{said}");
    assert_eq!(processes_in(machine.folder.path()), []);
    wait_until_empty(&machine.temporary());
}

/// `   6.3 s  A note: summary, 1.0 s after its task`, or without a time.
fn is_result(line: &str) -> bool {
    let is_of = |stage| line.contains(&format!(": {stage}"));
    line.get(..8).is_some_and(|at| at.ends_with(" s")) && ["speakers", "words", "vector", "summary"].iter().any(is_of)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_is_none_is_told_and_the_exit_code_says_so() {
    let machine = Machine::new().await;
    let said = machine.said(machine.with_engines(&["run", "--audio", "/no/such/meeting.m4a"]), 1).await;
    assert!(said.contains("could not find the recording /no/such/meeting.m4a: No such file"), "{said}");
    let notes = machine.folder.path().join("notes.txt");
    std::fs::write(&notes, "Not a sound.\n".repeat(100)).unwrap();
    let said = machine.said(machine.with_engines(&["run", "--audio", notes.to_str().unwrap()]), 1).await;
    assert!(said.contains("notes.txt: no speakers: sd-worker refused it: "), "{said}");
    let words: Vec<&str> = said.split_whitespace().collect();
    assert!(words.join(" ").contains("no speakers: not a recording that can be read"), "{said}");
    assert!(words.join(" ").contains("(kept in jm.sd.dead)"), "{said}");
    wait_until_empty(&machine.temporary());
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_at_any_moment_the_demo_leaves_nothing() {
    let machine = Machine::new().await;
    for (moment, number, code) in [
        ("starting a private RabbitMQ", Signal::SIGINT, Some(130)),
        ("RabbitMQ on 127.0.0.1", Signal::SIGTERM, Some(143)),
        ("the five workers:", Signal::SIGINT, Some(130)),
        ("RabbitMQ on 127.0.0.1", Signal::SIGKILL, None),
        ("the five workers:", Signal::SIGKILL, None),
    ] {
        let recording = machine.folder.path().join("tone.wav");
        record_tone(&recording, 12).unwrap();
        let mut child = machine.with_engines(&["run", "--audio", recording.to_str().unwrap()]).spawn().unwrap();
        line_with(&mut child, moment).await;
        signal(&child, number);
        let begun = Instant::now();
        assert_eq!(wait_for(child).await, code, "{moment} {number}");
        wait_until_nothing_runs_in(machine.folder.path());
        wait_until_empty(&machine.temporary());
        println!("{moment}, {number}: gone after {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_up_takes_notes_and_keeps_records_and_queues_over_down_and_up() {
    let machine = Machine::new().await;
    let said = machine.said(machine.command(&["down"]), 0).await;
    assert!(said.contains("nothing is up"), "{said}");
    machine.said(machine.command(&["status"]), 1).await;
    let said = machine.said(machine.command(&["note", "too early"]), 1).await;
    assert!(said.contains("nothing is up; `make up` starts it"), "{said}");

    let said = machine.said(machine.with_engines(&["up"]), 0).await;
    let amqp = amqp_in(&said);
    assert_eq!(said.matches("/metrics  ready").count(), 5, "{said}");
    let said = machine.said(machine.with_engines(&["up"]), 0).await;
    assert!(said.contains("already up") && amqp_in(&said) == amqp, "{said}");

    let dashed = machine.said(machine.command(&["note", "- \u{1b}[2Jmilk\n\"eggs\" for $5"]), 0).await;
    assert!(dashed.contains("── - [2Jmilk ──") && !dashed.contains('\u{1b}'), "{dashed}");
    std::fs::remove_file(machine.folder.path().join("jm-mq/demo/notes.jsonl")).unwrap();
    let first = machine.said(machine.command(&["note", "Buy bread and coffee."]), 0).await;
    assert!(first.contains("── Buy bread and coffee. ──") && first.contains("summary    Buy bread"), "{first}");
    assert!(!first.contains("nearest"), "{first}");
    let connection = Connection::connect(&amqp, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let durable = options::QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("mine".into(), durable, FieldTable::default()).await.unwrap();
    channel.confirm_select(options::ConfirmSelectOptions::default()).await.unwrap();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let publish =
        channel.basic_publish("".into(), "mine".into(), options::BasicPublishOptions::default(), b"x", persistent);
    publish.await.unwrap().await.unwrap();
    connection.close(200, "done".into()).await.unwrap();

    let said = machine.said(machine.command(&["down"]), 0).await;
    assert!(said.contains("stopped the five workers, RabbitMQ and their supervisor"), "{said}");
    wait_until_nothing_runs_in(machine.folder.path());
    wait_until_empty(&machine.temporary());

    let said = machine.said(machine.with_engines(&["up"]), 0).await;
    assert_eq!(amqp_in(&said), amqp);
    let connection = Connection::connect(&amqp, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let kept = channel.basic_get("mine".into(), options::BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!(kept.delivery.data, b"x");
    let second = machine.said(machine.command(&["note", "--text", "面包和咖啡。"]), 0).await;
    assert!(second.contains("Buy bread and coffee."), "no neighbour from before: {second}");
    machine.said(machine.command(&["down"]), 0).await;
    wait_until_nothing_runs_in(machine.folder.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_takes_all_with_it_and_does_not_count_as_up() {
    let machine = Machine::new().await;
    machine.said(machine.with_engines(&["up"]), 0).await;
    let up = std::fs::read(machine.folder.path().join("jm-mq/demo/up.json")).unwrap();
    let up: serde_json::Value = serde_json::from_slice(&up).unwrap();
    let pid = Pid::from_raw(up["holder"]["pid"].as_i64().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    wait_until_nothing_runs_in(machine.folder.path());
    wait_until_empty(&machine.temporary());
    let said = machine.said(machine.command(&["status"]), 1).await;
    assert!(said.contains("nothing is up"), "{said}");
    let said = machine.said(machine.command(&["down"]), 0).await;
    assert!(said.contains("nothing is up"), "{said}");
    machine.said(machine.with_engines(&["up"]), 0).await;
    machine.said(machine.command(&["status"]), 0).await;
    machine.said(machine.command(&["down"]), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_is_started_again_at_its_address() {
    let machine = Machine::new().await;
    let before = machine.said(machine.with_engines(&["up"]), 0).await;
    let work = machine.folder.path().join("jm-mq/demo/work");
    let (pid, _) = processes_in(&work).into_iter().find(|(_, name)| name.starts_with("llm-worker")).unwrap();
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    while !processes_in(&work).iter().any(|(other, name)| *other != pid && name.starts_with("llm-worker")) {
        assert!(begun.elapsed() < LIMIT, "llm-worker is not started again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let said = machine.said(machine.command(&["note", "Still here."]), 0).await;
    assert!(said.contains("summary    Still here."), "{said}");
    let after = machine.said(machine.command(&["status"]), 0).await;
    let port = |said: &str| said.lines().find(|line| line.starts_with("llm-worker")).unwrap().to_owned();
    assert_eq!(port(&before), port(&after));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_up_that_is_interrupted_leaves_nothing_up() {
    let machine = Machine::new().await;
    for number in [Signal::SIGINT, Signal::SIGKILL] {
        let mut child = machine.with_engines(&["up"]).spawn().unwrap();
        line_with(&mut child, "RabbitMQ on").await;
        signal(&child, number);
        wait_for(child).await;
        wait_until_nothing_runs_in(machine.folder.path());
        machine.said(machine.command(&["status"]), 1).await;
    }
}
