//! The differences that `jm topology` has to find, each as it is planted and as it is told of.

use anyhow::Result;
use jm_testkit::{RabbitNode, Vhost};

use super::{DEAD, QUEUE};

/// One difference: how it comes about, and how it is told of.
pub(super) struct Planted {
    pub(super) name: &'static str,
    pub(super) plant: Plant,
    /// The object that is told of, and its state.
    pub(super) object: &'static str,
    pub(super) of: &'static str,
    pub(super) state: &'static str,
    /// A part of the words.
    pub(super) words: &'static str,
    /// A part of the command that mends it.
    pub(super) mend: &'static str,
    /// Whether AMQP alone tells.
    pub(super) over_amqp: bool,
}

pub(super) enum Plant {
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

pub(super) const PLANTED: &[Planted] = &[
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
        mend: "is jm's own user here; if asr-worker has another one",
        over_amqp: true,
    },
    Planted {
        name: "a user who may not read the queue",
        plant: Plant::Permissions([".*", ".*", "^$"]),
        object: "permission",
        of: "",
        state: "differs",
        words: "may not read from jm.asr",
        mend: "is jm's own user here; if asr-worker has another one",
        over_amqp: true,
    },
    Planted {
        name: "a user who may not declare",
        plant: Plant::Permissions(["^$", ".*", ".*"]),
        object: "permission",
        of: "",
        state: "differs",
        words: "may not configure jm.asr, configure jm.asr.dead, configure exchange jm.asr",
        mend: "is jm's own user here; if asr-worker has another one",
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
    pub(super) async fn plant(&self, node: &RabbitNode, vhost: &Vhost) -> Result<()> {
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
