//! The broker's management API, where there is one: what AMQP does not tell.

use std::{fs, time::Duration};

use jiff::Timestamp;
use jm_mq_core::BrokerOptions;
use reqwest::{Certificate, Client, Response, StatusCode, redirect::Policy};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use url::Url;

use crate::{configuration::ManagementOptions, failure::Failure};

/// A queue's description is a few kilobytes; a broker's few nodes' are not much more.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The management API of one broker, for one virtual host.
#[derive(Clone, Debug)]
pub(crate) struct Management {
    http: Client,
    url: Url,
    name: String,
    password: SecretString,
    vhost: String,
}

/// Why the API did not tell, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Untold(String);

/// `/api/queues/{vhost}/{name}`, as far as it is used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct QueueInfo {
    messages_ready: Option<u32>,
    consumers: Option<u32>,
    pub(crate) messages_unacknowledged: Option<u64>,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) operator_policy: Option<String>,
    #[serde(deserialize_with = "mapping")]
    pub(crate) arguments: Map<String, Value>,
    /// `None` until the queue's first statistics.
    #[serde(deserialize_with = "perhaps_mapping")]
    pub(crate) effective_policy_definition: Option<Map<String, Value>>,
    message_stats: Stats,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stats {
    publish_details: Option<Rate>,
    ack_details: Option<Rate>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Rate {
    rate: f64,
}

impl QueueInfo {
    /// Messages that wait, and consumers, some seconds ago. `None` until the queue's first statistics.
    pub(crate) fn counts(&self) -> Option<(u32, u32)> {
        self.messages_ready.zip(self.consumers)
    }

    /// Messages published to it, a second.
    pub(crate) fn publish_rate(&self) -> f64 {
        self.message_stats.publish_details.unwrap_or_default().rate
    }

    /// Messages acked, a second.
    pub(crate) fn ack_rate(&self) -> f64 {
        self.message_stats.ack_details.unwrap_or_default().rate
    }
}

/// `/api/exchanges/{vhost}/{name}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ExchangeInfo {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    #[serde(deserialize_with = "mapping")]
    pub(crate) arguments: Map<String, Value>,
}

/// One of `/api/vhosts`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VhostInfo {
    name: String,
    default_queue_type: Option<String>,
}

/// One of `/api/exchanges/{vhost}/{name}/bindings/source`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct BindingInfo {
    pub(crate) destination: String,
    pub(crate) destination_type: String,
    pub(crate) routing_key: String,
    pub(crate) properties_key: String,
}

/// One of `/api/nodes`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeInfo {
    pub(crate) name: String,
    pub(crate) running: bool,
    pub(crate) mem_alarm: bool,
    pub(crate) disk_free_alarm: bool,
    #[serde(deserialize_with = "sequence")]
    pub(crate) partitions: Vec<Value>,
}

/// `/api/overview`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Overview {
    pub(crate) rabbitmq_version: String,
}

/// An empty mapping of Erlang's is sometimes written as a list.
fn mapping<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Object(map) => map,
        _ => Map::new(),
    })
}

/// The same where it may be missing.
fn perhaps_mapping<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Map<String, Value>>, D::Error> {
    mapping(deserializer).map(Some)
}

fn sequence<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Array(items) => items,
        _ => Vec::new(),
    })
}

impl Management {
    /// `None` where none is configured.
    pub(crate) fn new(options: &ManagementOptions, rabbitmq: &BrokerOptions) -> Result<Option<Self>, Failure> {
        let Some(url) = options.url() else { return Ok(None) };
        let wrong = |what: String| Failure::configuration([what]);
        let url: Url = url.parse().map_err(|error| wrong(format!("management.url: {error}")))?;
        install_tls_provider();
        let mut http = Client::builder()
            // The password would go where nobody configured.
            .no_proxy()
            .redirect(Policy::none())
            .user_agent(concat!("jm/", env!("CARGO_PKG_VERSION")))
            .timeout(options.timeout);
        let of_broker = || rabbitmq.tls.as_ref().and_then(|tls| tls.ca_file.clone());
        if let Some(path) = options.ca_file.clone().or_else(of_broker).filter(|_| url.scheme() == "https") {
            let unusable = |error: String| wrong(format!("management.ca_file is `{}`: {error}", path.display()));
            let pem = fs::read(&path).map_err(|error| unusable(error.to_string()))?;
            let trusted = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
            http = http.tls_certs_only(trusted);
        }
        let http = http.build().map_err(|error| wrong(format!("management.url: {error}")))?;
        Ok(Some(Self {
            http,
            url,
            name: options.name.clone().unwrap_or_else(|| rabbitmq.name.clone()),
            password: options.password.clone().unwrap_or_else(|| rabbitmq.password.clone()),
            vhost: rabbitmq.vhost.clone(),
        }))
    }

    /// The API's address.
    pub(crate) fn shown(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// A queue; `None` if there is no such queue.
    pub(crate) async fn queue(&self, name: &str) -> Result<Option<QueueInfo>, Untold> {
        self.get(&["queues", &self.vhost, name]).await
    }

    /// Of which type a queue is that is declared without one. RabbitMQ 3.10 knows no other than classic.
    pub(crate) async fn default_queue_type(&self) -> Result<String, Untold> {
        // A single one is told to administrators only.
        let vhosts: Vec<VhostInfo> = self.get(&["vhosts"]).await?.unwrap_or_default();
        let ours = vhosts.into_iter().find(|vhost| vhost.name == self.vhost);
        let told = ours.and_then(|vhost| vhost.default_queue_type).filter(|kind| kind != "undefined");
        Ok(told.unwrap_or_else(|| "classic".to_owned()))
    }

    /// An exchange; `None` if there is no such exchange.
    pub(crate) async fn exchange(&self, name: &str) -> Result<Option<ExchangeInfo>, Untold> {
        self.get(&["exchanges", &self.vhost, name]).await
    }

    /// What is bound to an exchange.
    pub(crate) async fn bindings(&self, exchange: &str) -> Result<Vec<BindingInfo>, Untold> {
        let found = self.get(&["exchanges", &self.vhost, exchange, "bindings", "source"]).await?;
        Ok(found.unwrap_or_default())
    }

    /// The cluster's nodes. Needs the tag `monitoring`.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeInfo>, Untold> {
        Ok(self.get(&["nodes"]).await?.unwrap_or_default())
    }

    /// Its version, and its clock.
    pub(crate) async fn overview(&self) -> Result<(Overview, Option<Timestamp>), Untold> {
        let response = self.request(&["overview"]).await?;
        let date = response.headers().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned);
        let clock = date.and_then(|date| jiff::fmt::rfc2822::parse(&date).ok()).map(|date| date.timestamp());
        let overview = self.body(response).await?;
        Ok((overview.unwrap_or_default(), clock))
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Option<T>, Untold> {
        let response = self.request(path).await?;
        self.body(response).await
    }

    async fn request(&self, path: &[&str]) -> Result<Response, Untold> {
        let mut url = self.url.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().push("api").extend(path);
            }
            Err(()) => return Err(self.untold("not an address of HTTP")),
        }
        let request = self.http.get(url).basic_auth(&self.name, Some(self.password.expose_secret()));
        request.send().await.map_err(|error| self.untold(causes(&error)))
    }

    async fn body<T: DeserializeOwned>(&self, mut response: Response) -> Result<Option<T>, Untold> {
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let name = &self.name;
                return Err(self.untold(format_args!(
                    "refuses user `{name}`; check management.name and its password, or `rabbitmqctl set_user_tags {name} monitoring`"
                )));
            }
            status => return Err(self.untold(format_args!("answers {status}"))),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.untold(causes(&error)))? {
            if bytes.len() + chunk.len() > MAX_BYTES {
                return Err(self.untold("its answer is larger than 4 MiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|error| self.untold(format_args!("its answer is not as expected: {error}")))
    }

    fn untold(&self, why: impl std::fmt::Display) -> Untold {
        Untold(format!("the management API at {}: {why}", self.shown()))
    }
}

/// The last cause says most; the address is said already.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    if error.is_timeout() { "no answer in time".to_owned() } else { last.to_string() }
}

/// The TLS library wants to know whose cryptography to use: ring's, as everywhere.
pub(crate) fn install_tls_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // It fails when somebody else was quicker, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// The difference of two clocks, whichever is ahead.
pub(crate) fn apart(a: Timestamp, b: Timestamp) -> Duration {
    a.duration_since(b).unsigned_abs()
}
