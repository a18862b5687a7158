//! The `database` block of a configuration.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use jm_mq_core::OptionsError;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sqlx::{ConnectOptions as _, any::AnyConnectOptions, postgres::PgConnectOptions};
use url::Url;

/// Where records are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseOptions {
    /// `sqlite://` and a file, `sqlite:///var/lib/jm/records.db`, made if it is missing; its folder has to be there.
    /// Or `postgres://user:password@host:5432/database`, percent-encoded, with `?sslmode=verify-full` and the like as
    /// PostgreSQL has it. Default `sqlite://records.db`, in the working folder.
    pub url: SecretString,
    /// The most connections to PostgreSQL. Default 10: one for each worker of the default concurrency. SQLite takes
    /// one, since it has one writer.
    pub connections: u32,
    /// How long one event waits for another process or event that holds what it needs to write. Then its attempt has
    /// failed, and the next one follows after the consumer's backoff. Default 5 s: an event is stored within
    /// milliseconds.
    #[serde(with = "duration")]
    pub lock_timeout: Duration,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self { url: "sqlite://records.db".into(), connections: 10, lock_timeout: Duration::from_secs(5) }
    }
}

/// PostgreSQL itself allows 100 by default, for all clients together.
const MAX_CONNECTIONS: u32 = 100;
/// Below the consumer's default `handler_timeout` of 5 min.
const MAX_LOCK_TIMEOUT: Duration = Duration::from_mins(1);

const URL_ALLOWED: &str =
    "sqlite://file or postgres://user:password@host:port/database, with special characters percent-encoded";

/// Which database, and how it is called in error texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A file.
    Sqlite(PathBuf),
    /// A server; the text has host, port and database.
    Postgres(String),
}

impl DatabaseOptions {
    /// Checks every option against its range.
    ///
    /// # Errors
    ///
    /// The first option that is out of range, with its value (never the address, which may have a password in it) and
    /// what is allowed.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let error = |option: &'static str, value: String, allowed: &'static str| {
            Err(OptionsError { option: option.into(), value, allowed: allowed.into() })
        };
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return error("connections", self.connections.to_string(), "1 to 100");
        }
        if !(Duration::from_millis(1)..=MAX_LOCK_TIMEOUT).contains(&self.lock_timeout) {
            return error("lock_timeout", format!("{:?}", self.lock_timeout), "1ms to 60s");
        }
        self.target().map(drop)
    }

    /// Which database it is.
    pub(super) fn target(&self) -> Result<Target, OptionsError> {
        let url = self.url.expose_secret();
        let wrong =
            |value: &str| OptionsError { option: "url".into(), value: value.into(), allowed: URL_ALLOWED.into() };
        let Some((scheme, rest)) = url.split_once(':') else { return Err(wrong("not a database's address")) };
        match scheme {
            "sqlite" => sqlite_file(rest).map(Target::Sqlite).map_err(wrong),
            "postgres" | "postgresql" => {
                let options = PgConnectOptions::from_str(url).map_err(|_| wrong("not a PostgreSQL address"))?;
                let database = options.get_database().unwrap_or("the user's own database");
                Ok(Target::Postgres(format!("{}:{}/{database}", options.get_host(), options.get_port())))
            }
            // A scheme that is none may be the beginning of anything.
            _ => Err(wrong("the address of another kind of database")),
        }
    }

    /// The address as the driver takes it; `create` makes the file of SQLite if it is missing.
    pub(super) fn driver_address(&self, target: &Target, create: bool) -> Result<AnyConnectOptions, OptionsError> {
        let address = match target {
            Target::Sqlite(file) => {
                let path = utf8_percent_encode(&file.to_string_lossy(), PATH).to_string();
                Url::parse(&format!("sqlite://{path}?mode={}", if create { "rwc" } else { "rw" }))
            }
            Target::Postgres(_) => Url::parse(self.url.expose_secret()),
        };
        let address = address.map_err(|_| OptionsError {
            option: "url".into(),
            value: "not a database's address".into(),
            allowed: URL_ALLOWED.into(),
        })?;
        AnyConnectOptions::from_url(&address).map_err(|_| OptionsError {
            option: "url".into(),
            value: "not a database's address".into(),
            allowed: URL_ALLOWED.into(),
        })
    }
}

/// What stays as it is in the path of an address.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// The file of an address, absolute: the driver would take the first folder of a relative one for a host.
fn sqlite_file(rest: &str) -> Result<PathBuf, &'static str> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.contains('?') || path.contains('#') {
        return Err("an address with parameters");
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| "not in UTF-8")?;
    if path.is_empty() || path == ":memory:" || path.contains('\0') || path.ends_with('/') {
        return Err("an address without a file");
    }
    let path = std::path::absolute(&*path).map_err(|_| "relative, and there is no working folder")?;
    Ok(path)
}

impl Target {
    /// For an error text.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Sqlite(file) => file.display().to_string(),
            Self::Postgres(server) => server.clone(),
        }
    }

    /// The folder that has to be there.
    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(file) => file.parent(),
            Self::Postgres(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> DatabaseOptions {
        DatabaseOptions { url: url.into(), ..DatabaseOptions::default() }
    }

    #[test]
    fn addresses_of_files_are_relative_or_absolute_and_escaped() {
        let file = |url: &str| match options(url).target().unwrap() {
            Target::Sqlite(file) => file,
            Target::Postgres(server) => panic!("{server}"),
        };
        let here = std::env::current_dir().unwrap();
        assert_eq!(file("sqlite://records.db"), here.join("records.db"));
        assert_eq!(file("sqlite:records.db"), here.join("records.db"));
        assert_eq!(file("sqlite:///var/lib/a.db"), Path::new("/var/lib/a.db"));
        assert_eq!(file("sqlite:///a%20b/%3F%E7%AC%94.db"), Path::new("/a b/?笔.db"));
        DatabaseOptions::default().validate().unwrap();
    }

    #[test]
    fn a_wrong_address_is_not_shown() {
        for wrong in [
            "canary",
            "mysql://me:canary@h/d",
            "canary://h",
            "postgres://me:canary@h:port/d",
            "postgres://me:canary@[h/d",
            "sqlite::memory:",
            "sqlite://",
            "sqlite://a.db?mode=canary",
            "sqlite://%ffcanary",
        ] {
            let error = options(wrong).validate().unwrap_err().to_string();
            assert!(error.starts_with("option `url` is ") && !error.contains("canary"), "{error}");
        }
        assert!(!format!("{:?}", options("postgres://me:canary@h/d")).contains("canary"));
    }

    #[test]
    fn a_server_is_named_without_user_and_password() {
        let target = options("postgres://me:canary@h:5433/notes?sslmode=disable").target().unwrap();
        assert_eq!(target.shown(), "h:5433/notes");
    }

    #[test]
    fn options_out_of_range_are_errors_that_name_them() {
        let rejected = |options: DatabaseOptions| options.validate().unwrap_err().to_string();
        for connections in [0, 101] {
            assert_eq!(
                rejected(DatabaseOptions { connections, ..DatabaseOptions::default() }),
                format!("option `connections` is {connections}; allowed: 1 to 100")
            );
        }
        assert_eq!(
            rejected(DatabaseOptions { lock_timeout: Duration::ZERO, ..DatabaseOptions::default() }),
            "option `lock_timeout` is 0ns; allowed: 1ms to 60s"
        );
        let read: DatabaseOptions = serde_json::from_str(r#"{"lock_timeout": "250ms"}"#).unwrap();
        assert_eq!((read.lock_timeout, read.connections), (Duration::from_millis(250), 10));
        let error = serde_json::from_str::<DatabaseOptions>(r#"{"uri": "canary"}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `uri`"), "{error}");
    }
}
