//! The `rabbitmq` block of a configuration.

use std::{fmt, path::PathBuf, time::Duration};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};

use super::{dsn, host};
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
    /// Host name or address; all addresses of a name are tried. Default `127.0.0.1`.
    #[serde(deserialize_with = "host::deserialize")]
    pub host: String,
    /// As a number or as a string of one. Default 5672, or 5671 with [`tls`](Self::tls).
    pub port: Option<Port>,
    /// Further nodes of the same cluster, tried in turn with the first one.
    pub hosts: Vec<HostOptions>,
    /// How the broker learns who we are. Default [`Auth::Password`].
    pub auth: Auth,
    /// The user. Default `guest`, which RabbitMQ only admits from the same machine.
    pub name: String,
    /// The user's password; any character will do. Default `guest`.
    pub password: SecretString,
    /// A file with the password, which is used in place of [`password`](Self::password) and read again before each
    /// connect: a rotated password needs no restart. The end of its last line does not count. Default: none.
    pub password_file: Option<PathBuf>,
    /// The virtual host; any character will do. Default `/`.
    pub vhost: String,
    /// Encrypt, verify the broker's certificate, and perhaps show our own. Default: plain TCP.
    pub tls: Option<TlsOptions>,
    /// How often either side must be heard from; the peer is dead after two of them. Default 10 s: a frozen broker is
    /// noticed within 25 s. (RabbitMQ proposes 60 s.)
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// The limit for looking up names, dialling, TLS and the AMQP handshake together. Default 5 s.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// The limit for the broker's answer to a declaration, a subscription or a close. Default 10 s.
    #[serde(with = "duration")]
    pub rpc_timeout: Duration,
    /// The application's name, in connection names, messages and dead letters. Default `jm-mq`.
    pub app_id: String,
}

/// How the broker learns who we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// By name and password: SASL PLAIN.
    #[default]
    Password,
    /// By the client certificate of [`TlsOptions::cert_file`]: SASL EXTERNAL, for which the broker needs the plugin
    /// `rabbitmq_auth_mechanism_ssl`. Name and password are not used.
    External,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostOptions {
    /// Host name or address.
    #[serde(deserialize_with = "host::deserialize")]
    pub host: String,
    /// Default as in [`BrokerOptions::port`].
    #[serde(default)]
    pub port: Option<Port>,
}

/// A TCP port that configurations write as `5672` or `"5672"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub u16);

/// TLS towards the broker. There is no option to skip verification. The files are read again before each connect.
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
            auth: Auth::Password,
            name: "guest".into(),
            password: "guest".into(),
            password_file: None,
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
    /// percent-encoded. No path is the virtual host `/`. Options as RabbitMQ's own clients have them: `heartbeat`
    /// (seconds), `connection_timeout` (milliseconds), `auth_mechanism` (`plain`, `external`), and with `amqps`
    /// `cacertfile`, `certfile`, `keyfile` and `server_name_indication`.
    ///
    /// ```
    /// let options = jm_mq_core::BrokerOptions::from_dsn("amqp://me:p%40ss@[2001:db8::7]:5673/notes").unwrap();
    /// assert_eq!((options.host.as_str(), options.vhost.as_str()), ("[2001:db8::7]", "notes"));
    /// ```
    ///
    /// # Errors
    ///
    /// When it is no such address, or has an option that is unknown or out of range. The error does not show the
    /// address, since there is a password in it.
    pub fn from_dsn(dsn: &str) -> Result<Self, OptionsError> {
        dsn::read(dsn)
    }

    /// Checks every option against its range.
    ///
    /// # Errors
    ///
    /// The first option that is out of range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), OptionsError> {
        host::check("host", &self.host)?;
        self.hosts.iter().try_for_each(|node| host::check("hosts", &node.host))?;
        check(self.hosts.len() <= 64, "hosts", self.hosts.len(), "up to 64 nodes")?;
        check_name("name", &self.name)?;
        check_name("vhost", &self.vhost)?;
        check_name("app_id", &self.app_id)?;
        let certified = self.tls.as_ref().is_some_and(|tls| tls.cert_file.is_some());
        check(
            self.auth == Auth::Password || certified,
            "auth",
            "external",
            "password, or external with the certificate to show, tls.cert_file and tls.key_file",
        )?;
        check_duration("connect_timeout", self.connect_timeout, Duration::from_millis(10))?;
        check_duration("rpc_timeout", self.rpc_timeout, Duration::from_millis(10))?;
        let whole_seconds = self.heartbeat.subsec_nanos() == 0 && (1..=600).contains(&self.heartbeat.as_secs());
        check(whole_seconds, "heartbeat", format_args!("{:?}", self.heartbeat), "whole seconds, 1 s to 600 s")
    }

    /// All nodes with their ports, in the order in which they are configured; addresses without brackets.
    pub(crate) fn nodes(&self) -> Vec<(String, u16)> {
        let default = self.port.unwrap_or(Port(if self.tls.is_some() { 5671 } else { 5672 }));
        let bare = |host: &str| host::bare(host).to_owned();
        let first = (bare(&self.host), default.0);
        let others = self.hosts.iter().map(|node| (bare(&node.host), node.port.unwrap_or(default).0));
        std::iter::once(first).chain(others).collect()
    }

    /// The nodes for an error text. Never the credentials.
    pub(crate) fn nodes_shown(&self) -> String {
        let nodes: Vec<String> = self.nodes().iter().map(|(host, port)| host::with_port(host, *port)).collect();
        nodes.join(", ")
    }

    /// What lapin has to know besides stream and credentials: virtual host and heartbeat.
    ///
    /// Every character but letters and digits is escaped, since a `/`, `?` or `%` would otherwise end its part. The
    /// address is a placeholder: the transport dials the nodes.
    pub(crate) fn uri(&self) -> String {
        let vhost = utf8_percent_encode(&self.vhost, NON_ALPHANUMERIC);
        format!("amqp://127.0.0.1/{vhost}?heartbeat={}", self.heartbeat.as_secs())
    }
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
        let options = BrokerOptions { vhost: "/a b/%2f?x=#".into(), ..BrokerOptions::default() };
        let uri: lapin::uri::AMQPUri = options.uri().parse().unwrap();
        assert_eq!((uri.vhost, uri.query.heartbeat), (options.vhost, Some(10)));
    }

    #[test]
    fn a_client_certificate_takes_the_place_of_name_and_password_where_there_is_one() {
        let error = parse(r#"{"auth": "external", "tls": {}}"#).unwrap().validate().unwrap_err().to_string();
        assert!(error.starts_with("option `auth` is external; allowed: password, or external with"), "{error}");
        let files = r#"{"auth": "external", "tls": {"cert_file": "c", "key_file": "k"}}"#;
        assert_eq!(parse(files).unwrap().validate(), Ok(()));
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
        let options = parse(r#"{"host": "[::1]", "hosts": [{"host": ["2001:db8::7"]}]}"#).unwrap();
        assert_eq!(options.nodes(), [("::1".into(), 5672), ("2001:db8::7".into(), 5672)]);
        assert_eq!(options.nodes_shown(), "[::1]:5672, [2001:db8::7]:5672");
    }

    #[test]
    fn options_out_of_range_are_errors_that_name_option_and_value() {
        let rejected = |options: BrokerOptions| options.validate().unwrap_err().to_string();
        let heartbeat = BrokerOptions { heartbeat: Duration::from_millis(1500), ..BrokerOptions::default() };
        assert_eq!(rejected(heartbeat), "option `heartbeat` is 1.5s; allowed: whole seconds, 1 s to 600 s");
        let host = BrokerOptions { host: String::new(), ..BrokerOptions::default() };
        assert_eq!(rejected(host), "option `host` is empty; allowed: 1 to 255 bytes");
        let hosts = vec![HostOptions { host: "u:canary@host".into(), port: None }];
        assert!(rejected(BrokerOptions { hosts, ..BrokerOptions::default() }).contains("`hosts` is no host"));
        let vhost = BrokerOptions { vhost: "v".repeat(256), ..BrokerOptions::default() };
        assert!(rejected(vhost).starts_with("option `vhost` is"));
    }
}
