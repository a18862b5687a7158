//! The way to one node: its addresses, and with each a TCP connection, TLS, and the broker's greeting.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{
    Broker,
    doorbell::Doorbell,
    greeting::{self, Greeting, NoGreeting},
    host,
    race::race,
    socket::Socket,
    stream::{Inner, Switch},
    tls,
};
use crate::error::ConnectError;

/// How long an attempt has a head start before the next one: RFC 8305's recommendation.
const HEAD_START: Duration = Duration::from_millis(250);
/// The reasons that one error has room for.
const MAX_SHOWN: usize = 8;

/// A connection over which the broker has said who it is.
pub(super) struct Arrival {
    pub(super) address: SocketAddr,
    pub(super) inner: Inner,
    pub(super) ends: Ends,
    /// The broker's first frame.
    pub(super) frame: Vec<u8>,
    pub(super) greeting: Greeting,
}

/// What a stream is reached by from outside.
pub(super) struct Ends {
    pub(super) switch: Arc<Switch>,
    pub(super) bell: Arc<Doorbell>,
}

/// How to get to the nodes of a broker, in one attempt.
pub(super) struct Route<'a> {
    pub(super) broker: &'a Broker,
    /// The limit of the whole attempt, for error texts.
    pub(super) limit: Duration,
    pub(super) deadline: Instant,
    /// An address that greeted last time and did not get further: the last to be tried.
    pub(super) suspect: Option<SocketAddr>,
}

impl Route<'_> {
    /// Tries all nodes, each with a head start over the next.
    pub(super) async fn to_any(&self, nodes: &[(String, u16)], first: usize) -> Result<Arrival, ConnectError> {
        let in_turn = (0..nodes.len()).map(|offset| &nodes[first.wrapping_add(offset) % nodes.len()]);
        let attempts = in_turn.map(|(host, port)| self.to(host, *port)).collect();
        let mut errors = match race(attempts, self.head_start(nodes.len())).await {
            Ok(arrival) => return Ok(arrival),
            Err(errors) => errors,
        };
        // As configured, whoever was tried first: the same error has the same text.
        let count = errors.len().max(1);
        errors.rotate_right(first % count);
        // What waits for a person at one node may pass at another.
        Err(match errors.iter().find(|error| !error.is_fatal()) {
            Some(_) => all_of(errors),
            None => errors.swap_remove(0),
        })
    }

    /// Tries all addresses of a node, each with a head start over the next.
    async fn to(&self, host: &str, port: u16) -> Result<Arrival, ConnectError> {
        let node = host::with_port(host, port);
        let lookup = timeout_at(self.deadline, self.broker.resolver().addresses(host, port));
        let mut addresses = match lookup.await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(reason)) => {
                return Err(ConnectError::Unreachable { hosts: node, reason: reason.to_string() });
            }
            Err(_) => return Err(self.silent(node, "looking up its address")),
        };
        addresses.sort_by_key(|address| self.suspect == Some(*address));
        let named = |address: &SocketAddr| match addresses.len() {
            1 => node.clone(),
            _ => format!("{node} ({})", address.ip()),
        };
        let attempts = addresses.iter().map(|address| self.by(host, *address, named(address))).collect();
        race(attempts, self.head_start(addresses.len())).await.map_err(|mut errors| {
            // Another address of the same node, often of a family that this network does not have, says less.
            match errors.iter().position(ConnectError::is_fatal) {
                Some(fatal) => errors.swap_remove(fatal),
                None => all_of(errors),
            }
        })
    }

    async fn by(&self, host: &str, address: SocketAddr, node: String) -> Result<Arrival, ConnectError> {
        match timeout_at(self.deadline, self.greeted(host, address, &node)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.silent(node, "connecting")),
        }
    }

    async fn greeted(&self, host: &str, address: SocketAddr, node: &str) -> Result<Arrival, ConnectError> {
        let unreachable_node =
            |error: &io::Error| ConnectError::Unreachable { hosts: node.to_owned(), reason: error.to_string() };
        let tls_error = |reason| ConnectError::Tls { host: node.to_owned(), reason };
        let lost = |error: &io::Error| {
            // A reset is no verdict on certificates: a load balancer whose broker restarts does that.
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(verdict) => tls_error(tls::verdict(verdict, self.shows_certificate())),
                None => unreachable_node(error),
            }
        };
        let stranger = |error| match error {
            NoGreeting::Lost(error) => lost(&error),
            NoGreeting::Stranger(what) => ConnectError::NotBroker { host: node.to_owned(), reason: what },
        };
        let stream = TcpStream::connect(address)
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|error| unreachable_node(&error))?;
        let ends = Ends::new().map_err(|error| unreachable_node(&error))?;
        let mut stream = Socket::new(stream, self.broker.io_handle(), Arc::clone(&ends.bell), Arc::clone(&ends.switch));
        let (inner, frame) = match self.broker.secrets().tls() {
            None => {
                let frame = greeting::exchange(&mut stream).await.map_err(stranger)?;
                (Inner::Plain(stream.compat()), frame)
            }
            Some(config) => {
                let name = self.expected_name(host).map_err(tls_error)?;
                let mut stream =
                    TlsConnector::from(config).connect(name, stream).await.map_err(|error| lost(&error))?;
                let frame = greeting::exchange(&mut stream).await.map_err(stranger)?;
                (Inner::Tls(Box::new(stream.compat())), frame)
            }
        };
        let greeting = Greeting::read(&frame);
        Ok(Arrival { address, inner, ends, frame, greeting })
    }

    /// The name in the broker's certificate.
    fn expected_name(&self, host: &str) -> Result<ServerName<'static>, String> {
        let configured = self.broker.options().tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        // No certificate has the zone of an address.
        let dialled = host.split('%').next().unwrap_or(host);
        ServerName::try_from(configured.unwrap_or(dialled).to_owned()).map_err(|error| error.to_string())
    }

    fn shows_certificate(&self) -> bool {
        self.broker.options().tls.as_ref().is_some_and(|tls| tls.cert_file.is_some())
    }

    /// Short enough for the last of so many to have half of the time for itself.
    fn head_start(&self, attempts: usize) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX).max(1);
        HEAD_START.min(left / 2 / attempts)
    }

    fn silent(&self, hosts: String, doing: &'static str) -> ConnectError {
        ConnectError::Silent { hosts, after: self.limit, doing }
    }
}

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self { switch: Arc::default(), bell: Arc::new(Doorbell::new()?) })
    }
}

/// One error for several hosts or addresses.
fn all_of(mut errors: Vec<ConnectError>) -> ConnectError {
    if errors.len() == 1 {
        return errors.swap_remove(0);
    }
    let more = errors.len().saturating_sub(MAX_SHOWN);
    errors.truncate(MAX_SHOWN);
    let parts: Vec<(String, String)> = errors.iter().map(place_and_reason).collect();
    let mut hosts: Vec<&str> = parts.iter().map(|(host, _)| host.as_str()).collect();
    hosts.dedup();
    let hosts = hosts.join(", ");
    let silent = errors.iter().map(|error| match error {
        ConnectError::Silent { after, doing, .. } => Some((*after, *doing)),
        _ => None,
    });
    if let Some((after, doing)) = silent.reduce(|all, one| all.filter(|_| all == one)).flatten() {
        return ConnectError::Silent { hosts, after, doing };
    }
    let mut reasons: Vec<String> = parts.iter().map(|(host, reason)| format!("{host}: {reason}")).collect();
    if parts.iter().all(|(_, reason)| *reason == parts[0].1) {
        reasons = vec![parts[0].1.clone()];
    }
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    ConnectError::Unreachable { hosts, reason: reasons.join("; ") }
}

fn place_and_reason(error: &ConnectError) -> (String, String) {
    match error {
        ConnectError::Unreachable { hosts, reason } => (hosts.clone(), reason.clone()),
        ConnectError::Silent { hosts, after, doing } => {
            (hosts.clone(), format!("no answer within {after:?} while {doing}"))
        }
        ConnectError::Tls { host, reason } | ConnectError::NotBroker { host, reason } => (host.clone(), reason.clone()),
        other => (String::new(), other.to_string()),
    }
}

#[cfg(test)]
mod tests;
