//! `jm topology` finds every difference that is planted, and mends only what is missing.

use anyhow::{Context as _, Result};
use jm_testkit::{RabbitNode, Vhost};
use lapin::{
    ExchangeKind,
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;

use crate::{
    ground::{jm_with_management, node, told_at_last, vhost},
    support::{Said, assert_plain_and_narrow, jm_at, said},
};

const QUEUE: &str = "jm.asr";
const DEAD: &str = "jm.asr.dead";

/// One difference: how it comes about, and how it is told of.
struct Planted {
    name: &'static str,
    plant: Plant,
    /// The object that is told of, and its state.
    object: &'static str,
    of: &'static str,
    state: &'static str,
    /// A part of the words.
    words: &'static str,
    /// A part of the command that mends it.
    mend: &'static str,
    /// Whether AMQP alone tells.
    over_amqp: bool,
}

enum Plant {
    NoExchange,
    /// In Erlang: kind, durable, auto-delete, internal, arguments.
    Exchange(&'static str),
    /// In Erlang: durable, auto-delete, arguments.
    Queue(&'static str, &'static str),
    NoQueue(&'static str),
    NoBinding,
    Policy(&'static str, &'static str),
    /// Configure, write, read.
    Permissions([&'static str; 3]),
}

const PLANTED: &[Planted] = &[
    Planted {
        name: "an exchange that is missing",
        plant: Plant::NoExchange,
        object: "exchange",
        of: QUEUE,
        state: "missing",
        words: "wanted: direct, durable, no arguments",
        mend: "jm topology apply",
        over_amqp: true,
    },
    Planted {
        name: "an exchange of another kind",
        plant: Plant::Exchange("topic, true, false, false, []"),
        object: "exchange",
        of: QUEUE,
        state: "differs",
        words: "is of kind topic, and should be direct",
        mend: "delete exchange name=jm.asr && jm topology apply",
        over_amqp: true,
    },
    Planted {
        name: "an exchange that a restart takes away",
        plant: Plant::Exchange("direct, false, false, false, []"),
        object: "exchange",
        of: QUEUE,
        state: "differs",
        words: "is not durable",
        mend: "delete exchange",
        over_amqp: true,
    },
    Planted {
        name: "an exchange that goes with its last binding",
        plant: Plant::Exchange("direct, true, true, false, []"),
        object: "exchange",
        of: QUEUE,
        state: "differs",
        words: "is auto-delete",
        mend: "delete exchange",
        over_amqp: true,
    },
    Planted {
        name: "an exchange to which nobody can publish",
        plant: Plant::Exchange("direct, true, false, true, []"),
        object: "exchange",
        of: QUEUE,
        state: "differs",
        words: "is internal",
        mend: "delete exchange",
        over_amqp: true,
    },
    Planted {
        name: "an exchange with an argument",
        plant: Plant::Exchange(
            "direct, true, false, false, [{<<\"alternate-exchange\">>, longstr, <<\"amq.fanout\">>}]",
        ),
        object: "exchange",
        of: QUEUE,
        state: "differs",
        words: "alternate-exchange=amq.fanout",
        mend: "delete exchange",
        over_amqp: true,
    },
    Planted {
        name: "a queue that is missing",
        plant: Plant::NoQueue(QUEUE),
        object: "queue",
        of: QUEUE,
        state: "missing",
        words: "wanted: durable, no arguments",
        mend: "jm topology apply",
        over_amqp: true,
    },
    Planted {
        name: "a queue that a restart takes away",
        plant: Plant::Queue(QUEUE, "false, false, []"),
        object: "queue",
        of: QUEUE,
        state: "differs",
        words: "is not durable",
        mend: "jm.asr --if-empty --if-unused && jm topology apply",
        over_amqp: true,
    },
    Planted {
        name: "a queue that goes with its last consumer",
        plant: Plant::Queue(QUEUE, "true, true, []"),
        object: "queue",
        of: QUEUE,
        state: "differs",
        words: "is auto-delete",
        mend: "rabbitmqctl delete_queue --vhost",
        over_amqp: true,
    },
    Planted {
        name: "a queue with an argument",
        plant: Plant::Queue(QUEUE, "true, false, [{<<\"x-message-ttl\">>, signedint, 60000}]"),
        object: "queue",
        of: QUEUE,
        state: "differs",
        words: "has the argument x-message-ttl=60000",
        mend: "rabbitmqctl delete_queue",
        over_amqp: true,
    },
    Planted {
        name: "a quorum queue",
        plant: Plant::Queue(QUEUE, "true, false, [{<<\"x-queue-type\">>, longstr, <<\"quorum\">>}]"),
        object: "queue",
        of: QUEUE,
        state: "differs",
        words: "is a quorum queue, which workers do not declare",
        mend: "rabbitmqctl delete_queue",
        over_amqp: true,
    },
    Planted {
        name: "a dead-letter queue that is missing",
        plant: Plant::NoQueue(DEAD),
        object: "queue",
        of: DEAD,
        state: "missing",
        words: "is not there",
        mend: "jm topology apply",
        over_amqp: true,
    },
    Planted {
        name: "a dead-letter queue that forgets",
        plant: Plant::Queue(DEAD, "true, false, [{<<\"x-max-length\">>, signedint, 1000}]"),
        object: "queue",
        of: DEAD,
        state: "differs",
        words: "has the argument x-max-length=1000",
        mend: "rabbitmqctl delete_queue",
        over_amqp: true,
    },
    Planted {
        name: "a user who may not send answers",
        plant: Plant::Permissions([".*", "^(jm.asr|amq.default)$", ".*"]),
        object: "permission",
        of: "",
        state: "differs",
        words: "may not write to exchange jm.coreRecordEvent",
        mend: "rabbitmqctl set_permissions --vhost",
        over_amqp: true,
    },
    Planted {
        name: "a user who may not read the queue",
        plant: Plant::Permissions([".*", ".*", "^$"]),
        object: "permission",
        of: "",
        state: "differs",
        words: "may not read from jm.asr",
        mend: "rabbitmqctl set_permissions --vhost",
        over_amqp: true,
    },
    Planted {
        name: "a user who may not declare",
        plant: Plant::Permissions(["^$", ".*", ".*"]),
        object: "permission",
        of: "",
        state: "differs",
        words: "may not configure jm.asr, configure jm.asr.dead, configure exchange jm.asr",
        mend: "rabbitmqctl set_permissions --vhost",
        over_amqp: true,
    },
    Planted {
        name: "a queue that is not bound",
        plant: Plant::NoBinding,
        object: "binding",
        of: QUEUE,
        state: "missing",
        words: "to exchange jm.asr with key jm.asr is not there",
        mend: "jm topology apply",
        over_amqp: false,
    },
    Planted {
        name: "a policy that drops tasks",
        plant: Plant::Policy("^jm\\.asr$", r#"{"message-ttl": 60000}"#),
        object: "policy",
        of: QUEUE,
        state: "differs",
        words: "drops what waits for longer than 60000 ms (message-ttl), and nothing keeps it",
        mend: "rabbitmqctl clear_policy --vhost",
        over_amqp: false,
    },
    Planted {
        name: "a policy that drops dead letters",
        plant: Plant::Policy("^jm\\.asr\\.dead$", r#"{"max-length": 1000}"#),
        object: "policy",
        of: DEAD,
        state: "differs",
        words: "drops what is beyond 1000 messages (max-length)",
        mend: "rabbitmqctl clear_policy --vhost",
        over_amqp: false,
    },
];

impl Plant {
    async fn plant(&self, node: &RabbitNode, vhost: &Vhost) -> Result<()> {
        let resource = |kind: &str, name: &str| format!("{{resource, <<\"{}\">>, {kind}, <<\"{name}\">>}}", vhost.name);
        match self {
            Self::NoExchange => vhost.delete_exchange(QUEUE).await,
            Self::Exchange(made) => {
                vhost.delete_exchange(QUEUE).await?;
                let exchange = resource("exchange", QUEUE);
                node.eval(&format!("rabbit_exchange:declare({exchange}, {made}, <<\"test\">>)")).await?;
                vhost.bind(QUEUE, QUEUE, QUEUE).await
            }
            Self::Queue(queue, made) => {
                vhost.delete_queue(queue).await?;
                let resource = resource("queue", queue);
                node.eval(&format!("rabbit_amqqueue:declare({resource}, {made}, none, <<\"test\">>)")).await?;
                if *queue == QUEUE { vhost.bind(QUEUE, QUEUE, QUEUE).await } else { Ok(()) }
            }
            Self::NoQueue(queue) => vhost.delete_queue(queue).await.map(drop),
            Self::NoBinding => vhost.unbind(QUEUE, QUEUE, QUEUE).await,
            Self::Policy(pattern, definition) => vhost.set_policy("planted", pattern, definition).await,
            Self::Permissions([configure, write, read]) => {
                vhost.set_permissions(&vhost.user, configure, write, read).await
            }
        }
    }
}

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
