//! What has to exist on the broker: the specification's `declareResources`.

use std::collections::BTreeMap;

use lapin::{
    Channel, ErrorKind, ExchangeKind as LapinKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{ConnectError, OptionsError},
    options::{check, check_name},
};

/// An exchange, the queue bound to it, and how far we may create them.
///
/// Declared exactly as the existing Go services do: durable, no arguments. Any other argument would be answered with
/// 406 and a dead channel, so limits, TTLs and dead-letter exchanges on these queues come by policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    /// The queue; empty is publish-only: the exchange is declared and nothing else.
    pub queue: String,
    /// A queue of our own that the broker names and deletes with the connection, for events that every process has to
    /// see. `queue` is empty then.
    pub server_named: bool,
    /// The exchange; empty is the default exchange, which always exists and routes by queue name.
    pub exchange: String,
    /// How the exchange routes. Default `direct`.
    pub exchange_kind: ExchangeKind,
    /// The key the queue is bound with.
    pub routing_key: String,
    /// Arguments of the binding: the headers to match and `x-match` for a `headers` exchange; otherwise empty.
    pub binding_arguments: BTreeMap<String, String>,
    /// Whether to create what is missing. Default [`Declare::Create`].
    pub declare: Declare,
}

/// How an exchange routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeKind {
    /// To the queues bound with exactly the routing key.
    #[default]
    Direct,
    /// To all bound queues.
    Fanout,
    /// By patterns of words: `*` is one, `#` any number.
    Topic,
    /// By header values, see [`Topology::binding_arguments`].
    Headers,
}

/// Whether to create what is missing on the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Declare {
    /// Declare exchange, queue and binding with the specification's arguments; harmless if they exist like that.
    #[default]
    Create,
    /// Only check that exchange and queue exist, whatever their arguments: for queues that operators create, quorum
    /// queues among them, and for users without the `configure` permission.
    Check,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            queue: String::new(),
            server_named: false,
            exchange: String::new(),
            exchange_kind: ExchangeKind::Direct,
            routing_key: String::new(),
            binding_arguments: BTreeMap::new(),
            declare: Declare::Create,
        }
    }
}

impl Topology {
    /// The specification's usual case: queue, direct exchange and routing key of one name.
    pub fn work_queue(name: &str) -> Self {
        Self { queue: name.into(), exchange: name.into(), routing_key: name.into(), ..Self::default() }
    }

    /// The specification's `NewConsumer(dsn, queue, exchange, kind, routingKey)`, without the `dsn`.
    pub fn new(queue: &str, exchange: &str, exchange_kind: ExchangeKind, routing_key: &str) -> Self {
        Self {
            queue: queue.into(),
            exchange: exchange.into(),
            exchange_kind,
            routing_key: routing_key.into(),
            ..Self::default()
        }
    }

    /// Publish-only: the exchange is declared and no queue.
    pub fn publish_only(exchange: &str, exchange_kind: ExchangeKind) -> Self {
        Self::new("", exchange, exchange_kind, "")
    }

    /// A broadcast consumer: every process has its own queue, which goes when the process goes.
    pub fn broadcast(exchange: &str, exchange_kind: ExchangeKind, routing_key: &str) -> Self {
        Self { server_named: true, ..Self::new("", exchange, exchange_kind, routing_key) }
    }

    /// Whether there is anything to consume.
    pub fn is_publish_only(&self) -> bool {
        self.queue.is_empty() && !self.server_named
    }

    /// The name for metrics, logs and the dead-letter queue: the queue's own, or the exchange's where the broker
    /// names the queue, since that name is another one in each process.
    pub fn name(&self) -> &str {
        if self.queue.is_empty() { &self.exchange } else { &self.queue }
    }

    /// Checks names and combinations.
    ///
    /// # Errors
    ///
    /// The first field that cannot be used, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), OptionsError> {
        for (option, name) in [("queue", &self.queue), ("exchange", &self.exchange), ("routing_key", &self.routing_key)]
        {
            if !name.is_empty() {
                check_name(option, name)?;
            }
        }
        for (name, value) in &self.binding_arguments {
            check_name("binding_arguments", name)?;
            check(
                value.len() <= 1024,
                "binding_arguments",
                format_args!("`{name}`: {} bytes", value.len()),
                "values up to 1024 bytes",
            )?;
        }
        check(
            !self.server_named || self.queue.is_empty(),
            "server_named",
            format_args!("true with queue `{}`", self.queue),
            "an empty `queue`, since the broker names it",
        )?;
        check(
            !self.server_named || self.declare == Declare::Create,
            "declare",
            "check",
            "create, since a server-named queue cannot exist yet",
        )?;
        check(!self.name().is_empty(), "exchange", "empty", "a name, or else a `queue`")
    }

    /// Makes sure that everything exists, and returns the queue's name, which may be the broker's choice; `None` for
    /// publish-only.
    pub(crate) async fn declare(&self, channel: &Channel) -> Result<Option<ShortString>, ConnectError> {
        self.declare_exchange(channel).await?;
        if self.is_publish_only() {
            return Ok(None);
        }
        let queue = self.declare_queue(channel).await?;
        if !self.exchange.is_empty() && self.declare == Declare::Create {
            self.bind(channel, &queue).await?;
        }
        Ok(Some(queue))
    }

    async fn declare_exchange(&self, channel: &Channel) -> Result<(), ConnectError> {
        // The default exchange cannot be declared, and always exists.
        if self.exchange.is_empty() {
            return Ok(());
        }
        let options =
            ExchangeDeclareOptions { durable: true, passive: self.declare == Declare::Check, ..Default::default() };
        channel
            .exchange_declare(name(&self.exchange)?, self.exchange_kind.into(), options, FieldTable::default())
            .await
            .map_err(|error| {
                let kind = LapinKind::from(self.exchange_kind);
                refused(&error, format!("exchange `{}` ({kind:?}, durable, no arguments)", self.exchange))
            })
    }

    async fn declare_queue(&self, channel: &Channel) -> Result<ShortString, ConnectError> {
        let options = QueueDeclareOptions {
            passive: self.declare == Declare::Check,
            durable: !self.server_named,
            exclusive: self.server_named,
            auto_delete: self.server_named,
            nowait: false,
        };
        let declared = channel.queue_declare(name(&self.queue)?, options, FieldTable::default()).await;
        declared.map(|queue| queue.name().clone()).map_err(|error| {
            let arguments =
                if self.server_named { "server-named, exclusive, auto-delete" } else { "durable, no arguments" };
            refused(&error, format!("queue `{}` ({arguments})", self.queue))
        })
    }

    async fn bind(&self, channel: &Channel, queue: &ShortString) -> Result<(), ConnectError> {
        let mut arguments = FieldTable::default();
        for (key, value) in &self.binding_arguments {
            arguments.insert(name(key)?, AMQPValue::LongString(value.as_str().into()));
        }
        channel
            .queue_bind(
                queue.clone(),
                name(&self.exchange)?,
                name(&self.routing_key)?,
                QueueBindOptions::default(),
                arguments,
            )
            .await
            .map_err(|error| {
                refused(
                    &error,
                    format!(
                        "binding of queue `{queue}` to exchange `{}` with key `{}`",
                        self.exchange, self.routing_key
                    ),
                )
            })
    }
}

/// Makes sure that the queue for dead letters exists: durable, no arguments, reached through the default exchange.
pub(crate) async fn declare_dead_letter_queue(
    channel: &Channel,
    queue: &str,
    declare: Declare,
) -> Result<(), ConnectError> {
    let options =
        QueueDeclareOptions { durable: true, passive: declare == Declare::Check, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(name(queue)?, options, FieldTable::default()).await;
    declared.map(drop).map_err(|error| refused(&error, format!("dead-letter queue `{queue}` (durable, no arguments)")))
}

impl From<ExchangeKind> for LapinKind {
    fn from(kind: ExchangeKind) -> Self {
        match kind {
            ExchangeKind::Direct => Self::Direct,
            ExchangeKind::Fanout => Self::Fanout,
            ExchangeKind::Topic => Self::Topic,
            ExchangeKind::Headers => Self::Headers,
        }
    }
}

/// Names are validated before anything is started; one that is too long all the same is an error, not lapin's panic.
fn name(name: &str) -> Result<ShortString, ConnectError> {
    ShortString::try_new(name).map_err(|error| ConnectError::Declaration {
        what: "a name".into(),
        reason: error.to_string(),
        remedy: "shorten it",
    })
}

/// AMQP's reply codes for what only a person can mend, with the remedy; anything else is a lost connection.
pub(crate) fn refused(error: &lapin::Error, what: String) -> ConnectError {
    let ErrorKind::ProtocolError(reply) = error.kind() else {
        return ConnectError::Lost(error.to_string());
    };
    match remedy(reply.kind().get_id(), reply.get_message().as_str()) {
        Some(remedy) => ConnectError::Declaration { what, reason: reply.get_message().to_string(), remedy },
        None => ConnectError::Lost(error.to_string()),
    }
}

/// One code has several causes. The beginning or the end of the reason tells them apart: between them stand names, which
/// may be anything.
fn remedy(code: u16, reason: &str) -> Option<&'static str> {
    Some(match code {
        403 if reason.ends_with("in exclusive use") => {
            "another consumer has the queue exclusively; stop that consumer, or choose another queue"
        }
        403 if reason.ends_with("contains reserved prefix 'amq.*'") => {
            "names that begin with `amq.` are the broker's own: choose another name, or set `declare` to `check` to use one \
             that exists"
        }
        403 if reason.ends_with("operation not permitted on the default exchange") => {
            "every queue is bound to the default exchange by its name: leave `exchange` empty to use it"
        }
        403 => "grant the user permission for it (rabbitmqctl set_permissions)",
        // A classic queue on a node that restarts: it will be there again, and nobody has to do anything.
        404 if reason.contains("home node") => return None,
        404 => "create it first, or set `declare` to `create`",
        405 => "another connection has it exclusively; choose another name or close that connection",
        406 if reason.ends_with("is reached") => {
            "raise the limit (rabbitmqctl set_vhost_limits, cluster_exchange_limit), or delete what is not used"
        }
        406 => {
            "it exists with other arguments: delete it or choose another name; to use it as it is, set `declare` to `check`; \
             limits and dead-letter exchanges on it belong into a policy"
        }
        530 if reason.contains("has reached the maximum allowed") => {
            "raise the user's limit (rabbitmqctl set_user_limits), or close connections"
        }
        530 => "the broker's configuration does not allow it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(topology: &Topology) -> String {
        topology.validate().unwrap_err().to_string()
    }

    #[test]
    fn names_that_amqp_cannot_carry_are_errors_that_name_the_field() {
        let long = "q".repeat(256);
        assert_eq!(
            rejected(&Topology::work_queue(&long)),
            format!(
                "option `queue` is `{}…` (256 bytes); allowed: 1 to 255 bytes, AMQP's limit for a name",
                "q".repeat(40)
            )
        );
        assert!(rejected(&Topology::new("q", &long, ExchangeKind::Direct, "")).contains("`exchange`"));
        assert!(rejected(&Topology::new("q", "", ExchangeKind::Direct, &long)).contains("`routing_key`"));
        Topology::work_queue(&"q".repeat(255)).validate().unwrap();
    }

    #[test]
    fn combinations_that_cannot_work_are_errors() {
        assert!(rejected(&Topology::default()).contains("`exchange` is empty"));
        let named = Topology { queue: "q".into(), ..Topology::broadcast("e", ExchangeKind::Fanout, "") };
        assert!(rejected(&named).contains("`server_named` is true with queue `q`"));
        let checked = Topology { declare: Declare::Check, ..Topology::broadcast("e", ExchangeKind::Fanout, "") };
        assert!(rejected(&checked).contains("`declare` is check"));
    }

    #[test]
    fn each_cause_has_its_own_remedy() {
        for (code, reason, words) in [
            (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", "another consumer has the queue"),
            (403, "ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'", "choose another name"),
            (403, "ACCESS_REFUSED - operation not permitted on the default exchange", "leave `exchange` empty"),
            (403, "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'jm'", "set_permissions"),
            (
                403,
                "ACCESS_REFUSED - configure access to queue 'q' in vhost '/' refused for user 'jm'",
                "set_permissions",
            ),
            (
                403,
                "ACCESS_REFUSED - access to queue 'exclusive' in vhost 'amq.*' refused for user 'jm'",
                "set_permissions",
            ),
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'is reached' in vhost '/'",
                "other arguments",
            ),
            (405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q'", "another connection"),
            (406, "PRECONDITION_FAILED - queue limit in vhost '/' (1) is reached", "set_vhost_limits"),
            (406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/'", "other arguments"),
            (
                530,
                "NOT_ALLOWED - number of channels opened for user 'jm' has reached the maximum allowed user limit of (2)",
                "set_user_limits",
            ),
        ] {
            assert!(remedy(code, reason).unwrap().contains(words), "{reason}");
        }
        assert_eq!(remedy(404, "NOT_FOUND - home node 'a@b' of durable queue 'q' is down"), None);
        assert_eq!(remedy(541, "INTERNAL_ERROR"), None);
    }

    #[test]
    fn the_name_is_the_queues_or_else_the_exchanges() {
        assert_eq!(Topology::work_queue("jm.llm").name(), "jm.llm");
        assert_eq!(Topology::broadcast("news", ExchangeKind::Fanout, "").name(), "news");
        assert!(Topology::publish_only("news", ExchangeKind::Fanout).is_publish_only());
        assert!(!Topology::broadcast("news", ExchangeKind::Fanout, "").is_publish_only());
    }
}
