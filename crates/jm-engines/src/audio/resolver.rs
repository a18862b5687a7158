//! Names, and the addresses that may be dialled for them.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

use super::address::is_public;

/// The hosts that may have a private address, and be reached without TLS.
#[derive(Debug, Default)]
pub(super) struct AllowedHosts {
    hosts: HashSet<Host>,
    /// With all names below it: `.host`.
    below: Option<String>,
}

impl AllowedHosts {
    /// Reads names and addresses; the first that is neither is the error.
    pub(super) fn new(names: &[String]) -> Result<Self, String> {
        let host = |name: &String| match name.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
            Ok(address) => Ok(Host::Ipv6(address)),
            // The same reading as in a URL: lower case, other scripts encoded.
            Err(_) => Host::parse(name).map_err(|_| name.clone()),
        };
        let hosts = names.iter().map(host).collect::<Result<_, _>>()?;
        Ok(Self { hosts, below: None })
    }

    /// One host, with the names below it if it is a name and they are wanted.
    pub(super) fn one(host: &Host<&str>, with_below: bool) -> Self {
        let below = match host {
            Host::Domain(name) if with_below => Some(format!(".{name}")),
            _ => None,
        };
        Self { hosts: HashSet::from([host.to_owned()]), below }
    }

    pub(super) fn contains<S: AsRef<str>>(&self, host: &Host<S>) -> bool {
        let host = match host {
            Host::Domain(name) => Host::Domain(name.as_ref().to_ascii_lowercase()),
            Host::Ipv4(address) => Host::Ipv4(*address),
            Host::Ipv6(address) => Host::Ipv6(*address),
        };
        let below = match (&host, &self.below) {
            (Host::Domain(name), Some(below)) => name.ends_with(below),
            _ => false,
        };
        below || self.hosts.contains(&host)
    }
}

/// A name that leads, or may lead, to where messages must not send us.
#[derive(Debug, thiserror::Error)]
#[error("the name has an address that is not public")]
pub(super) struct NotPublic;

/// How a name is looked up: in tests, not as the system does it.
pub(super) type Lookup =
    Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync>;

/// As the system looks names up.
pub(super) fn system() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    })
}

/// Gives the client addresses that may be dialled, or none at all.
///
/// A name with a public and a private address is refused as a whole: which of them is dialled is chance. What is given
/// here is what is dialled, so the name cannot lead elsewhere in between.
pub(super) struct PublicOnly {
    pub(super) allowed: Arc<AllowedHosts>,
    pub(super) lookup: Lookup,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.allowed.contains(&Host::Domain(name.as_str()));
        let found = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let addresses = found.await?;
            if !allowed && !addresses.iter().all(|&address| is_public(address)) {
                return Err(NotPublic.into());
            }
            // The client replaces port 0 by the URL's.
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_allowed_by_name_or_address_whatever_their_case_or_spelling() {
        let names = ["Store.Internal", "10.0.0.7", "[::1]", "fd00::2"].map(str::to_owned);
        let allowed = AllowedHosts::new(&names).unwrap();
        for host in ["store.internal", "10.0.0.7", "[::1]", "[0:0::1]", "[fd00::2]"] {
            assert!(allowed.contains(&Host::parse(host).unwrap()), "{host}");
        }
        for host in ["internal", "x.store.internal", "store.internal.", "10.0.0.8", "[::2]", "[::ffff:10.0.0.7]"] {
            assert!(!allowed.contains(&Host::parse(host).unwrap()), "{host}");
        }
        let bucket: Host = Host::parse("bucket.store.internal").unwrap();
        for (with_below, contained) in [(false, false), (true, true)] {
            let one = AllowedHosts::one(&Host::Domain("store.internal"), with_below);
            assert_eq!(one.contains(&bucket), contained);
            assert!(one.contains(&Host::Domain("store.internal")) && !one.contains(&Host::Domain("a-store.internal")));
        }
        assert_eq!(AllowedHosts::new(&["a b".to_owned()]).unwrap_err(), "a b");
    }
}
