//! The addresses of a host, looked up by the operating system.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::runtime::Handle;

/// The addresses of a name that are tried.
const MAX_ADDRESSES: usize = 32;

type Outcome = Result<Vec<SocketAddr>, Arc<str>>;
type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks each name up once at a time.
///
/// A lookup cannot be cancelled, and its thread is the client's own, so that no application waits for it at its end.
/// Whoever asks for a name that is being looked up gets that answer: where the first name server is away, one takes
/// longer than an attempt to connect may.
pub(super) struct Resolver {
    threads: Handle,
    lookup: Arc<Lookup>,
    running: Mutex<HashMap<String, Shared<BoxFuture<'static, Outcome>>>>,
}

impl Resolver {
    pub(super) fn of_system(threads: Handle) -> Self {
        Self::new(threads, |host| Ok((host, 0).to_socket_addrs()?.collect()))
    }

    /// `lookup` may block.
    pub(super) fn new(
        threads: Handle,
        lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { threads, lookup: Arc::new(lookup), running: Mutex::default() }
    }

    /// All addresses, alternating between IPv6 and IPv4, the system's preferred one first.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Arc<str>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let mut found = self.lookup(host).await?;
        for address in &mut found {
            address.set_port(port);
        }
        Ok(alternating(found))
    }

    fn lookup(&self, host: &str) -> Shared<BoxFuture<'static, Outcome>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, lookup| lookup.peek().is_none());
        running.entry(host.to_owned()).or_insert_with(|| self.begin(host)).clone()
    }

    fn begin(&self, host: &str) -> Shared<BoxFuture<'static, Outcome>> {
        let (lookup, host) = (Arc::clone(&self.lookup), host.to_owned());
        let found = self.threads.spawn_blocking(move || lookup(&host));
        let outcome = async move {
            match found.await {
                Ok(Ok(addresses)) if addresses.is_empty() => Err("the name has no address".into()),
                Ok(Ok(addresses)) => Ok(addresses),
                Ok(Err(error)) => Err(error.to_string().into()),
                Err(error) => Err(error.to_string().into()),
            }
        };
        let outcome = outcome.boxed().shared();
        // It ends also when nobody waits for it any more.
        drop(self.threads.spawn(outcome.clone()));
        outcome
    }
}

fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(preferred) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let mut unique = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let (first, second): (Vec<_>, Vec<_>) = unique.into_iter().partition(|address| address.is_ipv6() == preferred);
    let mut second = second.into_iter();
    let mut mixed = Vec::new();
    for address in first {
        mixed.push(address);
        mixed.extend(second.next());
    }
    mixed.extend(second);
    mixed.truncate(MAX_ADDRESSES);
    mixed
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    fn all(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn the_families_alternate_beginning_with_the_systems_preference() {
        let mixed = alternating(all(&["::1", "::2", "::1", "::3", "10.0.0.1", "10.0.0.2"]));
        assert_eq!(mixed, all(&["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]));
        assert_eq!(alternating(all(&["10.0.0.1", "::1", "::2"])), all(&["10.0.0.1", "::1", "::2"]));
        let many: Vec<String> = (0..99).map(|n| format!("10.0.0.{n}")).collect();
        assert_eq!(alternating(all(&many.iter().map(String::as_str).collect::<Vec<_>>())).len(), MAX_ADDRESSES);
    }

    #[tokio::test]
    async fn a_lookup_that_outlasts_an_attempt_serves_the_next_one() {
        let lookups = Arc::new(AtomicUsize::new(0));
        let (answer, answered) = mpsc::channel();
        let answered = Mutex::new(answered);
        let count = Arc::clone(&lookups);
        let resolver = Resolver::new(Handle::current(), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(answered.lock().unwrap().recv().unwrap())
        });
        for _ in 0..3 {
            assert!(resolver.addresses("rabbit", 5672).now_or_never().is_none());
        }
        answer.send(all(&["10.0.0.1"])).unwrap();
        assert_eq!(resolver.addresses("rabbit", 5672).await.unwrap(), ["10.0.0.1:5672".parse().unwrap()]);
        assert_eq!(lookups.load(Ordering::SeqCst), 1);
        // Not a cache: the next answer may be another one.
        answer.send(all(&["10.0.0.2"])).unwrap();
        while resolver.addresses("rabbit", 1).await.unwrap() != ["10.0.0.2:1".parse().unwrap()] {}
        assert_eq!(resolver.addresses("10.0.0.3", 1).await.unwrap(), ["10.0.0.3:1".parse().unwrap()]);
    }
}
