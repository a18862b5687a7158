//! The `management` block of jm's configuration: the broker's management API, where there is one.

use std::{path::PathBuf, time::Duration};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use jm_mq_core::OptionsError;
use secrecy::SecretString;
use serde::Deserialize;

/// Where the management API is, and who we are to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ManagementOptions {
    /// `http://rabbit:15672` or `https://rabbit:15671`, with a path if it has a prefix. Default: none, and then what AMQP
    /// tells has to do.
    pub(crate) url: Option<String>,
    /// The user. Default: `rabbitmq.name`.
    pub(crate) name: Option<String>,
    /// The user's password. Default: `rabbitmq.password`.
    pub(crate) password: Option<SecretString>,
    /// PEM file with the authorities to trust. Default: `rabbitmq.tls.ca_file`, else the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// The limit for one request. Default 5 s.
    #[serde(with = "duration")]
    pub(crate) timeout: Duration,
}

impl Default for ManagementOptions {
    fn default() -> Self {
        Self { url: None, name: None, password: None, ca_file: None, timeout: Duration::from_secs(5) }
    }
}

impl ManagementOptions {
    pub(crate) fn validate(&self) -> Result<(), OptionsError> {
        let refused = |option: &'static str, value: String, allowed: &'static str| {
            Err(OptionsError { option: option.into(), value, allowed: allowed.into() })
        };
        if let Some(url) = self.url() {
            let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.contains(['@', '?', '#', ' '])) {
                let allowed =
                    "http://host:15672 or https://host:15671; the user by management.name, without user and query";
                // There may be a password in it.
                return refused("management.url", "not such an address".to_owned(), allowed);
            }
        }
        if !(Duration::from_millis(10)..=Duration::from_mins(5)).contains(&self.timeout) {
            return refused("management.timeout", format!("{:?}", self.timeout), "10ms to 5m");
        }
        Ok(())
    }

    /// The address; an empty one is how a variable is switched off.
    pub(crate) fn url(&self) -> Option<&str> {
        self.url.as_deref().filter(|url| !url.is_empty())
    }
}
