//! Recordings in a store that speaks S3's protocol.

use futures_util::StreamExt;
use jm_mq_core::OptionsError;
use object_store::{
    ClientOptions, Error, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use reqwest::header::HeaderValue;

use super::{
    options::{S3Options, given},
    web::{append, reserved},
};
use crate::{
    error::EngineError,
    http::client::{CONNECT_TIMEOUT, USER_AGENT, install_tls_provider},
    options::refused,
};

/// Fetches objects. The store is the operator's: its address may be private.
pub(super) struct S3 {
    options: S3Options,
    max_bytes: usize,
}

impl S3 {
    pub(super) fn new(options: S3Options, max_bytes: usize) -> Result<Self, OptionsError> {
        install_tls_provider();
        let s3 = Self { options, max_bytes };
        // So that a mistake shows when the program starts. The error is not shown, since it may quote a key.
        s3.bucket("bucket").map_err(|_| refused("s3", "not usable", "an endpoint and keys that belong together"))?;
        Ok(s3)
    }

    /// The object's bytes.
    pub(super) async fn fetch(&self, bucket: &str, key: &str) -> Result<Vec<u8>, EngineError> {
        if !self.options.buckets.is_empty() && !self.options.buckets.iter().any(|allowed| allowed == bucket) {
            return Err(EngineError::permanent("a bucket that is not in `s3.buckets`"));
        }
        let path = Path::parse(key).map_err(|_| EngineError::permanent("a key with empty or relative parts"))?;
        let store = self.bucket(bucket).map_err(|_| EngineError::operator("the `s3` options are not usable"))?;
        let answer = store.get(&path).await.map_err(|error| failed(&error))?;
        let mut file = reserved(Some(answer.meta.size), self.max_bytes)?;
        let mut chunks = answer.into_stream();
        while let Some(chunk) = chunks.next().await {
            append(&mut file, &chunk.map_err(|error| failed(&error))?, self.max_bytes)?;
        }
        Ok(file)
    }

    /// A client of its own for each file: buckets are named by messages, so a list of clients would have no limit.
    fn bucket(&self, bucket: &str) -> Result<AmazonS3, Error> {
        let endpoint = self.options.endpoint();
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http:"));
        let client = ClientOptions::new()
            .with_allow_http(plain)
            .with_user_agent(HeaderValue::from_static(USER_AGENT))
            .with_connect_timeout(CONNECT_TIMEOUT)
            // The caller has one for all of it.
            .with_timeout_disabled();
        let mut builder = AmazonS3Builder::new()
            .with_client_options(client)
            // The platform retries, and looks at the class of the error.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_bucket_name(bucket)
            .with_region(&self.options.region)
            .with_virtual_hosted_style_request(self.options.virtual_hosted_style);
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
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
        builder.build()
    }
}

/// The store's own words stay out: they quote keys' names and signatures.
fn failed(error: &Error) -> EngineError {
    match error {
        Error::NotFound { .. } => EngineError::permanent("no such object"),
        Error::InvalidPath { .. } => EngineError::permanent("not the name of an object"),
        Error::PermissionDenied { .. } => EngineError::operator("the store refuses access (403)"),
        Error::Unauthenticated { .. } => EngineError::operator("the store does not accept the keys (401)"),
        _ => EngineError::retryable("the store did not answer, or with an error"),
    }
}
