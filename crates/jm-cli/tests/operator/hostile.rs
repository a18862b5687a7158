//! Names and texts of strangers: nothing of them reaches a terminal, or a viewer of JSON, unescaped.

use anyhow::{Context as _, Result};
use jm_testkit::{HttpResponse, HttpServer};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::{
    dead_letters::{Dead, QUEUE, dead, leave, on},
    ground::{jm_with_management, monitoring, node, told_at_last},
    support::{Said, said},
};

/// Clears the screen, writes into the clipboard, sets C1's CSI, DEL, and turns the direction.
const HOSTILE: &str = "a\u{1b}[2J\u{1b}]52;c;eA==\u{7}\u{9b}2J\u{7f}\u{202e}z";

fn assert_plain(told: &Said) {
    for text in [&told.out, &told.err] {
        let obeyed: Vec<char> =
            text.chars().filter(|&letter| letter != '\n' && jm_service::escape::is_obeyed(letter)).collect();
        assert!(obeyed.is_empty(), "{obeyed:?}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_terminal_obeys_comes_out_of_any_command() -> Result<()> {
    let vhost = on(node().await?).await;
    monitoring(&vhost.user).await?;
    said(jm_with_management(&vhost).await?, ["topology", "apply"]).await?;
    // A queue's name and arguments, a binding's key, a policy's name, an error's kind and text, a model's id.
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(60_000_000));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(HOSTILE.into()));
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(HOSTILE.into()));
    vhost.delete_queue("jm.asr").await?;
    vhost.declare_queue_with("jm.asr", true, arguments).await?;
    vhost.declare_queue(HOSTILE).await?;
    vhost.bind(HOSTILE, "jm.asr", HOSTILE).await?;
    vhost.set_policy(HOSTILE, r"^jm\.llm$", r#"{"message-ttl": 60000000}"#).await?;
    let hostile = Dead { kind: HOSTILE, error_kind: HOSTILE, error: HOSTILE.into(), ..dead(HOSTILE) };
    leave(&vhost, [hostile]).await;
    let server = HttpServer::start().await?;
    server.on("GET", "/v1/models", |_| HttpResponse::json(200, json!({ "data": [{ "id": HOSTILE }] })));
    let jm = async |arguments: &[&str]| -> Result<Said> {
        let mut command = jm_with_management(&vhost).await?;
        command.env("JM_ENGINE__BASE_URL", server.url("/v1")).env("JM_ENGINE__MODEL", "m");
        said(command, arguments).await
    };
    let has_policy = |told: &Said| told.out.contains("message-ttl)");
    told_at_last(async || jm(&["topology", "check"]).await, has_policy).await?;
    for arguments in [
        &["topology", "check"][..],
        &["topology", "diff"],
        &["doctor"],
        &["status"],
        &["dead", "list", QUEUE],
        &["dead", "list", HOSTILE],
        &["dead", "show", QUEUE],
        &["dead", "show", QUEUE, "--bodies"],
        &["dead", "replay", QUEUE, "--dry-run"],
        &["dead", "replay", QUEUE, "--to", HOSTILE, "--id", "none"],
        &["record", "show", HOSTILE],
        &["publish", HOSTILE, "--json", "{}"],
        &["schema", HOSTILE],
        &["man", HOSTILE],
        &[HOSTILE],
    ] {
        assert_plain(&jm(arguments).await?);
        let told = jm(&[&["--json"], arguments].concat()).await?;
        assert_plain(&told);
    }
    let told = jm(&["topology", "diff", "--json"]).await?;
    assert!(told.out.contains(r"\u001b[2J") && told.out.contains(r"\u009b2J\u007f\u202e"), "{told:?}");
    let listed: Value =
        serde_json::from_str(jm(&["dead", "list", QUEUE, "--json"]).await?.out.trim()).context("JSON")?;
    assert_eq!(listed["error_kind"], HOSTILE, "it is the same text");
    let told = jm(&["doctor"]).await?;
    assert!(told.out.contains(r"a\u001b[2J"), "the model, escaped: {told:?}");
    Ok(())
}
