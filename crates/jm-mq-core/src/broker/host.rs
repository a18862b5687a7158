//! The name or address of a host, as operators write it.

use std::{fmt, net::Ipv6Addr};

use serde::{Deserializer, de};

use crate::{error::OptionsError, options::check_name};

/// An IPv6 address without the brackets that separate it from a port; anything else unchanged.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// `host:port`, or `[address]:port` for IPv6.
pub(super) fn with_port(host: &str, port: u16) -> String {
    let host = bare(host);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A whole address in the place of a host would be dialled as a name, and shown with its password when that fails.
pub(super) fn check(option: &'static str, host: &str) -> Result<(), OptionsError> {
    check_name(option, host)?;
    let plain = host.chars().all(|letter| letter.is_alphanumeric() || "-._".contains(letter));
    if plain || is_ipv6(bare(host)) {
        return Ok(());
    }
    let allowed = "the name or address of a host alone, without scheme, user, password and port; an IPv6 address with or \
                   without brackets, as in 2001:db8::7, [2001:db8::7] or fe80::1%eth0";
    Err(OptionsError::new(option, "no host", allowed))
}

/// With a zone or without: the interface of a link-local address.
fn is_ipv6(host: &str) -> bool {
    let (address, zone) = host.split_once('%').unwrap_or((host, "none"));
    let interface = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty() && zone.chars().all(interface)
}

/// Also an address in brackets without quotes, which YAML reads as a list of one.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Host;
    impl<'de> de::Visitor<'de> for Host {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the name or address of a host, in quotes")
        }

        fn visit_str<E: de::Error>(self, host: &str) -> Result<String, E> {
            Ok(host.to_owned())
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<String, A::Error> {
            let address = list.next_element::<String>()?.filter(|address| is_ipv6(address));
            match (address, list.next_element::<de::IgnoredAny>()?) {
                (Some(address), None) => Ok(address),
                _ => Err(de::Error::invalid_type(de::Unexpected::Seq, &self)),
            }
        }
    }
    deserializer.deserialize_any(Host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_has_brackets_where_a_port_follows_and_only_there() {
        for host in ["2001:db8::7", "[2001:db8::7]"] {
            assert_eq!((bare(host), with_port(host, 5672)), ("2001:db8::7", "[2001:db8::7]:5672".to_owned()));
        }
        assert_eq!(with_port("rabbit", 1), "rabbit:1");
    }

    #[test]
    fn addresses_and_names_are_hosts_and_what_has_a_port_or_a_password_is_none() {
        for host in ["rabbit-1.mq_a.svc.", "::1", "[::1]", "fe80::1%eth0", "[fe80::1%eth0]", "10.0.0.1", "消息.example"]
        {
            assert_eq!(check("host", host), Ok(()), "{host}");
        }
        let wrong =
            ["rabbit:5672", "amqp://u:canary@host", "u:canary@host", "host/canary", "[::1]:5672", "[rabbit]", "::1%"];
        for host in wrong.into_iter().chain(["fe80::1%a b", "2001:db8::canary", "ho st canary"]) {
            let error = check("host", host).unwrap_err().to_string();
            assert!(error.starts_with("option `host` is no host; ") && !error.contains("canary"), "{host}: {error}");
        }
    }

    #[test]
    fn an_address_in_brackets_may_lack_its_quotes_and_no_other_list_is_a_host() {
        let read = |json: &str| deserialize(&mut serde_json::Deserializer::from_str(json));
        assert_eq!(read(r#""[::1]""#).unwrap(), "[::1]");
        assert_eq!(read(r#"["2001:db8::7"]"#).unwrap(), "2001:db8::7");
        for wrong in [r#"["rabbit"]"#, r#"["::1", "::2"]"#, "[]", "7"] {
            assert!(read(wrong).unwrap_err().to_string().contains("the name or address of a host"), "{wrong}");
        }
    }
}
