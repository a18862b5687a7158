//! `jm topology` finds every difference that is planted, and mends only what is missing.

mod planted;

use anyhow::{Context as _, Result};
use lapin::{
    ExchangeKind,
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use tokio::process::Command;

use self::planted::{PLANTED, Plant, Planted};
use crate::{
    ground::{jm_with_management, node, told_at_last, vhost},
    support::{Said, assert_plain_and_narrow, jm, jm_at, said},
};

const QUEUE: &str = "jm.asr";
const DEAD: &str = "jm.asr.dead";

/// The finding of an answer, if there is one.
fn finding<'a>(answer: &'a Value, object: &str, name: &str) -> Option<&'a Value> {
    let findings = answer["findings"].as_array()?;
    findings.iter().find(|finding| {
        finding["object"] == object && finding["name"].as_str().is_some_and(|found| found == name || name.is_empty())
    })
}

async fn planted(planted: &Planted) -> Result<()> {
    let (node, vhost) = (node().await?, vhost().await?);
    let applied = said(jm_at(&vhost), ["topology", "apply"]).await?;
    anyhow::ensure!(applied.code == 0, "apply: {applied:?}");
    let before = said(jm_with_management(&vhost).await?, ["topology", "diff", "--worker", "asr-worker"]).await?;
    anyhow::ensure!((before.code, before.out.as_str()) == (0, "no differences\n"), "before: {before:?}");
    planted.plant.plant(node, &vhost).await?;

    let arguments = ["topology", "diff", "--worker", "asr-worker", "--json"];
    for with_management in [true, false] {
        // That nobody tells is said once for all of a worker's.
        let of = if with_management || planted.over_amqp { planted.of } else { "" };
        let ask = async || {
            let command = if with_management { jm_with_management(&vhost).await? } else { jm_at(&vhost) };
            said(command, arguments).await
        };
        let is_told = |said: &Said| said.json().is_ok_and(|answer| finding(&answer, planted.object, of).is_some());
        let said = told_at_last(ask, is_told).await?;
        let answer = said.json()?;
        let found = finding(&answer, planted.object, of);
        let found = found.with_context(|| format!("nothing of it, with management {with_management}: {answer:#}"))?;
        let text = found["text"].as_str().unwrap_or_default();
        if with_management || planted.over_amqp {
            let mend = found["mend"].as_str().unwrap_or_default();
            anyhow::ensure!(found["state"] == planted.state, "with management {with_management}: {found}");
            anyhow::ensure!(text.contains(planted.words), "with management {with_management}: {found}");
            anyhow::ensure!(mend.contains(planted.mend), "with management {with_management}: {found}");
            anyhow::ensure!(said.code == 1, "with management {with_management}: {said:?}");
        } else {
            anyhow::ensure!(found["state"] == "unknown" && text.starts_with("AMQP does not tell"), "{found}");
        }
    }
    let people = said(jm_with_management(&vhost).await?, &arguments[..4]).await?;
    assert_plain_and_narrow(&people.out, planted.name);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn diff_finds_every_difference_that_is_planted_and_says_what_amqp_does_not_tell() -> Result<()> {
    for each in PLANTED {
        planted(each).await.with_context(|| each.name)?;
    }
    Ok(())
}

#[tokio::test]
async fn amqp_tells_the_first_difference_of_a_queue_or_an_exchange_and_the_management_api_all() -> Result<()> {
    let (node, vhost) = (node().await?, vhost().await?);
    said(jm_at(&vhost), ["topology", "apply"]).await?;
    let limits = "true, false, [{<<\"x-max-length\">>, signedint, 9}, {<<\"x-message-ttl\">>, signedint, 60000}]";
    Plant::Queue(QUEUE, limits).plant(node, &vhost).await?;
    Plant::Exchange("topic, true, true, true, []").plant(node, &vhost).await?;
    let texts = async |command: Command| -> Result<[String; 2]> {
        let answer = said(command, ["topology", "diff", "--worker", "asr-worker", "--json"]).await?.json()?;
        let text = |object| finding(&answer, object, QUEUE).map(|finding| finding["text"].to_string());
        Ok([text("queue").context("the queue")?, text("exchange").context("the exchange")?])
    };
    let told = |text: &str, words: [&str; 3]| words.iter().filter(|words| text.contains(**words)).count();
    let of_queue = ["x-max-length=9", "x-message-ttl=60000", "is "];
    let of_exchange = ["is of kind topic", "is auto-delete", "is internal"];
    let [queue, exchange] = texts(jm_at(&vhost)).await?;
    assert_eq!((told(&queue, of_queue), told(&exchange, of_exchange)), (1, 1), "{queue} {exchange}");
    let [queue, exchange] = texts(jm_with_management(&vhost).await?).await?;
    assert_eq!((told(&queue, of_queue), told(&exchange, of_exchange)), (2, 3), "{queue} {exchange}");
    Ok(())
}

#[tokio::test]
async fn a_worker_that_relies_on_a_policy_for_its_dead_letters_is_told_that_there_is_none() -> Result<()> {
    let vhost = vhost().await?;
    let with_broker = async |arguments: &[&str]| -> Result<Said> {
        let mut command = jm_with_management(&vhost).await?;
        command.env("JM_CONSUMER__DEAD_LETTER", "broker");
        said(command, arguments).await
    };
    with_broker(&["topology", "apply"]).await?;
    let diff = ["topology", "diff", "--worker", "asr-worker", "--json"];
    let told = with_broker(&diff).await?;
    let found = finding(&told.json()?, "policy", QUEUE).cloned().context("a finding")?;
    assert!(found["text"].as_str().is_some_and(|text| text.contains("is discarded")), "{found}");
    assert!(found["mend"].as_str().is_some_and(|mend| mend.starts_with("rabbitmqctl set_policy")), "{found}");
    vhost.set_policy("dlx", "^jm\\.asr$", r#"{"dead-letter-exchange": "", "dead-letter-routing-key": "x"}"#).await?;
    let told = told_at_last(async || with_broker(&diff).await, |told| told.code == 0).await?;
    assert_eq!(told.code, 0, "{told:?}");
    Ok(())
}

#[tokio::test]
async fn apply_declares_only_what_is_missing_and_never_changes_what_exists() -> Result<()> {
    let vhost = vhost().await?;
    vhost.declare_exchange(QUEUE, ExchangeKind::Topic).await?;
    let mut ttl = FieldTable::default();
    ttl.insert("x-message-ttl".into(), AMQPValue::LongInt(60_000_000));
    vhost.declare_queue_with("jm.sd", true, ttl).await?;
    vhost.publish("jm.sd", lapin::BasicProperties::default(), b"{}").await?;

    let dry = said(jm_at(&vhost), ["topology", "apply", "--dry-run"]).await?;
    assert_eq!(dry.code, 1, "{dry:?}");
    assert!(dry.out.contains("would declare queue jm.llm\n"), "{dry:?}");
    assert!(!vhost.queue_exists("jm.llm").await?);

    let applied = said(jm_with_management(&vhost).await?, ["topology", "apply", "--json"]).await?;
    assert_eq!(applied.code, 1, "two still differ: {applied:?}");
    let answer = applied.json()?;
    let declared: Vec<&str> =
        answer["declared"].as_array().context("declared")?.iter().filter_map(Value::as_str).collect();
    assert!(declared.contains(&"queue jm.asr") && declared.contains(&"exchange jm.sd"), "{declared:?}");
    assert!(!declared.contains(&"exchange jm.asr") && !declared.contains(&"queue jm.sd"), "{declared:?}");
    assert_eq!(answer["differences"], 4, "two that differ, and their bindings: {answer:#}");
    assert_eq!(vhost.queue_counts("jm.sd").await?.ready, 1);

    let again = said(jm_with_management(&vhost).await?, ["topology", "apply", "--json"]).await?.json()?;
    assert_eq!(again["declared"], serde_json::json!([]));
    Ok(())
}

#[tokio::test]
async fn queues_that_operators_create_are_neither_created_nor_compared() -> Result<()> {
    let vhost = vhost().await?;
    let check = async |arguments: &[&str]| -> Result<Said> {
        let mut command = jm_with_management(&vhost).await?;
        command.env("JM_CONSUMER__DECLARE", "check").args(["--worker", "asr-worker"]);
        said(command, arguments).await
    };
    let applied = check(&["topology", "apply"]).await?;
    assert_eq!(applied.code, 1, "{applied:?}");
    assert!(!vhost.queue_exists(QUEUE).await?);

    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    vhost.declare_queue_with(QUEUE, true, quorum).await?;
    vhost.declare_queue(DEAD).await?;
    vhost.declare_exchange(QUEUE, ExchangeKind::Topic).await?;
    vhost.bind(QUEUE, QUEUE, QUEUE).await?;
    let diff = check(&["topology", "diff"]).await?;
    assert_eq!(diff.code, 0, "{diff:?}");
    Ok(())
}

#[tokio::test]
async fn the_keys_of_a_check_are_stable_and_its_table_fits() -> Result<()> {
    let vhost = vhost().await?;
    said(jm_at(&vhost), ["topology", "apply"]).await?;
    let arguments = ["topology", "check", "--worker", "asr-worker"];
    let answer = said(jm_with_management(&vhost).await?, arguments.iter().chain(&["--json"])).await?.json()?;
    let ok = |object: &str, name: &str, text: &str| serde_json::json!({ "object": object, "name": name, "state": "ok", "text": text, "mend": null });
    assert_eq!(
        answer,
        serde_json::json!({
            "vhost": vhost.name,
            "differences": 0,
            "unknown": 0,
            "findings": [
                ok("exchange", QUEUE, "direct, durable, no arguments"),
                ok("queue", QUEUE, "durable, no arguments"),
                ok("binding", QUEUE, "to exchange jm.asr with key jm.asr"),
                ok("queue", DEAD, "durable, no arguments"),
                ok("policy", QUEUE, "none that loses messages"),
                ok("permission", &format!("{} (asr-worker)", vhost.user), "configure, write and read as needed"),
            ],
        })
    );
    for command in [jm_with_management(&vhost).await?, jm_at(&vhost)] {
        let table = said(command, ["topology", "check"]).await?;
        assert_eq!(table.code, 0, "{table:?}");
        assert_plain_and_narrow(&table.out, "topology check");
    }
    Ok(())
}

/// Another user than jm's own: the one that the command is for.
#[tokio::test]
async fn a_remedy_gives_a_worker_what_it_needs_and_jms_own_user_nothing() -> Result<()> {
    let vhost = vhost().await?;
    said(jm_at(&vhost), ["topology", "apply"]).await?;
    let (viewer, folder) = (format!("viewer-of-{}", vhost.name), tempfile::tempdir()?);
    vhost.add_user(&viewer, "x").await?;
    vhost.set_permissions(&viewer, "^$", "^$", "^$").await?;
    vhost.set_permissions(&vhost.user, "^jm\\.", "^amq\\.default$", "^jm\\.").await?;
    // As the environment of jm-viewer: it is taken for the workers' user.
    for command in [["doctor", "--json"], ["topology", "diff"]] {
        let mut jm = jm_at(&vhost);
        jm.env("JM_RABBITMQ__NAME", &viewer).env("JM_RABBITMQ__PASSWORD", "x");
        let told = said(jm, command).await?;
        assert!(!told.out.contains("set_permissions"), "{told:?}");
        assert!(told.out.contains("is jm's own user here"), "{told:?}");
    }
    // jm has its own in jm.yaml, and the worker's user is configured.
    let own = serde_json::json!({ "rabbitmq": { "name": viewer, "password": "x" } });
    std::fs::write(folder.path().join("jm.yaml"), own.to_string())?;
    let workers = serde_json::json!({ "rabbitmq": { "name": vhost.user, "password": vhost.password } });
    std::fs::write(folder.path().join("default.yaml"), workers.to_string())?;
    let with_files = |arguments: &[&str]| {
        let mut jm = jm();
        jm.env("JM_CONFIG", folder.path());
        jm.env("JM_RABBITMQ__PORT", vhost.port.to_string()).env("JM_RABBITMQ__VHOST", &vhost.name);
        jm.args(arguments);
        jm
    };
    let told = said(with_files(&["topology", "diff", "--worker", "asr-worker", "--json"]), [""; 0]).await?;
    let found = finding(&told.json()?, "permission", "").cloned().context("a finding")?;
    let mend = found["mend"].as_str().unwrap_or_default();
    let rights = r"'^(jm\.asr|jm\.asr\.dead|jm\.coreRecordEvent)$' '^(amq\.default|jm\.asr|jm\.asr\.dead|jm\.coreRecordEvent)$' '^(jm\.asr|jm\.coreRecordEvent)$'";
    assert_eq!(mend, format!("rabbitmqctl set_permissions --vhost {} {} {rights}", vhost.name, vhost.user), "{found}");

    // Only jm's user is configured, as docs/jm.md has it: nobody logs in as guest.
    std::fs::write(folder.path().join("default.yaml"), "{}")?;
    let before = node().await?.log()?.matches("guest").count();
    let told = said(with_files(&["doctor", "--json"]), [""; 0]).await?;
    assert!(told.out.contains("the worker's user is not configured here"), "{told:?}");
    assert_eq!(node().await?.log()?.matches("guest").count(), before);
    Ok(())
}

#[tokio::test]
async fn policies_are_judged_by_what_they_do_on_this_broker() -> Result<()> {
    let vhost = vhost().await?;
    let (_, has_limit) = crate::counting::broker().await;
    said(jm_at(&vhost), ["topology", "apply"]).await?;
    for queue in [QUEUE, DEAD] {
        vhost.delete_queue(queue).await?;
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        vhost.declare_queue_with(queue, true, quorum).await?;
    }
    vhost.bind(QUEUE, QUEUE, QUEUE).await?;
    let ask = async || {
        let mut command = jm_with_management(&vhost).await?;
        // They are quorum queues as in k8s/components/rabbitmq, where the workers' declarations make them.
        command.env("JM_CONSUMER__DECLARE", "check");
        said(command, ["topology", "check", "--worker", "asr-worker", "--json"]).await
    };
    let states = |said: &Said| -> Vec<(String, String)> {
        let answer = said.json().unwrap_or_default();
        let findings = answer["findings"].as_array().into_iter().flatten();
        let policies = findings.filter(|finding| finding["object"] == "policy");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        policies.map(|finding| (text(&finding["name"]), text(&finding["state"]))).collect()
    };
    let of = |wanted: &[(&str, &str)]| -> Vec<(String, String)> {
        wanted.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect()
    };
    // Without any: RabbitMQ 4 drops what is returned more than 20 times, RabbitMQ 3 drops nothing.
    let wanted = if has_limit { of(&[(QUEUE, "differs"), (DEAD, "differs")]) } else { of(&[(QUEUE, "ok")]) };
    let told = told_at_last(ask, |said| states(said) == wanted).await?;
    assert_eq!(states(&told), wanted, "{told:?}");
    if has_limit {
        let text = told.json()?.to_string();
        let mend = r#"rabbitmqctl set_policy --vhost VHOST jm.dead '^jm\\..+\\.dead$' '{\"delivery-limit\":-1}' --apply-to queues"#;
        assert!(text.contains(&mend.replace("VHOST", &vhost.name)), "{text}");
    }
    // As k8s/components/rabbitmq has them: nothing to say.
    let shipped = r#"{"delivery-limit": 20, "dead-letter-exchange": "", "dead-letter-routing-key": "jm.asr.dead",
        "dead-letter-strategy": "at-least-once", "overflow": "reject-publish"}"#;
    vhost.set_policy(QUEUE, r"^jm\.asr$", shipped).await?;
    if has_limit {
        vhost.set_policy("jm.dead", r"^jm\..+\.dead$", r#"{"delivery-limit": -1}"#).await?;
    }
    let told = told_at_last(ask, |said| states(said) == of(&[(QUEUE, "ok")])).await?;
    assert_eq!(states(&told), of(&[(QUEUE, "ok")]), "{told:?}");
    Ok(())
}
