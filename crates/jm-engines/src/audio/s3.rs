//! Recordings in a store that speaks S3's protocol.

use std::{error::Error as StdError, sync::Arc};

use futures_util::StreamExt;
use jm_mq_core::OptionsError;
use object_store::{
    Error, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use reqwest::redirect::Policy;
use url::Url;

use super::{
    dialer::{Dialer, Refusal},
    memory_file::MemoryFile,
    options::{S3Options, given},
    resolver::{AllowedHosts, Lookup, NotPublic, PublicOnly},
    status::classify,
};
use crate::{
    error::{EngineError, ErrorClass},
    http::{
        client::{CONNECT_TIMEOUT, USER_AGENT, causes, install_tls_provider},
        dialect::refusal::shown,
    },
    options::refused,
};

/// Fetches objects. The store is the operator's: its own address may be private, and no other is ever dialled.
pub(super) struct S3 {
    options: S3Options,
    endpoint: Url,
    http: reqwest::Client,
    max_bytes: usize,
}

impl S3 {
    pub(super) fn new(options: S3Options, lookup: Lookup, max_bytes: usize) -> Result<Self, OptionsError> {
        let unusable = || refused("s3", "not usable", "an endpoint and keys that belong together");
        let endpoint = match options.endpoint() {
            Some(endpoint) => Url::parse(endpoint),
            None => Url::parse(&format!("https://s3.{}.amazonaws.com", options.region)),
        };
        let endpoint = endpoint.map_err(|_| unusable())?;
        let allowed = match (options.endpoint(), endpoint.host()) {
            (Some(_), Some(host)) => AllowedHosts::one(&host, options.virtual_hosted_style),
            _ => AllowedHosts::default(),
        };
        install_tls_provider();
        let http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            // Where a redirect leads is the store's word, and the keys' token would go along.
            .redirect(Policy::none())
            .no_proxy()
            .https_only(endpoint.scheme() == "https")
            .dns_resolver(PublicOnly { allowed: Arc::new(allowed), lookup })
            .build()
            .map_err(|error| refused("s3", "https", format!("a working TLS setup; here: {}", causes(&error))))?;
        let s3 = Self { options, endpoint, http, max_bytes };
        // So that a mistake shows when the program starts. The error is not shown, since it may quote a key.
        s3.bucket("bucket").ok_or_else(unusable)?;
        Ok(s3)
    }

    /// The object.
    pub(super) async fn fetch(&self, bucket: &str, key: &str) -> Result<MemoryFile, EngineError> {
        if !self.options.buckets.is_empty() && !self.options.buckets.iter().any(|allowed| allowed == bucket) {
            return Err(EngineError::permanent("a bucket that is not in `s3.buckets`"));
        }
        let path = Path::parse(key).map_err(|_| EngineError::permanent("a key with empty or relative parts"))?;
        let unusable = || EngineError::operator("the `s3` options are not usable");
        let (store, dialer) = self.bucket(bucket).ok_or_else(unusable)?;
        let failed = |error: Error| dialer.refusal().map_or_else(|| failed(&error), answered);
        let answer = store.get(&path).await.map_err(failed)?;
        let mut file = MemoryFile::new(Some(answer.meta.size), self.max_bytes)?;
        let mut chunks = answer.into_stream();
        while let Some(chunk) = chunks.next().await {
            file.append(&chunk.map_err(failed)?)?;
        }
        Ok(file)
    }

    /// A store of its own for each file: buckets are named by messages, so a list of them would have no limit.
    fn bucket(&self, bucket: &str) -> Option<(AmazonS3, Dialer)> {
        let mut endpoint = self.endpoint.clone();
        if self.options.virtual_hosted_style {
            // The library takes such an endpoint as it is.
            endpoint.set_host(Some(&format!("{bucket}.{}", endpoint.host_str()?))).ok()?;
        }
        let dialer = Dialer::new(self.http.clone(), endpoint.authority());
        let mut builder = AmazonS3Builder::new()
            .with_http_connector(dialer.clone())
            // The platform retries, and looks at the class of the error.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_bucket_name(bucket)
            .with_region(&self.options.region)
            .with_virtual_hosted_style_request(self.options.virtual_hosted_style)
            .with_endpoint(endpoint.as_str().trim_end_matches('/'));
        match (given(self.options.access_key_id.as_ref()), given(self.options.secret_access_key.as_ref())) {
            (Some(id), Some(key)) => {
                builder = builder.with_access_key_id(id).with_secret_access_key(key);
                if let Some(token) = given(self.options.session_token.as_ref()) {
                    builder = builder.with_token(token);
                }
            }
            // Without this the machine's metadata service would be asked for keys.
            _ => builder = builder.with_skip_signature(true),
        }
        Some((builder.build().ok()?, dialer))
    }
}

/// An answer that is no success. A redirect leads nowhere: another try would get the same.
fn answered(refusal: Refusal) -> EngineError {
    let status = refusal.status.as_u16();
    let class =
        if refusal.status.is_redirection() { ErrorClass::Permanent } else { classify(status, refusal.retry_after) };
    let said = match status {
        404 => "no such object",
        403 => "the store refuses access",
        401 => "the store does not accept the keys",
        300..=399 => "the store redirects, which is not followed",
        _ => "the store answered with an error",
    };
    EngineError::new(class, format!("{said} ({})", shown(refusal.status.as_u16())))
}

/// No answer. The library's own words stay out: they quote keys' names and signatures.
fn failed(error: &Error) -> EngineError {
    if let Error::InvalidPath { .. } = error {
        return EngineError::permanent("not the name of an object");
    }
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NotPublic>() {
            return EngineError::operator(format!("the store: {NotPublic}, and is not the endpoint's"));
        }
        cause = error.source();
    }
    EngineError::retryable("the store did not answer, or not to the end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Audio;
    use jm_testkit::{HttpResponse, HttpServer};
    use std::{
        io::{Read, Seek, SeekFrom},
        net::IpAddr,
        time::Duration,
    };

    /// All names lead to loopback.
    fn s3(options: S3Options) -> S3 {
        let loopback: IpAddr = [127, 0, 0, 1].into();
        S3::new(options, Arc::new(move |_| Box::pin(async move { Ok(vec![loopback]) })), 1_000_000).unwrap()
    }

    async fn fetch(s3: &S3, bucket: &str) -> Result<Vec<u8>, EngineError> {
        let file = tokio::time::timeout(Duration::from_secs(20), s3.fetch(bucket, "a/b.wav")).await.unwrap()?;
        let mut bytes = Vec::new();
        let mut file = file.sealed()?;
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    #[tokio::test]
    async fn in_virtual_hosted_style_each_bucket_is_a_host_of_its_own() {
        let server = HttpServer::start().await.unwrap();
        let wav = Audio::from_samples(vec![7; 100]).to_wav();
        let file = wav.clone();
        for path in ["/a/b.wav", "/one/a/b.wav"] {
            let file = file.clone();
            server.on("GET", path, move |_| {
                HttpResponse::bytes("audio/wav", file.clone()).header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            });
        }
        let endpoint = Some(format!("http://store.example:{}/", server.port()));
        let keys = S3Options {
            access_key_id: Some("id".into()),
            secret_access_key: Some("key".into()),
            ..S3Options::default()
        };
        let hosted = s3(S3Options { endpoint: endpoint.clone(), virtual_hosted_style: true, ..keys.clone() });
        for bucket in ["one", "two.three"] {
            assert_eq!(fetch(&hosted, bucket).await.unwrap(), wav);
        }
        assert_eq!(fetch(&s3(S3Options { endpoint, ..keys }), "one").await.unwrap(), wav);
        let port = server.port();
        let asked: Vec<_> = server
            .requests()
            .iter()
            .map(|request| format!("{} {}", request.header("host").unwrap(), request.path))
            .collect();
        let expected = [
            format!("one.store.example:{port} /a/b.wav"),
            format!("two.three.store.example:{port} /a/b.wav"),
            format!("store.example:{port} /one/a/b.wav"),
        ];
        assert_eq!(asked, expected);
    }

    #[tokio::test]
    async fn only_the_endpoints_own_name_may_have_a_private_address() {
        for virtual_hosted_style in [false, true] {
            // Amazon's names: nobody has said that they are private.
            let error =
                fetch(&s3(S3Options { virtual_hosted_style, ..S3Options::default() }), "one").await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Operator, "{error}");
            assert!(error.to_string().contains("not public"), "{error}");
        }
    }
}
