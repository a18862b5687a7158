//! Recordings on web servers, whose addresses strangers choose.

use std::{error::Error as StdError, sync::Arc, time::SystemTime};

use jm_mq_core::OptionsError;
use reqwest::{Response, header::LOCATION, redirect::Policy};
use url::{Host, Url};

use super::{
    address::is_public,
    memory_file::MemoryFile,
    resolver::{AllowedHosts, Lookup, NotPublic, PublicOnly},
    status::{classify, retry_after},
};
use crate::{
    error::{EngineError, ErrorClass},
    http::{
        client::{CONNECT_TIMEOUT, USER_AGENT, causes, install_tls_provider},
        dialect::refusal::shown,
    },
    options::refused,
};

/// More than any honest server needs.
const MAX_REDIRECTS: usize = 5;

/// Fetches by `https`, and by `http` from allowed hosts.
pub(super) struct Web {
    http: reqwest::Client,
    allowed: Arc<AllowedHosts>,
    max_bytes: usize,
}

impl Web {
    pub(super) fn new(allowed: AllowedHosts, lookup: Lookup, max_bytes: usize) -> Result<Self, OptionsError> {
        install_tls_provider();
        let allowed = Arc::new(allowed);
        let http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            // Followed by hand, so that each address is checked.
            .redirect(Policy::none())
            // A proxy would do the dialling, past all checks.
            .no_proxy()
            .dns_resolver(PublicOnly { allowed: Arc::clone(&allowed), lookup })
            .build()
            .map_err(|error| refused("audio", "https", format!("a working TLS setup; here: {}", causes(&error))))?;
        Ok(Self { http, allowed, max_bytes })
    }

    /// The file. Errors are about the URL that was given, which the caller names.
    pub(super) async fn fetch(&self, mut url: Url) -> Result<MemoryFile, EngineError> {
        for _ in 0..=MAX_REDIRECTS {
            self.check(&url)?;
            let answer = self.http.get(url.clone()).send().await.map_err(network)?;
            if !answer.status().is_redirection() {
                return self.read(answer).await;
            }
            let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let location = location.and_then(|location| url.join(location).ok());
            url = location.ok_or_else(|| {
                EngineError::permanent(format!("{} without an address to go to", shown(answer.status().as_u16())))
            })?;
        }
        Err(EngineError::permanent(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Whether this address may be asked. Names are checked once more when their addresses are known.
    pub(super) fn check(&self, url: &Url) -> Result<(), EngineError> {
        let host = url.host().ok_or_else(|| EngineError::permanent("a URL without a host"))?;
        let allowed = self.allowed.contains(&host);
        match url.scheme() {
            "https" => {}
            "http" if allowed => {}
            "http" => return Err(EngineError::permanent("http:// to a host that is not in `allowed_hosts`")),
            _ => return Err(EngineError::permanent("a redirect that leaves the web")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EngineError::permanent("a URL with a user or a password"));
        }
        // The client dials these without the resolver. `0x7f.1` and the like are addresses already: the URL's parser
        // reads them as such.
        let public = match host {
            Host::Domain(_) => true,
            Host::Ipv4(address) => is_public(address.into()),
            Host::Ipv6(address) => is_public(address.into()),
        };
        if public || allowed {
            return Ok(());
        }
        Err(EngineError::permanent("an address that is not public, and not in `allowed_hosts`"))
    }

    async fn read(&self, mut answer: Response) -> Result<MemoryFile, EngineError> {
        let status = answer.status();
        if !status.is_success() {
            let class = classify(status.as_u16(), retry_after(answer.headers(), SystemTime::now()));
            // The URL itself is the right to read (it may be signed, for a time): nobody can mend a key.
            let class = if class == ErrorClass::Operator { ErrorClass::Permanent } else { class };
            return Err(EngineError::new(class, shown(status.as_u16())));
        }
        let announced = answer.content_length();
        let mut file = MemoryFile::new(announced, self.max_bytes)?;
        while let Some(chunk) = answer.chunk().await.map_err(network)? {
            file.append(&chunk)?;
        }
        Ok(file)
    }
}

fn network(error: reqwest::Error) -> EngineError {
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = cause {
        if error.is::<NotPublic>() {
            return EngineError::permanent(format!("{NotPublic}, and is not in `allowed_hosts`"));
        }
        cause = error.source();
    }
    EngineError::retryable(causes(&error.without_url()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        net::{IpAddr, TcpListener},
        time::Duration,
    };

    fn web(allowed: &[&str], addresses: Vec<IpAddr>) -> Web {
        let names: Vec<String> = allowed.iter().map(|&name| name.to_owned()).collect();
        let lookup: Lookup = Arc::new(move |_| {
            let addresses = addresses.clone();
            Box::pin(async move { Ok::<_, io::Error>(addresses) })
        });
        Web::new(AllowedHosts::new(&names).unwrap(), lookup, 1000).unwrap()
    }

    async fn fails(web: &Web, url: &str) -> EngineError {
        let fetch = web.fetch(url.parse().unwrap());
        tokio::time::timeout(Duration::from_secs(10), fetch).await.unwrap().unwrap_err()
    }

    #[tokio::test]
    async fn a_name_with_one_public_and_one_private_address_is_refused_and_nothing_is_dialled() {
        let canary = TcpListener::bind("127.0.0.1:0").unwrap();
        canary.set_nonblocking(true).unwrap();
        let port = canary.local_addr().unwrap().port();
        let loopback: IpAddr = [127, 0, 0, 1].into();
        let public: IpAddr = [198, 41, 0, 4].into();
        for addresses in [vec![public, loopback], vec![loopback, public], vec![loopback]] {
            let error = fails(&web(&["elsewhere.example"], addresses), &format!("https://name.example:{port}/")).await;
            assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
            assert!(error.to_string().contains("not public"), "{error}");
        }
        assert_eq!(canary.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);

        // The same port is dialled for a name that is allowed: the canary does see connections.
        let listening = tokio::task::spawn_blocking(move || {
            canary.set_nonblocking(false).unwrap();
            drop(canary.accept().unwrap());
        });
        let error = fails(&web(&["NAME.example"], vec![loopback]), &format!("http://name.example:{port}/")).await;
        assert_eq!(error.class(), ErrorClass::Retryable, "{error}");
        listening.await.unwrap();
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_resolved_is_retried() {
        let lookup: Lookup = Arc::new(|_| Box::pin(async { Err(io::Error::other("no such name")) }));
        let web = Web::new(AllowedHosts::default(), lookup, 1000).unwrap();
        assert_eq!(fails(&web, "https://name.example/").await.class(), ErrorClass::Retryable);
    }
}
