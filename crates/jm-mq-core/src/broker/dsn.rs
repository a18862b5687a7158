//! The specification's `dsn`, `amqp://name:password@host:port/vhost?option=value`.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use super::options::{Auth, BrokerOptions, Port, TlsOptions};
use crate::error::OptionsError;

const ALLOWED: &str =
    "amqp://name:password@host:port/vhost, or amqps:// for TLS, with special characters percent-encoded";
const OPTIONS: &str = "heartbeat (seconds), connection_timeout (milliseconds), auth_mechanism (plain, external), and with amqps:// \
                       cacertfile, certfile, keyfile, server_name_indication";
/// The name of an unknown option in an error.
const MAX_SHOWN_CHARS: usize = 40;

/// No part of it is in the error but the names of its options: there is a password in it.
pub(super) fn read(dsn: &str) -> Result<BrokerOptions, OptionsError> {
    let url = Url::parse(dsn).ok().filter(|url| !url.cannot_be_a_base() && url.fragment().is_none());
    let Some(url) = url else { return Err(unreadable(dsn)) };
    let tls = match url.scheme() {
        "amqp" => None,
        "amqps" => Some(TlsOptions::default()),
        _ => return Err(unreadable(dsn)),
    };
    let decoded = |part: &str| match percent_decode_str(part).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(unreadable(dsn)),
    };
    let mut options = BrokerOptions { port: url.port().map(Port), tls, ..BrokerOptions::default() };
    if let Some(host) = url.host_str().filter(|host| !host.is_empty()) {
        options.host = decoded(host)?;
    }
    if !url.username().is_empty() {
        options.name = decoded(url.username())?;
    }
    if let Some(password) = url.password() {
        options.password = decoded(password)?.into();
    }
    match decoded(url.path().strip_prefix('/').unwrap_or_default())? {
        vhost if vhost.is_empty() => {}
        vhost => options.vhost = vhost,
    }
    for (name, value) in url.query_pairs() {
        set(&mut options, &name, &value)?;
    }
    options.validate()?;
    Ok(options)
}

fn set(options: &mut BrokerOptions, name: &str, value: &str) -> Result<(), OptionsError> {
    let wrong = |allowed: &'static str| OptionsError::new(format!("dsn?{name}"), format_args!("`{value}`"), allowed);
    let number = |allowed| value.parse::<u32>().map_err(|_| wrong(allowed));
    match (name, &mut options.tls) {
        ("heartbeat", _) => options.heartbeat = Duration::from_secs(number("seconds, a whole number")?.into()),
        ("connection_timeout", _) => {
            options.connect_timeout = Duration::from_millis(number("milliseconds, a whole number")?.into());
        }
        ("auth_mechanism", _) => {
            options.auth = match value.to_ascii_lowercase().as_str() {
                "plain" => Auth::Password,
                "external" => Auth::External,
                _ => return Err(wrong("plain or external")),
            }
        }
        ("cacertfile", Some(tls)) => tls.ca_file = Some(value.into()),
        ("certfile", Some(tls)) => tls.cert_file = Some(value.into()),
        ("keyfile", Some(tls)) => tls.key_file = Some(value.into()),
        ("server_name_indication", Some(tls)) => tls.server_name = Some(value.into()),
        ("cacertfile" | "certfile" | "keyfile" | "server_name_indication", None) => {
            return Err(OptionsError::new(format!("dsn?{name}"), "set without TLS", "with amqps:// only"));
        }
        _ => {
            let shown: String = name.escape_debug().take(MAX_SHOWN_CHARS).collect();
            return Err(OptionsError::new("dsn", format_args!("with the unknown option `{shown}`"), OPTIONS));
        }
    }
    Ok(())
}

fn unreadable(dsn: &str) -> OptionsError {
    // The standard of URLs knows no zones.
    let zone =
        dsn.split_once('[').and_then(|(_, rest)| rest.split_once(']')).is_some_and(|(host, _)| host.contains('%'));
    if zone {
        return OptionsError::new(
            "dsn",
            "with the zone of an IPv6 address",
            "a zone in the option `host`, as in fe80::1%eth0",
        );
    }
    OptionsError::new("dsn", "not an AMQP address", ALLOWED)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn refused(dsn: &str) -> String {
        read(dsn).unwrap_err().to_string()
    }

    #[test]
    fn a_dsn_is_read_and_a_wrong_one_is_not_shown() {
        let options = read("amqps://us%2Fer:p%40ss@h/%2Fv%20h?heartbeat=20").unwrap();
        assert_eq!((options.name.as_str(), options.password.expose_secret()), ("us/er", "p@ss"));
        assert_eq!((options.vhost.as_str(), options.heartbeat), ("/v h", Duration::from_secs(20)));
        assert_eq!(options.nodes(), [("h".into(), 5671)]);
        assert!(options.tls.is_some());
        assert_eq!(read("amqp://h").unwrap().vhost, "/");
        let wrong = [
            "amqp//me:canary@h",
            "me:canary@h",
            "http://me:canary@h",
            "amqp://me:can#ary@h",
            "amqp://canary:%ff@h",
            "amqp://me:canary@h:x",
        ];
        for dsn in wrong {
            let error = refused(dsn);
            assert!(error.starts_with("option `dsn`") && !error.contains("can"), "{dsn}: {error}");
        }
    }

    #[test]
    fn an_ipv6_address_is_dialled_and_never_replaced_by_localhost() {
        for (dsn, host, port) in [
            ("amqp://u:p@[2001:db8::7]:5673/%2F", "2001:db8::7", 5673),
            ("amqp://[::1]", "::1", 5672),
            ("amqps://[2001:0DB8::0007]/v", "2001:db8::7", 5671),
            ("amqp://10.0.0.7/", "10.0.0.7", 5672),
        ] {
            assert_eq!(read(dsn).unwrap().nodes(), [(host.to_owned(), port)], "{dsn}");
        }
        assert!(refused("amqp://u:canary@[fe80::1%25eth0]/").contains("the zone of an IPv6 address"));
    }

    #[test]
    fn options_are_read_and_unknown_ones_are_named() {
        let dsn = "amqps://h/?connection_timeout=700&auth_mechanism=EXTERNAL&cacertfile=/ca&certfile=/c&keyfile=/k&server_name_indication=n";
        let options = read(dsn).unwrap();
        assert_eq!((options.connect_timeout, options.auth), (Duration::from_millis(700), Auth::External));
        let tls = TlsOptions {
            ca_file: Some("/ca".into()),
            cert_file: Some("/c".into()),
            key_file: Some("/k".into()),
            server_name: Some("n".into()),
        };
        assert_eq!(options.tls, Some(tls));
        for (query, words) in [
            ("foo=canary", "with the unknown option `foo`; allowed: heartbeat (seconds), "),
            ("heartbeat=20&verify=verify_none", "`verify`"),
            ("heartbeat=ten", "option `dsn?heartbeat` is `ten`; allowed: seconds, a whole number"),
            ("heartbeat=0", "option `heartbeat` is 0ns"),
            ("auth_mechanism=amqplain", "plain or external"),
            ("certfile=/c", "option `dsn?certfile` is set without TLS; allowed: with amqps:// only"),
            ("auth_mechanism=external", "option `auth` is external; "),
        ] {
            let error = refused(&format!("amqp://h?{query}"));
            assert!(error.contains(words) && !error.contains("canary"), "{query}: {error}");
        }
    }
}
