//! The `audio` block of a configuration: where recordings may come from, and their limits.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use jm_mq_core::OptionsError;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use url::{Host, Url};

use super::{resolver::AllowedHosts, source::is_bucket};
use crate::{
    http::base_url,
    options::{check, check_range, refused},
};

/// Where recordings may come from, and how large they may be.
///
/// ```
/// let options: jm_engines::audio::AudioOptions = serde_json::from_str(
///     r#"{ "max_duration": "4h", "allowed_hosts": "minio.internal, 10.0.0.7", "folder": "/var/lib/recordings" }"#,
/// ).unwrap();
/// assert_eq!(options.allowed_hosts, ["minio.internal", "10.0.0.7"]);
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AudioOptions {
    /// The largest file, in bytes. Default 200 MiB: two hours of good MP3.
    pub max_bytes: usize,
    /// The longest recording. Default 2 h: 230 MB of samples.
    #[serde(with = "duration")]
    pub max_duration: Duration,
    /// The limit for fetching one recording. Default 60 s.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Hosts that may have a private address, and be reached without TLS: names or addresses, exactly as in the URL but
    /// for case. A list, or one string with commas. Default: none.
    #[serde(deserialize_with = "names")]
    pub allowed_hosts: Vec<String>,
    /// The folder under which `file://` may read. Default: none, and no `file://`.
    pub folder: Option<PathBuf>,
    /// Where `s3://` leads.
    pub s3: S3Options,
}

/// The store behind `s3://bucket/key`: S3, or what speaks its protocol (OSS, `MinIO`).
///
/// Without keys requests are not signed. Keys are never asked of the machine's own metadata service.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Options {
    /// The store's address; it may be private, and without TLS. Default: AWS's of the region.
    pub endpoint: Option<String>,
    /// The region, which signatures contain. Default `us-east-1`, which stores other than AWS take.
    pub region: String,
    /// The key's name. Default: none, as empty.
    pub access_key_id: Option<SecretString>,
    /// The key. Needed with `access_key_id`, and never without it.
    pub secret_access_key: Option<SecretString>,
    /// The token of a temporary key.
    pub session_token: Option<SecretString>,
    /// Whether the bucket is part of the host's name, as OSS wants it: it is put before the endpoint's, which has to be a
    /// name. Default `false`: of the path.
    pub virtual_hosted_style: bool,
    /// The buckets that may be read. A list, or one string with commas. Default: any.
    #[serde(deserialize_with = "names")]
    pub buckets: Vec<String>,
}

impl Default for AudioOptions {
    fn default() -> Self {
        Self {
            max_bytes: 200 * 1024 * 1024,
            max_duration: Duration::from_hours(2),
            timeout: Duration::from_mins(1),
            allowed_hosts: Vec::new(),
            folder: None,
            s3: S3Options::default(),
        }
    }
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".into(),
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            virtual_hosted_style: false,
            buckets: Vec::new(),
        }
    }
}

/// Files and samples are held in memory.
const MAX_BYTES: usize = 4 * 1024 * 1024 * 1024;
/// A day of samples is 2.8 GB.
const MAX_DURATION: Duration = Duration::from_hours(24);
const ALLOWED_HOSTS: &str = "names or addresses, without a port";

impl AudioOptions {
    /// Checks every option against its range.
    ///
    /// # Errors
    ///
    /// The first option that is out of range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), OptionsError> {
        check_range("max_bytes", self.max_bytes, 1..=MAX_BYTES)?;
        for (option, value, least) in [
            ("max_duration", self.max_duration, Duration::from_secs(1)),
            ("timeout", self.timeout, Duration::from_millis(1)),
        ] {
            let allowed = format!("{least:?} to {MAX_DURATION:?}");
            check((least..=MAX_DURATION).contains(&value), option, format_args!("{value:?}"), allowed)?;
        }
        for host in &self.allowed_hosts {
            let plain = !host.is_empty() && !host.contains(['/', '@', '*', ' ']);
            let port = host.parse::<IpAddr>().is_err() && !host.starts_with('[') && host.contains(':');
            check(plain && !port, "allowed_hosts", format_args!("`{host}`"), ALLOWED_HOSTS)?;
        }
        self.allowed_hosts()?;
        if let Some(folder) = &self.folder {
            check(folder.is_absolute(), "folder", folder.display(), "an absolute path")?;
        }
        self.s3.validate()
    }

    pub(super) fn allowed_hosts(&self) -> Result<AllowedHosts, OptionsError> {
        let refuse = |host| refused("allowed_hosts", format_args!("`{host}`"), ALLOWED_HOSTS);
        AllowedHosts::new(&self.allowed_hosts).map_err(refuse)
    }
}

impl S3Options {
    fn validate(&self) -> Result<(), OptionsError> {
        if let Some(endpoint) = self.endpoint() {
            let right = Url::parse(endpoint).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
                    && url.fragment().is_none()
            });
            let allowed = "http://host:port or https://host, without user, password, query and fragment";
            check(right, "s3.endpoint", base_url::shown(endpoint), allowed)?;
        }
        if self.virtual_hosted_style {
            let endpoint = self.endpoint().and_then(|endpoint| Url::parse(endpoint).ok());
            let named = endpoint.is_none_or(|url| matches!(url.host(), Some(Host::Domain(_))));
            check(named, "s3.virtual_hosted_style", "true", "false for an endpoint that is an address, not a name")?;
        }
        for bucket in &self.buckets {
            let allowed = "3 to 63 lower case letters, digits, dots and hyphens";
            check(is_bucket(bucket), "s3.buckets", format_args!("`{bucket}`"), allowed)?;
        }
        check(!self.region.is_empty(), "s3.region", "empty", "the region's name")?;
        if given(self.access_key_id.as_ref()).is_some() != given(self.secret_access_key.as_ref()).is_some() {
            return Err(refused("s3.secret_access_key", "not shown", "given together with s3.access_key_id"));
        }
        Ok(())
    }

    pub(super) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref().filter(|endpoint| !endpoint.is_empty())
    }
}

/// A secret that has something in it: an environment variable may be set and empty.
pub(super) fn given(secret: Option<&SecretString>) -> Option<&str> {
    secret.map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty())
}

/// Without the keys, and without what an address may hide in its user or query.
impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<SecretString>| given(secret.as_ref()).map(|_| "(not shown)");
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint().map(base_url::shown))
            .field("region", &self.region)
            .field("access_key_id", &hidden(&self.access_key_id))
            .field("secret_access_key", &hidden(&self.secret_access_key))
            .field("session_token", &hidden(&self.session_token))
            .field("virtual_hosted_style", &self.virtual_hosted_style)
            .field("buckets", &self.buckets)
            .finish()
    }
}

/// A list of names, or one string of them with commas: environment variables are strings.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Many(Vec<String>),
    }
    let names = match Names::deserialize(deserializer)? {
        Names::One(names) => names.split(',').map(str::to_owned).collect(),
        Names::Many(names) => names,
    };
    Ok(names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut AudioOptions);

    fn rejected(change: impl FnOnce(&mut AudioOptions)) -> String {
        let mut options = AudioOptions::default();
        change(&mut options);
        options.validate().unwrap_err().to_string()
    }

    #[test]
    fn every_option_out_of_range_is_an_error_that_names_option_value_and_range() {
        AudioOptions::default().validate().unwrap();
        assert_eq!(rejected(|o| o.timeout = Duration::ZERO), "option `timeout` is 0ns; allowed: 1ms to 86400s");
        let named: [(&str, Change); 11] = [
            ("max_bytes", |o| o.max_bytes = 0),
            ("max_duration", |o| o.max_duration = Duration::from_millis(1)),
            ("allowed_hosts", |o| o.allowed_hosts = vec!["host:80".into()]),
            ("allowed_hosts", |o| o.allowed_hosts = vec!["http://host".into()]),
            ("allowed_hosts", |o| o.allowed_hosts = vec!["*.example.com".into()]),
            ("folder", |o| o.folder = Some("relative".into())),
            ("s3.endpoint", |o| o.s3.endpoint = Some("host:80".into())),
            ("s3.virtual_hosted_style", |o| {
                o.s3.endpoint = Some("http://127.0.0.1:9000".into());
                o.s3.virtual_hosted_style = true;
            }),
            ("s3.buckets", |o| o.s3.buckets = vec!["Notes".into()]),
            ("s3.region", |o| o.s3.region.clear()),
            ("s3.secret_access_key", |o| o.s3.access_key_id = Some("id".into())),
        ];
        for (option, change) in named {
            let error = rejected(change);
            assert!(error.starts_with(&format!("option `{option}` is ")), "{error}");
        }
    }

    #[test]
    fn names_are_a_list_or_a_string_with_commas() {
        for json in [r#"{"allowed_hosts": ["a", " b "]}"#, r#"{"allowed_hosts": "a, b,"}"#] {
            let options: AudioOptions = serde_json::from_str(json).unwrap();
            assert_eq!(options.allowed_hosts, ["a", "b"]);
        }
        let none: AudioOptions = serde_json::from_str(r#"{"allowed_hosts": "", "s3": {"buckets": ""}}"#).unwrap();
        assert!(none.allowed_hosts.is_empty() && none.s3.buckets.is_empty());
    }

    #[test]
    fn no_secret_shows_in_debug_or_in_an_error() {
        let mut options = AudioOptions::default();
        options.s3.access_key_id = Some("canary".into());
        options.s3.session_token = Some("canary".into());
        assert!(!rejected(|o| *o = options.clone()).contains("canary"));
        options.s3.secret_access_key = Some("canary".into());
        options.s3.endpoint = Some("https://canary:canary@host/?canary".into());
        assert!(!format!("{options:?}").contains("canary"), "{options:?}");
        assert!(!rejected(|o| *o = options).contains("canary"));
    }
}
