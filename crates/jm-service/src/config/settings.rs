//! What is configured: the sections of every worker, and those of its own.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
};

use jm_mq_core::{BrokerOptions, ConsumerOptions, Declare, ExchangeKind, OptionsError, PublisherOptions, Topology};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::sections::Sections;
use crate::{logging, worker::Worker};

/// A worker's own sections: `engine`, `database` and the like.
///
/// ```
/// use jm_mq_core::OptionsError;
/// use jm_service::{Sections, Settings};
///
/// #[derive(Default, serde::Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct Greeting { words: String }
///
/// struct GreetSettings { greeting: Greeting }
///
/// impl Settings for GreetSettings {
///     fn read(sections: &mut Sections) -> Self {
///         Self { greeting: sections.read("greeting", |_| Ok(())) }
///     }
/// }
/// ```
pub trait Settings: Send + Sync + 'static {
    /// Reads each section by [`Sections::read`], which remembers what is wrong.
    fn read(sections: &mut Sections) -> Self;
}

/// For a worker without sections of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSettings;

impl Settings for NoSettings {
    fn read(_: &mut Sections) -> Self {
        Self
    }
}

/// The sections of every worker.
pub(crate) struct Common {
    pub(crate) rabbitmq: BrokerOptions,
    pub(crate) topology: Topology,
    pub(crate) consumer: ConsumerOptions,
    pub(crate) publisher: PublisherOptions,
    pub(crate) http: HttpOptions,
    pub(crate) log: LogOptions,
    pub(crate) sentry: SentryOptions,
}

impl Common {
    pub(super) fn read(sections: &mut Sections, worker: &Worker) -> Self {
        let of_topology = |key: &str| TopologyOptions::KEYS.contains(&key);
        let topology = sections
            .read_keys("consumer", of_topology, |options: &TopologyOptions| options.topology(worker.queue).validate());
        let mut rabbitmq = sections.read("rabbitmq", BrokerOptions::validate);
        if rabbitmq.app_id == BrokerOptions::default().app_id {
            worker.name.clone_into(&mut rabbitmq.app_id);
        }
        let topology = topology.topology(worker.queue);
        let consumer = sections.read_keys("consumer", |key| !of_topology(key), ConsumerOptions::validate);
        for error in conflicts(worker, &topology, &consumer) {
            sections.reject("consumer", &error);
        }
        Self {
            rabbitmq,
            topology,
            consumer,
            publisher: sections.read("publisher", PublisherOptions::validate),
            http: sections.read("http", |_| Ok(())),
            log: sections.read("log", LogOptions::validate),
            sentry: sections.read("sentry", SentryOptions::validate),
        }
    }
}

/// What each option alone does not show.
fn conflicts(worker: &Worker, topology: &Topology, consumer: &ConsumerOptions) -> Vec<OptionsError> {
    let unknown = consumer.type_aliases.iter().filter(|(_, registered)| !worker.types.contains(&registered.as_str()));
    let mut conflicts: Vec<OptionsError> = unknown
        .map(|(alias, registered)| OptionsError {
            option: format!("type_aliases.{alias}").into(),
            value: registered.clone(),
            allowed: worker.types.join(", ").into(),
        })
        .collect();
    if consumer.dead_letter_queue.as_deref() == Some(topology.name()) {
        conflicts.push(OptionsError {
            option: "dead_letter_queue".into(),
            value: topology.name().to_owned(),
            allowed: "another queue than the consumed one".into(),
        });
    }
    conflicts
}

/// The keys of `consumer` that say what is consumed; the others say how.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TopologyOptions {
    queue: Option<String>,
    exchange: Option<String>,
    exchange_kind: ExchangeKind,
    routing_key: Option<String>,
    declare: Declare,
}

impl TopologyOptions {
    const KEYS: [&'static str; 5] = ["queue", "exchange", "exchange_kind", "routing_key", "declare"];

    /// What is not configured is named like the queue, as the specification's queues are.
    fn topology(&self, queue: &str) -> Topology {
        let queue = self.queue.as_deref().unwrap_or(queue);
        let exchange = self.exchange.as_deref().unwrap_or(queue);
        let routing_key = self.routing_key.as_deref().unwrap_or(queue);
        Topology { declare: self.declare, ..Topology::new(queue, exchange, self.exchange_kind, routing_key) }
    }
}

/// `http`: where metrics and health are served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// Address and port. Default `0.0.0.0:9090`: probes and scrapes come from other machines. Port 0 takes a free one.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::UNSPECIFIED, 9090).into() }
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    struct Address;
    impl de::Visitor<'_> for Address {
        type Value = SocketAddr;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an IP address and a port, such as 0.0.0.0:9090 or [::]:9090")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<SocketAddr, E> {
            text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_str(Address)
}

/// `log`: what is logged to standard output, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// `error`, `warn`, `info`, `debug` or `trace`, also by module: `info,jm_mq_core=debug`. Default `info`.
    pub level: String,
    /// Default [`LogFormat::Auto`].
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

impl LogOptions {
    fn validate(&self) -> Result<(), OptionsError> {
        logging::filter(&self.level).map(drop).map_err(|_| OptionsError {
            option: "level".into(),
            value: self.level.clone(),
            allowed: "error, warn, info, debug, trace, also by module as in info,jm_mq_core=debug".into(),
        })
    }
}

/// `sentry`: where failures are reported.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SentryOptions {
    /// The project's address with its key. Default: nothing is reported.
    pub dsn: Option<SecretString>,
    /// The environment in reports. Default `production`.
    pub environment: String,
}

impl Default for SentryOptions {
    fn default() -> Self {
        Self { dsn: None, environment: "production".into() }
    }
}

impl SentryOptions {
    /// The DSN; `None` also for an empty one, which is how a variable is switched off.
    pub(crate) fn dsn(&self) -> Option<&str> {
        self.dsn.as_ref().map(ExposeSecret::expose_secret).filter(|dsn| !dsn.is_empty())
    }

    fn validate(&self) -> Result<(), OptionsError> {
        let wrong = self.dsn().is_some_and(|dsn| dsn.parse::<sentry::types::Dsn>().is_err());
        if !wrong {
            return Ok(());
        }
        let allowed = "https://key@host/project, as Sentry shows it, or nothing".into();
        Err(OptionsError { option: "dsn".into(), value: "***".into(), allowed })
    }
}
