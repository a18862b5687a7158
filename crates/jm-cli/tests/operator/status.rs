//! `jm status` tells what waits, who takes from it, and what failed, and leaves the queues as they were.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use jm_testkit::{RabbitNode, Vhost};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    ground::{PLUGIN, jm_with_management, monitoring_on, told_at_last, vhost},
    support::{assert_plain_and_narrow, jm_at, said},
};

const FAILED_AT: &str = "2026-03-01T10:20:30Z";

fn dead_letter(kind: &str, failed_at: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("jm-failed-at".into(), AMQPValue::LongString(failed_at.into()));
    headers.insert("jm-error-kind".into(), AMQPValue::LongString(kind.into()));
    BasicProperties::default().with_type("asr.transcribe".into()).with_headers(headers)
}

/// All queues, three tasks in one of them, and two dead letters.
async fn prepared() -> Result<Vhost> {
    let vhost = vhost().await?;
    said(jm_at(&vhost), ["topology", "apply"]).await?;
    let task = BasicProperties::default().with_type("asr.transcribe".into());
    vhost.publish_many("jm.asr", (0..3).map(|_| (task.clone(), b"{}"))).await?;
    vhost.publish("jm.asr.dead", dead_letter("timeout", FAILED_AT), b"first").await?;
    vhost.publish("jm.asr.dead", dead_letter("permanent", "2026-03-02T00:00:00Z"), b"second").await?;
    Ok(vhost)
}

#[tokio::test]
async fn the_keys_are_stable_and_what_amqp_does_not_tell_is_null_and_said() -> Result<()> {
    let vhost = prepared().await?;
    let answer = said(jm_at(&vhost), ["status", "jm.asr", "--json"]).await?;
    assert_eq!((answer.code, answer.err.as_str()), (1, ""), "nobody consumes: {answer:?}");
    assert_eq!(
        answer.json()?,
        json!({
            "vhost": vhost.name,
            "alarms": [],
            "problems": ["jm.asr: 3 ready and no consumer; start asr-worker"],
            "queues": [{
                "queue": "jm.asr",
                "worker": "asr-worker",
                "exists": true,
                "ready": 3,
                "unacked": null,
                "consumers": 0,
                "publish_rate": null,
                "ack_rate": null,
                "dead_letter_queue": "jm.asr.dead",
                "dead_letters": 2,
                "oldest_dead_letter": { "at": FAILED_AT, "type": "asr.transcribe", "error_kind": "timeout" },
            }],
            "notes": ["unacked, in/s and out/s: AMQP does not tell; the management API does (--management http://host:15672)"],
        })
    );
    Ok(())
}

#[tokio::test]
async fn a_look_at_the_oldest_dead_letter_leaves_all_in_their_places() -> Result<()> {
    let vhost = prepared().await?;
    for _ in 0..3 {
        said(jm_at(&vhost), ["status"]).await?;
    }
    let counts = vhost.queue_counts("jm.asr.dead").await?;
    assert_eq!((counts.ready, counts.unacked, counts.consumers), (2, 0, 0));
    let bodies: Vec<Vec<u8>> = vhost.take_all("jm.asr.dead").await?.into_iter().map(|letter| letter.data).collect();
    assert_eq!(bodies, [b"first".to_vec(), b"second".to_vec()]);
    Ok(())
}

#[tokio::test]
async fn a_queue_that_counts_looks_is_not_looked_into() -> Result<()> {
    let vhost = vhost().await?;
    if crate::counting::broker().await.0 {
        looks_are_counted(&vhost).await?;
    }
    Ok(())
}

async fn looks_are_counted(vhost: &Vhost) -> Result<()> {
    vhost.set_policy("limit", r"^jm\.asr\.dead$", r#"{"delivery-limit": 20}"#).await?;
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    vhost.declare_queue_with("jm.asr.dead", true, quorum).await?;
    vhost.publish("jm.asr.dead", dead_letter("timeout", FAILED_AT), b"first").await?;
    for command in [jm_at(vhost), jm_with_management(vhost).await?] {
        let answer = said(command, ["status", "jm.asr", "--json"]).await?.json()?;
        assert_eq!(answer["queues"][0]["oldest_dead_letter"], Value::Null, "{answer:#}");
        assert!(
            answer["notes"][0]
                .as_str()
                .is_some_and(|note| note.starts_with("oldest is not looked at: `jm.asr.dead`: ")),
            "{answer:#}"
        );
    }
    // Watched, it is said each time, although nothing has changed.
    let mut jm = jm_at(vhost).args(["status", "--watch=1", "--json", "jm.asr"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(jm.stdout.take().context("its output")?).lines();
    for round in 0..2 {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await??.context("a line")?;
        assert!(line.contains("oldest is not looked at: "), "round {round}: {line}");
    }
    jm.kill().await?;
    let taken = vhost.take_all("jm.asr.dead").await?;
    assert!(!taken[0].redelivered);
    Ok(())
}

#[tokio::test]
async fn a_queue_that_does_not_exist_is_missing_and_is_not_created() -> Result<()> {
    let vhost = vhost().await?;
    let answer = said(jm_at(&vhost), ["status"]).await?;
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(answer.out.matches("missing").count(), 5, "{answer:?}");
    assert!(answer.out.contains("\njm.coreRecordEvent: does not exist; record-event-worker creates it"), "{answer:?}");
    assert_plain_and_narrow(&answer.out, "status");
    assert!(!vhost.queue_exists("jm.asr").await? && !vhost.queue_exists("jm.asr.dead").await?);
    Ok(())
}

#[tokio::test]
async fn the_table_fits_80_columns_whatever_is_in_it() -> Result<()> {
    let vhost = prepared().await?;
    for command in [jm_at(&vhost), jm_with_management(&vhost).await?] {
        let answer = said(command, ["status"]).await?;
        assert_plain_and_narrow(&answer.out, "status");
        let line = answer.out.lines().find(|line| line.starts_with("jm.asr ")).context("a line for jm.asr")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[1], words[3]), ("3", "0"), "{line}");
    }
    let long = "jm.a-queue-whose-name-is-long-enough-to-fill-a-whole-line-of-a-terminal.tasks";
    let mut command = jm_at(&vhost);
    command.env("JM_CONSUMER__QUEUE", long);
    let answer = said(command, ["status", "--worker", "asr-worker"]).await?;
    assert_plain_and_narrow(&answer.out, "a long name");
    Ok(())
}

#[tokio::test]
async fn the_management_api_tells_the_rest_and_its_absence_is_said() -> Result<()> {
    let vhost = prepared().await?;
    // Its statistics are a second late.
    let told = async {
        loop {
            let answer = said(jm_with_management(&vhost).await?, ["status", "jm.asr", "--json"]).await?.json()?;
            if answer["queues"][0]["unacked"] == json!(0) && answer["queues"][0]["ack_rate"].is_number() {
                return anyhow::Ok(answer);
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), told).await.context("statistics")??;
    assert_eq!(answer["notes"], json!([]), "{answer:#}");

    let mut command = jm_at(&vhost);
    command.env("JM_MANAGEMENT__URL", "http://127.0.0.1:1");
    let answer = said(command, ["status", "jm.asr", "--json"]).await?;
    assert_eq!(answer.json()?["queues"][0]["ready"], 3, "what AMQP tells is told all the same: {answer:?}");
    let note = answer.json()?["notes"][0].as_str().context("a note")?.to_owned();
    assert!(note.starts_with("the management API at http://127.0.0.1:1: "), "{note}");
    assert!(!answer.out.contains(&vhost.password), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn watch_tells_again_and_again_until_ctrl_c_and_leaves_nothing_behind() -> Result<()> {
    let vhost = prepared().await?;
    let mut command = jm_at(&vhost);
    let mut jm = command.args(["status", "--watch=1", "--json", "jm.asr"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(jm.stdout.take().context("its output")?).lines();
    for round in 0..2 {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await??.context("a line")?;
        let answer: Value = serde_json::from_str(&line)?;
        assert_eq!(answer["queues"][0]["dead_letters"], 2, "round {round}: {answer}");
    }
    kill(Pid::from_raw(jm.id().context("it runs")?.try_into()?), Signal::SIGINT)?;
    let status = tokio::time::timeout(Duration::from_secs(10), jm.wait()).await??;
    assert_eq!(status.code(), Some(0));
    let counts = vhost.wait_for_counts("jm.asr.dead", Duration::from_secs(10), |counts| counts.unacked == 0).await?;
    assert_eq!(counts.ready, 2);
    Ok(())
}

#[tokio::test]
async fn colour_comes_only_where_it_is_asked_for_or_on_a_terminal() -> Result<()> {
    let vhost = prepared().await?;
    assert!(said(jm_at(&vhost), ["status", "--color", "always"]).await?.out.contains('\u{1b}'));
    assert!(!said(jm_at(&vhost), ["status", "--color", "never"]).await?.out.contains('\u{1b}'));
    let json = said(jm_at(&vhost), ["status", "--color", "always", "--json"]).await?;
    assert!(!json.out.contains('\u{1b}'), "{json:?}");
    Ok(())
}

#[tokio::test]
async fn an_alarm_comes_first_and_is_found_with_the_management_api_and_without() -> Result<()> {
    let node = RabbitNode::builder().plugin(PLUGIN).config_line("collect_statistics_interval = 1000").start().await?;
    let vhost = node.vhost().await?;
    monitoring_on(&node, &vhost.user).await?;
    said(jm_at(&vhost), ["topology", "apply"]).await?;
    let url = format!("http://127.0.0.1:{}", node.http_port(PLUGIN).context("a port")?);
    let with_management = || {
        let mut command = jm_at(&vhost);
        command.env("JM_MANAGEMENT__URL", &url);
        command
    };
    for command in [jm_at(&vhost), with_management()] {
        let calm = said(command, ["status"]).await?;
        assert_eq!(calm.code, 0, "{calm:?}");
    }
    node.memory_alarm(true).await?;
    let told = told_at_last(async || said(with_management(), ["status"]).await, |said| said.code == 1).await?;
    assert!(
        told.out.starts_with("ALARM ") && told.out.lines().next().is_some_and(|line| line.contains("memory alarm"))
    );
    let told = said(jm_at(&vhost), ["status", "--json"]).await?;
    assert_eq!(told.code, 1, "{told:?}");
    assert_eq!(told.json()?["alarms"], json!(["publishers are blocked: low on memory"]));
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_queue_that_is_missing_and_tasks_without_a_consumer_are_marked() -> Result<()> {
    let vhost = prepared().await?;
    vhost.delete_queue("jm.asr.dead").await?;
    let told = said(jm_at(&vhost), ["status", "jm.asr"]).await?;
    assert_eq!(told.code, 1, "{told:?}");
    let lines: Vec<&str> = told.out.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with("jm.asr.dead: does not exist; ")), "{told:?}");
    assert!(lines.contains(&"jm.asr: 3 ready and no consumer; start asr-worker"), "{told:?}");
    assert!(lines.iter().any(|line| line.starts_with("jm.asr ") && line.contains("missing")), "{told:?}");
    Ok(())
}
