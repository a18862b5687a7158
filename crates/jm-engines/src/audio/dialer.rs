//! The one way to the store: to its own host, past no proxy, along no redirect.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use object_store::{
    ClientOptions, Result,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
};
use reqwest::StatusCode;

use super::status::retry_after;

/// Sends the requests for one object, and keeps what the store answered if it was no success.
///
/// The store's library has a client of its own, which follows redirects with the keys' token, asks proxies, and dials any
/// address; this takes its place.
#[derive(Clone)]
pub(super) struct Dialer {
    http: reqwest::Client,
    /// The host and port that may be asked, as in the URL.
    authority: String,
    refusal: Arc<OnceLock<Refusal>>,
}

/// An answer that was no success.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// The wait that the store asks for.
    pub(super) retry_after: Option<Duration>,
}

/// A request to somebody else than the store.
#[derive(Debug, thiserror::Error)]
#[error("not the store's own host")]
struct Elsewhere;

impl Dialer {
    pub(super) fn new(http: reqwest::Client, authority: &str) -> Self {
        Self { http, authority: authority.to_owned(), refusal: Arc::default() }
    }

    /// What the store answered, if it was no success.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.uri().authority().is_none_or(|authority| authority.as_str() != self.authority) {
            return Err(HttpError::new(HttpErrorKind::Unknown, Elsewhere));
        }
        let answer = self.http.call(request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let retry_after = retry_after(answer.headers(), SystemTime::now());
        // There is but one request, since nothing is tried twice.
        let _ = self.refusal.set(Refusal { status: answer.status(), retry_after });
        // The body is of no use, and may have no end.
        Ok(HttpResponse::from_parts(answer.into_parts().0, Bytes::new().into()))
    }
}

impl HttpConnector for Dialer {
    fn connect(&self, _: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Dialer {
    // As the trait's macro writes it.
    fn call<'life0, 'async_trait>(
        &'life0 self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(self.answer(request))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("authority", &self.authority).finish_non_exhaustive()
    }
}
