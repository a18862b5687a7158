//! `jm dead drop`: what is thrown away is chosen, and saved before it is gone.

use std::{collections::BTreeSet, fs, path::Path, process::Stdio, time::Duration};

use jm_testkit::TcpProxy;
use lapin::types::AMQPValue;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    dead_letters::{DEAD, Dead, QUEUE, arrived, dead, everywhere, id, ids, leave, original, said, vhost},
    support::{jm_at, signal, started},
};

const LIMIT: Duration = Duration::from_mins(2);

/// The message ids in a saved file, but for a line that was cut off.
fn saved_ids(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let of = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["properties"]["message_id"].as_str().map(ToOwned::to_owned)
    };
    whole.map(|line| of(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_ends_a_drop_with_all_that_was_not_saved_in_its_queue() {
    let vhost = vhost().await;
    leave(&vhost, (0..400).map(|number| dead(&number.to_string()))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.jsonl");
    // 128 KiB: some batches fit, and the next write is refused.
    let script = format!(r#"trap '' XFSZ; ulimit -f 128; exec {} "$@""#, env!("CARGO_BIN_EXE_jm"));
    let mut command = Command::new("bash");
    let jm = jm_at(&vhost);
    let variables = jm.as_std().get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.env_clear().envs(variables).env("PATH", "/bin:/usr/bin").stdin(Stdio::null()).kill_on_drop(true);
    let arguments = ["-c", &script, "jm", "dead", "drop", QUEUE, "--yes", "--save", file.to_str().unwrap()];
    let dropped = said(command, arguments).await;
    assert_eq!((dropped.code, dropped.err.lines().count()), (74, 1), "{dropped:?}");
    assert!(dropped.err.contains("what was not saved is still in jm.llm.dead"), "{dropped:?}");
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.unacked == 0).await.unwrap();
    let (saved, left) = (saved_ids(&file), ids(&vhost, DEAD).await);
    assert!(!saved.is_empty() && !left.is_empty(), "{} saved, {} left", saved.len(), left.len());
    let all: BTreeSet<&String> = saved.iter().chain(&left).collect();
    assert_eq!(all.len(), 400, "none is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_is_killed_loses_nothing_that_it_has_not_saved() {
    const COUNT: usize = 4000;
    let vhost = vhost().await;
    leave(&vhost, (0..COUNT).map(|number| dead(&number.to_string()))).await;
    let folder = tempfile::tempdir().unwrap();
    let mut saved = Vec::new();
    for round in 1..=4u64 {
        let file = folder.path().join(format!("{round}.jsonl"));
        let arguments = ["dead", "drop", QUEUE, "--yes", "--save", file.to_str().unwrap()];
        let mut jm = started(jm_at(&vhost), &arguments);
        vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready < COUNT as u64 - round * 700).await.unwrap();
        signal(&jm, Signal::SIGKILL);
        jm.wait().await.unwrap();
        vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.unacked == 0).await.unwrap();
        saved.extend(saved_ids(&file));
    }
    let left = ids(&vhost, DEAD).await;
    let all: BTreeSet<&String> = saved.iter().chain(&left).collect();
    assert_eq!(all.len(), COUNT, "none is lost");
    assert!(saved.len() + left.len() <= COUNT + 4 * 64, "{} saved and {} left", saved.len(), left.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_with_a_copy_can_be_taken_back_as_it_was() {
    let vhost = vhost().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.jsonl");
    let path = file.to_str().unwrap();
    let letters = || {
        (0..200).map(|number| {
            let body = if number % 3 == 0 {
                vec![0xff, u8::try_from(number).unwrap(), b'\n']
            } else {
                format!("第{number}\n").into()
            };
            let more = vec![("count", AMQPValue::LongLongInt(-number)), ("tiny", AMQPValue::ShortShortUInt(1))];
            Dead { body, more, ..dead(&number.to_string()) }
        })
    };
    leave(&vhost, letters()).await;
    let dropped = said(jm_at(&vhost), ["dead", "drop", QUEUE, "--yes", "--save", path]).await;
    assert_eq!((dropped.code, dropped.err.as_str()), (0, ""), "{dropped:?}");
    assert_eq!(dropped.out, format!("200 dropped from jm.llm.dead, saved to {path}\n"));
    assert!(ids(&vhost, DEAD).await.is_empty());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    leave(&vhost, [dead("another")]).await;
    let again = said(jm_at(&vhost), ["dead", "drop", QUEUE, "--yes", "--save", path]).await;
    assert_eq!((again.code, again.err.lines().count()), (74, 1), "nothing is overwritten: {again:?}");
    assert_eq!(ids(&vhost, DEAD).await, ["another"], "and nothing is dropped");

    let some = said(jm_at(&vhost), ["dead", "replay", "--from", path, "--limit", "50"]).await;
    assert_eq!((some.code, some.out.as_str()), (0, "50 put back\n"), "{some:?}");
    let rest = said(jm_at(&vhost), ["dead", "replay", DEAD, "--from", path]).await;
    assert_eq!((rest.code, rest.out.as_str()), (0, "150 put back\n"), "{rest:?}");
    let back = vhost.take_all(QUEUE).await.unwrap();
    let wanted: Vec<_> = letters().map(|letter| letter.message()).collect();
    assert_eq!(back.iter().map(original).collect::<Vec<_>>(), wanted);
    let none = said(jm_at(&vhost), ["dead", "replay", "--from", path]).await;
    assert_eq!((none.code, none.out.as_str()), (0, "0 put back\n"));
    assert!(none.err.contains("200 were put back earlier"), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_copy_survives_cuts_and_kills_while_it_goes_back() {
    const COUNT: usize = 2000;
    let vhost = vhost().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.jsonl");
    let path = file.to_str().unwrap();
    leave(&vhost, (0..COUNT).map(|number| dead(&number.to_string()))).await;
    let dropped = said(jm_at(&vhost), ["dead", "drop", QUEUE, "-y", "--save", path]).await;
    assert_eq!(dropped.code, 0, "{dropped:?}");
    let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await.unwrap();
    let start = || {
        let mut command = jm_at(&vhost);
        command.env("JM_RABBITMQ__PORT", proxy.port().to_string());
        started(command, &["dead", "replay", "--from", path])
    };
    let mut jm = start();
    arrived(&vhost, 300).await;
    proxy.reset();
    arrived(&vhost, 700).await;
    signal(&jm, Signal::SIGKILL);
    jm.wait().await.unwrap();
    let end = tokio::time::timeout(LIMIT, start().wait_with_output()).await.unwrap().unwrap();
    assert!(end.status.success(), "{}", String::from_utf8_lossy(&end.stderr));
    let found = everywhere(&vhost).await;
    assert_eq!(found.len(), COUNT);
    assert!(found.values().sum::<usize>() <= COUNT + 2, "twice only what was in hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_takes_only_what_is_chosen() {
    let vhost = vhost().await;
    leave(&vhost, [dead("a"), Dead { error_kind: "undecodable", ..dead("b") }, dead("c")]).await;
    let dropped = said(jm_at(&vhost), ["dead", "drop", QUEUE, "--kind", "undecodable", "--yes", "--json"]).await;
    let answer: Value = serde_json::from_str(&dropped.out).unwrap();
    let wanted = r#"{"queue":"jm.llm.dead","dropped":1,"saved_to":null,"interrupted":false}"#;
    assert_eq!((dropped.code, answer), (0, serde_json::from_str(wanted).unwrap()), "{dropped:?}");
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == 2).await.unwrap();
    let left: Vec<String> = vhost.take_all(DEAD).await.unwrap().iter().map(id).collect();
    assert_eq!(left, ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_put_back_from_a_file_is_tried_by_the_next_run() {
    let vhost = vhost().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.jsonl");
    let path = file.to_str().unwrap();
    leave(&vhost, ["a", "b"].map(dead)).await;
    said(jm_at(&vhost), ["dead", "drop", QUEUE, "-y", "--save", path]).await;
    vhost.unbind(QUEUE, QUEUE, QUEUE).await.unwrap();
    let none = said(jm_at(&vhost), ["dead", "replay", "--from", path]).await;
    assert_eq!((none.code, none.out.lines().next()), (1, Some("0 put back")), "{none:?}");
    vhost.bind(QUEUE, QUEUE, QUEUE).await.unwrap();
    let all = said(jm_at(&vhost), ["dead", "replay", "--from", path]).await;
    assert_eq!((all.code, all.out.as_str()), (0, "2 put back\n"), "{all:?}");
    assert_eq!(ids(&vhost, QUEUE).await, ["a", "b"]);
}

/// What the process asks of the kernel, in its order: the file and its folder are synced before the first ack is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_on_the_disk_with_its_name_before_its_message_is_settled() {
    let vhost = vhost().await;
    leave(&vhost, [dead("a")]).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, trace) = (folder.path().join("saved.jsonl"), folder.path().join("trace"));
    let mut command = Command::new("strace");
    let jm = jm_at(&vhost);
    let variables = jm.as_std().get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.env_clear().envs(variables).stdin(Stdio::null()).kill_on_drop(true);
    let calls = "trace=fsync,fdatasync,write,writev,sendto,sendmsg";
    command.args(["-f", "-y", "-s", "64", "-xx", "-e", calls, "-o"]).arg(&trace).arg(env!("CARGO_BIN_EXE_jm"));
    command.args(["dead", "drop", QUEUE, "-y", "--save"]).arg(&file);
    let dropped = said(command, [""; 0]).await;
    assert_eq!(dropped.code, 0, "{dropped:?}");
    let trace = fs::read_to_string(&trace).unwrap();
    let escaped = |path: &Path| {
        let bytes = path.as_os_str().as_encoded_bytes().iter();
        bytes.fold(String::new(), |escaped, byte| escaped + &format!("\\x{byte:02x}"))
    };
    let place = |words: &dyn Fn(&str) -> bool| trace.lines().position(words);
    let synced = |path: &Path| {
        let name = format!("<{}>", escaped(path));
        place(&|line| line.contains("sync(") && line.contains(&name))
    };
    // basic.ack: a frame of a method, class 60, method 80.
    let acked = place(&|line| line.contains(r"\x00\x3c\x00\x50")).expect("an ack");
    let (of_file, of_folder) = (synced(&file).expect("the file"), synced(folder.path()).expect("the folder"));
    assert!(of_file < acked && of_folder < acked, "{of_file}, {of_folder}, {acked}: {trace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_empty_file_is_left_where_nothing_was_saved() {
    let vhost = vhost().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.jsonl");
    let dropped = said(jm_at(&vhost), ["dead", "drop", QUEUE, "-y", "--save", file.to_str().unwrap()]).await;
    assert_eq!(dropped.code, 0, "{dropped:?}");
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_back_is_noted_behind_no_symbolic_link_and_read_from_no_pipe() {
    let vhost = vhost().await;
    leave(&vhost, [dead("a")]).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, done, target) =
        (folder.path().join("s.jsonl"), folder.path().join("s.jsonl.done"), folder.path().join("target"));
    let path = file.to_str().unwrap();
    assert_eq!(said(jm_at(&vhost), ["dead", "drop", QUEUE, "-y", "--save", path]).await.code, 0);
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &done).unwrap();
    let refused = said(jm_at(&vhost), ["dead", "replay", "--from", path]).await;
    assert_eq!((refused.code, refused.err.lines().count()), (74, 1), "{refused:?}");
    assert!(refused.err.contains("a symbolic link"), "{refused:?}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "");
    fs::remove_file(&done).unwrap();

    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for place in [pipe.to_str().unwrap(), folder.path().to_str().unwrap(), "/dev/zero"] {
        let from = said(jm_at(&vhost), ["dead", "replay", "--from", place]);
        let refused = tokio::time::timeout(LIMIT, from).await.expect("it does not wait for a writer");
        assert_eq!((refused.code, refused.err.lines().count()), (66, 1), "{refused:?}");
        assert!(refused.err.contains("no regular file"), "{refused:?}");
    }
    let back = said(jm_at(&vhost), ["dead", "replay", "--from", path]).await;
    assert_eq!((back.code, back.out.as_str()), (0, "1 put back\n"), "{back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_from_a_file_and_a_body_that_never_comes_obey_sigterm() {
    let vhost = vhost().await;
    leave(&vhost, ["a", "b", "c"].map(dead)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.jsonl");
    let path = file.to_str().unwrap();
    assert_eq!(said(jm_at(&vhost), ["dead", "drop", QUEUE, "-y", "--save", path]).await.code, 0);
    let mut jm = started(jm_at(&vhost), &["dead", "replay", "--from", path, "--rate", "0.001"]);
    arrived(&vhost, 1).await;
    signal(&jm, Signal::SIGTERM);
    assert_eq!(tokio::time::timeout(LIMIT, jm.wait()).await.unwrap().unwrap().code(), Some(143));

    let mut command = jm_at(&vhost);
    command.stdin(Stdio::piped());
    let mut jm = started(command, &["publish", "llm.chat", "-"]);
    // It catches signals once it runs; before that one ends it as well.
    let ended = async {
        loop {
            signal(&jm, Signal::SIGTERM);
            if let Ok(status) = tokio::time::timeout(Duration::from_millis(200), jm.wait()).await {
                return status.unwrap();
            }
        }
    };
    let status = tokio::time::timeout(LIMIT, ended).await.expect("it waits for a body");
    assert!(status.code() == Some(143) || std::os::unix::process::ExitStatusExt::signal(&status) == Some(15));
}
