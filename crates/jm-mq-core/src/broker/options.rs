//! The `rabbitmq` block of a configuration.

use std::{fmt, path::PathBuf, time::Duration};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use lapin::uri::{AMQPScheme, AMQPUri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de};

use crate::{
    error::OptionsError,
    options::{check, check_duration, check_name},
};

/// Where the broker is and who we are. The specification's block works as it stands:
///
/// ```
/// let options: jm_mq_core::BrokerOptions = serde_json::from_str(
///     r#"{ "host": "rabbitmq.example.com", "port": "5672", "name": "username", "password": "p@ss/wörd", "vhost": "/" }"#,
/// ).unwrap();
/// assert!(!format!("{options:?}").contains("p@ss"));
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerOptions {
    /// Host name or address. Default `127.0.0.1`.
    pub host: String,
    /// As a number or as a string of one. Default 5672, or 5671 with [`tls`](Self::tls).
    pub port: Option<Port>,
    /// Further nodes of the same cluster, tried in turn with the first one.
    pub hosts: Vec<HostOptions>,
    /// The user. Default `guest`, which RabbitMQ only admits from the same machine.
    pub name: String,
    /// The user's password; any character will do. Default `guest`.
    pub password: SecretString,
    /// The virtual host; any character will do. Default `/`.
    pub vhost: String,
    /// Encrypt, verify the broker's certificate, and perhaps show our own. Default: plain TCP.
    pub tls: Option<TlsOptions>,
    /// How often either side must be heard from; the peer is dead after two of them. Default 10 s: a frozen broker is
    /// noticed within 25 s. (RabbitMQ proposes 60 s.)
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// The limit for dialling, TLS and the AMQP handshake together. Default 5 s.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// The limit for the broker's answer to a declaration, a subscription or a close. Default 10 s.
    #[serde(with = "duration")]
    pub rpc_timeout: Duration,
    /// The application's name, in connection names, messages and dead letters. Default `jm-mq`.
    pub app_id: String,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostOptions {
    /// Host name or address.
    pub host: String,
    /// Default as in [`BrokerOptions::port`].
    #[serde(default)]
    pub port: Option<Port>,
}

/// A TCP port that configurations write as `5672` or `"5672"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub u16);

/// TLS towards the broker. There is no option to skip verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsOptions {
    /// PEM file with the authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our certificate and its chain, where the broker asks for one. Needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub key_file: Option<PathBuf>,
    /// The name to expect in the broker's certificate. Default: the host that is dialled.
    pub server_name: Option<String>,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: None,
            hosts: Vec::new(),
            name: "guest".into(),
            password: "guest".into(),
            vhost: "/".into(),
            tls: None,
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            rpc_timeout: Duration::from_secs(10),
            app_id: "jm-mq".into(),
        }
    }
}

impl BrokerOptions {
    /// Reads the specification's `dsn`: `amqp://name:password@host:port/vhost`, or `amqps://` for TLS, with every part
    /// percent-encoded. No path is the virtual host `/`; `?heartbeat=20` sets the heartbeat in seconds.
    ///
    /// ```
    /// let options = jm_mq_core::BrokerOptions::from_dsn("amqp://me:p%40ss@rabbit:5673/notes").unwrap();
    /// assert_eq!((options.host.as_str(), options.vhost.as_str()), ("rabbit", "notes"));
    /// ```
    ///
    /// # Errors
    ///
    /// When it is no such address. The error does not show it, since there is a password in it.
    pub fn from_dsn(dsn: &str) -> Result<Self, OptionsError> {
        let allowed = "amqp://name:password@host:port/vhost, with special characters percent-encoded";
        let uri: AMQPUri = dsn.parse().map_err(|_| OptionsError::new("dsn", "not an AMQP address", allowed))?;
        let defaults = Self::default();
        Ok(Self {
            host: uri.authority.host,
            port: Some(Port(uri.authority.port)),
            name: uri.authority.userinfo.username,
            password: uri.authority.userinfo.password.into(),
            vhost: if uri.vhost.is_empty() { defaults.vhost } else { uri.vhost },
            tls: (uri.scheme == AMQPScheme::AMQPS).then(TlsOptions::default),
            heartbeat: uri.query.heartbeat.map_or(defaults.heartbeat, |s| Duration::from_secs(s.into())),
            ..Self::default()
        })
    }

    /// Checks every option against its range.
    ///
    /// # Errors
    ///
    /// The first option that is out of range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), OptionsError> {
        check_host("host", &self.host)?;
        self.hosts.iter().try_for_each(|node| check_host("hosts", &node.host))?;
        check(self.hosts.len() <= 64, "hosts", self.hosts.len(), "up to 64 nodes")?;
        check_name("name", &self.name)?;
        check_name("vhost", &self.vhost)?;
        check_name("app_id", &self.app_id)?;
        check_duration("connect_timeout", self.connect_timeout, Duration::from_millis(10))?;
        check_duration("rpc_timeout", self.rpc_timeout, Duration::from_millis(10))?;
        let whole_seconds = self.heartbeat.subsec_nanos() == 0 && (1..=600).contains(&self.heartbeat.as_secs());
        check(whole_seconds, "heartbeat", format_args!("{:?}", self.heartbeat), "whole seconds, 1 s to 600 s")
    }

    /// All nodes with their ports, in the order in which they are configured.
    pub(crate) fn nodes(&self) -> Vec<(String, u16)> {
        let default = self.port.unwrap_or(Port(if self.tls.is_some() { 5671 } else { 5672 }));
        let first = (self.host.clone(), default.0);
        let others = self.hosts.iter().map(|node| (node.host.clone(), node.port.unwrap_or(default).0));
        std::iter::once(first).chain(others).collect()
    }

    /// The nodes for an error text. Never the credentials.
    pub(crate) fn nodes_shown(&self) -> String {
        let nodes: Vec<String> = self.nodes().iter().map(|(host, port)| format!("{host}:{port}")).collect();
        nodes.join(", ")
    }

    /// What lapin has to know besides the stream: credentials, virtual host, heartbeat.
    ///
    /// Every character but letters and digits is escaped, since a `/`, `@`, `%` or `:` would otherwise end its part.
    /// The address is a placeholder: the transport dials the nodes.
    pub(crate) fn uri(&self) -> SecretString {
        let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        format!(
            "amqp://{}:{}@127.0.0.1/{}?heartbeat={}",
            escape(&self.name),
            escape(self.password.expose_secret()),
            escape(&self.vhost),
            self.heartbeat.as_secs(),
        )
        .into()
    }
}

/// A whole address in the place of a host would be dialled as a name, and shown with its password when that fails.
fn check_host(option: &'static str, host: &str) -> Result<(), OptionsError> {
    check_name(option, host)?;
    let plain = host.chars().all(|letter| letter.is_alphanumeric() || "-._:[]%".contains(letter));
    check(plain, option, "no host", "the name or address of a host alone, without scheme, user and password")
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        const ALLOWED: &str = "a port from 1 to 65535, as a number or a string";
        impl de::Visitor<'_> for Visitor {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ALLOWED)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Port, E> {
                let port = u16::try_from(number).ok().filter(|&port| port > 0);
                port.map(Port).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Port, E> {
                let port = u16::try_from(number).ok().filter(|&port| port > 0);
                port.map(Port).ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Port, E> {
                let port = text.trim().parse().ok().filter(|&port: &u16| port > 0);
                port.map(Port).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<BrokerOptions, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn the_port_may_be_a_number_or_a_string_and_nothing_else() {
        assert_eq!(parse(r#"{"port": "5673"}"#).unwrap().port, Some(Port(5673)));
        assert_eq!(parse(r#"{"port": 5673}"#).unwrap().port, Some(Port(5673)));
        for wrong in [r#"{"port": "amqp"}"#, r#"{"port": 70000}"#, r#"{"port": "0"}"#, r#"{"port": -1}"#] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("a port from 1 to 65535, as a number or a string"), "{error}");
        }
    }

    #[test]
    fn any_character_survives_the_uri() {
        let options = BrokerOptions {
            name: "us/er:ü".into(),
            password: "p@ss%2f:/?#[]😀".into(),
            vhost: "/a b/%2f?x=#".into(),
            ..BrokerOptions::default()
        };
        let uri: AMQPUri = options.uri().expose_secret().parse().unwrap();
        assert_eq!(uri.authority.userinfo.username, options.name);
        assert_eq!(uri.authority.userinfo.password, options.password.expose_secret());
        assert_eq!(uri.vhost, options.vhost);
        assert_eq!(uri.query.heartbeat, Some(10));
    }

    #[test]
    fn a_dsn_is_read_and_a_wrong_one_is_not_shown() {
        let options = BrokerOptions::from_dsn("amqps://us%2Fer:p%40ss@h/%2Fv%20h?heartbeat=20").unwrap();
        assert_eq!((options.name.as_str(), options.password.expose_secret()), ("us/er", "p@ss"));
        assert_eq!((options.vhost.as_str(), options.heartbeat), ("/v h", Duration::from_secs(20)));
        assert_eq!(options.nodes(), [("h".into(), 5671)]);
        assert!(options.tls.is_some());
        assert_eq!(BrokerOptions::from_dsn("amqp://h").unwrap().vhost, "/");
        let error = BrokerOptions::from_dsn("amqp//me:canary@h").unwrap_err().to_string();
        assert!(error.starts_with("option `dsn`") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn the_password_is_in_no_debug_output() {
        let options = BrokerOptions { password: "canary".into(), ..BrokerOptions::default() };
        assert!(!format!("{options:?}").contains("canary"));
    }

    #[test]
    fn several_hosts_share_the_default_port_unless_they_have_their_own() {
        let options =
            parse(r#"{"host": "a", "port": 1, "hosts": [{"host": "b"}, {"host": "c", "port": "2"}]}"#).unwrap();
        assert_eq!(options.nodes(), [("a".into(), 1), ("b".into(), 1), ("c".into(), 2)]);
        assert_eq!(parse(r#"{"tls": {}}"#).unwrap().nodes(), [("127.0.0.1".into(), 5671)]);
    }

    #[test]
    fn options_out_of_range_are_errors_that_name_option_and_value() {
        let rejected = |options: BrokerOptions| options.validate().unwrap_err().to_string();
        let heartbeat = BrokerOptions { heartbeat: Duration::from_millis(1500), ..BrokerOptions::default() };
        assert_eq!(rejected(heartbeat), "option `heartbeat` is 1.5s; allowed: whole seconds, 1 s to 600 s");
        let host = BrokerOptions { host: String::new(), ..BrokerOptions::default() };
        assert_eq!(rejected(host), "option `host` is empty; allowed: 1 to 255 bytes");
        for address in ["amqp://u:canary@host", "u:canary@host", "host/canary", "ho st canary"] {
            let error = rejected(BrokerOptions { host: address.into(), ..BrokerOptions::default() });
            assert!(error.starts_with("option `host` is no host; ") && !error.contains("canary"), "{error}");
            let hosts = vec![HostOptions { host: address.into(), port: None }];
            assert!(rejected(BrokerOptions { hosts, ..BrokerOptions::default() }).contains("`hosts` is no host"));
        }
        for host in ["rabbit-1.mq_a.svc.", "::1", "[fe80::1%eth0]", "10.0.0.1", "消息.example"] {
            assert_eq!(BrokerOptions { host: host.into(), ..BrokerOptions::default() }.validate(), Ok(()));
        }
        let vhost = BrokerOptions { vhost: "v".repeat(256), ..BrokerOptions::default() };
        assert!(rejected(vhost).starts_with("option `vhost` is"));
    }
}
