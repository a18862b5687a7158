//! `jm doctor`: each line ok, or what to do.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use jm_testkit::{HttpResponse, HttpServer, RabbitNode};
use serde_json::{Value, json};

use crate::{
    ground::{jm_with_management, node, vhost},
    support::{assert_plain_and_narrow, jm, jm_at, said},
};

/// The checks of that name, as `(state, text)`.
fn of(answer: &Value, check: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = answer["checks"].as_array().into_iter().flatten();
    checks.filter(|found| found["check"] == check).map(|found| (text(&found["state"]), text(&found["text"]))).collect()
}

fn state(answer: &Value, check: &str) -> Option<String> {
    of(answer, check).into_iter().map(|(state, _)| state).next()
}

#[tokio::test]
async fn a_broker_with_all_queues_is_well_and_its_version_says_what_follows() -> Result<()> {
    let vhost = vhost().await?;
    said(jm_at(&vhost), ["topology", "apply"]).await?;
    let arguments = ["doctor", "--worker", "asr-worker", "--json"];
    let said_with = said(jm_with_management(&vhost).await?, arguments).await?;
    let answer = said_with.json()?;
    assert_eq!(said_with.code, 0, "{answer:#}");
    for check in ["broker", "version", "heartbeat", "alarms", "queues", "topology", "policies", "permissions", "clock"]
    {
        assert_eq!(state(&answer, check).as_deref(), Some("ok"), "{check}: {answer:#}");
    }
    let broker = &of(&answer, "broker")[0].1;
    let version = node().await?.version().await?;
    assert!(broker.starts_with(&format!("RabbitMQ {version} on jm")) && broker.contains(&vhost.user), "{broker}");
    let limits = match version.split('.').next() {
        _ if version.starts_with("4.3") => "20 times, requeues not counted; messages up to 16 MiB",
        Some("3") => "no delivery limit; messages up to 128 MiB",
        _ => "quorum queues give a message out 20 times; messages up to 16 MiB",
    };
    assert!(of(&answer, "version")[0].1.contains(limits), "{answer:#}");
    assert_eq!(of(&answer, "queues")[0].1, "classic: jm.asr");
    // Without the management API it says what it cannot know.
    let answer = said(jm_at(&vhost), arguments).await?.json()?;
    for check in ["policies", "clock"] {
        assert_eq!(state(&answer, check).as_deref(), Some("unknown"), "{check}: {answer:#}");
    }
    let keys = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<BTreeSet<_>>());
    let wanted = |keys: &[&str]| Some(keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>());
    assert_eq!(keys(&answer), wanted(&["ok", "warn", "fail", "unknown", "checks"]));
    assert_eq!(keys(&answer["checks"][0]), wanted(&["check", "state", "text", "remedy"]));
    Ok(())
}

#[tokio::test]
async fn every_line_that_is_not_ok_says_what_to_do_and_fits() -> Result<()> {
    let vhost = vhost().await?;
    for command in [jm_at(&vhost), jm_with_management(&vhost).await?] {
        let said = said(command, ["doctor"]).await?;
        assert_eq!(said.code, 1, "no queue is there: {said:?}");
        assert_plain_and_narrow(&said.out, "doctor");
    }
    let answer = said(jm_at(&vhost), ["doctor", "--json"]).await?.json()?;
    for check in answer["checks"].as_array().context("checks")? {
        assert_eq!(check["remedy"].is_null(), check["state"] == "ok", "{check}");
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_one_line_and_the_rest_is_checked() -> Result<()> {
    let mut command = jm();
    command.env("JM_RABBITMQ__PORT", "1");
    let said = said(command, ["doctor", "--json"]).await?;
    assert_eq!((said.code, said.err.as_str()), (1, ""), "{said:?}");
    let answer = said.json()?;
    assert_eq!(of(&answer, "broker").len(), 1, "{answer:#}");
    assert!(of(&answer, "broker")[0].1.starts_with("cannot reach RabbitMQ at 127.0.0.1:1: "), "{answer:#}");
    assert_eq!(of(&answer, "engine").len(), 4, "{answer:#}");
    assert_eq!(of(&answer, "database").len(), 1, "{answer:#}");
    Ok(())
}

#[tokio::test]
async fn an_alarm_is_told_of_with_its_reason_and_holds_nothing_up() -> Result<()> {
    let node = RabbitNode::start().await?;
    let vhost = node.vhost().await?;
    said(jm_at(&vhost), ["topology", "apply"]).await?;
    node.memory_alarm(true).await?;
    let answer = said(jm_at(&vhost), ["doctor", "--worker", "asr-worker", "--json"]).await?;
    let told = of(&answer.json()?, "alarms");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "fail");
    assert!(told[0].1.contains("publishers are blocked: low on memory"), "{told:?}");
    assert_eq!(answer.code, 1);
    let checked = said(jm_at(&vhost), ["topology", "check", "--worker", "asr-worker"]).await?;
    assert!(checked.out.contains("the broker blocks"), "{checked:?}");
    Ok(())
}

#[tokio::test]
async fn engines_are_asked_for_their_models_with_the_workers_key() -> Result<()> {
    let server = HttpServer::start().await?;
    server.on("GET", "/v1/models", |request| {
        if request.header("authorization") == Some("Bearer right") {
            HttpResponse::json(200, json!({ "data": [{ "id": "whisper-1" }] }))
        } else {
            HttpResponse::status(401)
        }
    });
    let look = async |key: &str, model: &str, url: &str| -> Result<(String, String)> {
        let mut command = jm();
        command.env("JM_ENGINE__BASE_URL", url).env("JM_ENGINE__MODEL", model).env("JM_ENGINE__API_KEY", key);
        command.env("JM_RABBITMQ__PORT", "1");
        let said = said(command, ["doctor", "--worker", "asr-worker", "--json"]).await?;
        assert!(
            key.is_empty() || !said.out.contains(key) || key == "right" && !said.out.contains("Bearer"),
            "{said:?}"
        );
        of(&said.json()?, "engine").into_iter().next().context("a line")
    };
    let url = server.url("/v1");
    assert_eq!(look("right", "whisper-1", &url).await?.0, "ok");
    let (state, text) = look("right", "whisper-9", &url).await?;
    assert_eq!(state, "warn");
    assert!(text.contains("does not list the model `whisper-9`; it has whisper-1"), "{text}");
    let (state, text) = look("secret-canary", "whisper-1", &url).await?;
    assert_eq!(state, "fail");
    assert!(text.contains("refuses the key"), "{text}");
    let (state, text) = look("right", "whisper-1", "http://127.0.0.1:1/v1").await?;
    assert_eq!(state, "fail");
    assert!(text.contains("cannot reach http://127.0.0.1:1/v1"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_database_is_looked_into_and_never_made() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("records.db");
    let look = async || -> Result<(String, String)> {
        let mut command = jm();
        command.env("JM_DATABASE__URL", format!("sqlite://{}", file.display())).env("JM_RABBITMQ__PORT", "1");
        let said = said(command, ["doctor", "--worker", "record-event-worker", "--json"]).await?;
        of(&said.json()?, "database").into_iter().next().context("a line")
    };
    assert_eq!(look().await?.0, "fail");
    assert!(!file.exists());
    let options = record_event_worker::DatabaseOptions {
        url: format!("sqlite://{}", file.display()).into(),
        ..Default::default()
    };
    record_event_worker::Store::open(&options).await?.close().await;
    assert_eq!(look().await?, ("ok".to_owned(), "SQLite answers, and has the records' tables".to_owned()));
    Ok(())
}

#[tokio::test]
async fn the_sum_and_the_failures_come_first_and_each_remedy_once() -> Result<()> {
    let vhost = vhost().await?;
    let told = said(jm_at(&vhost), ["doctor"]).await?;
    assert_eq!(told.code, 1, "no queue is there: {told:?}");
    let mut lines = told.out.lines();
    let sum = lines.next().context("a sum")?;
    assert!(sum.contains(" fail, ") && !sum.starts_with('0') && sum.ends_with(" ok"), "{told:?}");
    let order = ["fail", "warn", "unknown", "ok"];
    let states: Vec<usize> =
        lines.filter_map(|line| order.iter().position(|state| line.split(' ').next() == Some(*state))).collect();
    assert!(states.is_sorted() && states.first() == Some(&0), "{states:?}: {told:?}");
    assert_eq!(told.out.matches("-> jm topology apply\n").count(), 1, "{told:?}");
    assert!(!told.out.contains("missing"), "{told:?}");
    // A command's quoted word is on one line.
    assert!(told.out.contains("'application:get_env(rabbit, consumer_timeout).'"), "{told:?}");
    Ok(())
}
