//! An HTTP server whose answers a test writes.

mod body;
mod engine;
mod form;
mod record;
mod request;
mod response;
mod socket;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::engine::Question;
pub use self::form::FormField;
use self::record::Record;
pub use self::request::HttpRequest;
pub use self::response::HttpResponse;

/// The server's thread answers its handle, and ends, within milliseconds, unless a route's closure holds it up.
const THREAD_LIMIT: Duration = Duration::from_secs(10);

/// An HTTP/1.1 server on loopback with routes that a test sets. What has no route is answered 404.
///
/// It runs on a thread of its own, since a test's runtime may be busy or gone, and stops when it is dropped: then its
/// port is closed and its connections with it. A request's body has 64 MiB at most; a larger one is answered 413.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    record: Arc<Record>,
    /// Their end is the thread's signal to end.
    questions: Option<UnboundedSender<Question>>,
    /// Ends with the thread. In a lock only because a server may be shared between threads.
    ended: Mutex<Receiver<()>>,
}

impl HttpServer {
    /// Starts a server on 127.0.0.1, at any free port.
    pub async fn start() -> Result<Self> {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Starts a server on a loopback address, such as `[::1]:0`; port 0 is any free one. Fails for an address others
    /// can reach, and for a port that is taken.
    pub async fn start_on(address: SocketAddr) -> Result<Self> {
        if !address.ip().is_loopback() {
            bail!("a test's HTTP server listens on loopback only, not on {address}");
        }
        let record = Arc::new(Record::default());
        let (questions, inbox) = unbounded_channel();
        let (started, start) = oneshot::channel();
        let (ending, ended) = sync_channel::<()>(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&record);
        let run = async move {
            let listener = match engine::listen(address).await {
                Ok(listener) => listener,
                Err(error) => return drop(started.send(Err(error))),
            };
            // Fails when the caller gave up; the questions' end then ends the engine.
            let _ = started.send(listener.local_addr().map_err(Into::into));
            engine::run(listener, shared, inbox).await;
        };
        thread::Builder::new()
            .name("http-server".to_owned())
            .spawn(move || {
                runtime.block_on(run);
                // The connections' tasks go with it.
                drop(runtime);
                drop(ending);
            })
            .context("could not start the HTTP server's thread")?;
        let address = start.await.context("the HTTP server's thread ended")??;
        Ok(Self { address, record, questions: Some(questions), ended: Mutex::new(ended) })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The address of a path, with or without its first slash: `http://127.0.0.1:PORT/path`. That of the empty path
    /// has no slash at its end.
    pub fn url(&self, path: &str) -> String {
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        format!("http://{}{slash}{path}", self.address)
    }

    /// Has requests of this method to exactly this path (without a query) answered by `respond`, which sees the whole
    /// request. Replaces the route there was. The closure runs on the server's thread, one at a time: it must not wait
    /// ([`HttpResponse::after`] does). When it panics the connection is closed.
    pub fn on(&self, method: &str, path: &str, respond: impl Fn(&HttpRequest) -> HttpResponse + Send + Sync + 'static) {
        self.record.route(method, path, Arc::new(respond));
    }

    /// All requests that arrived whole so far, in order, those answered 404 and 413 among them.
    pub fn requests(&self) -> Vec<HttpRequest> {
        self.record.requests()
    }

    /// TCP connections accepted so far, those that have been established until now included.
    pub fn connections(&self) -> usize {
        let (answer, wait) = sync_channel(1);
        let asked = self.questions.as_ref().is_some_and(|questions| questions.send(answer).is_ok());
        let count = asked.then(|| wait.recv_timeout(THREAD_LIMIT).ok()).flatten();
        // One that does not answer is not to pass for one nobody connected to.
        count.unwrap_or(usize::MAX)
    }

    /// Returns all requests as soon as there are `count`. Fails after `limit`.
    pub async fn wait_for_requests(&self, count: usize, limit: Duration) -> Result<Vec<HttpRequest>> {
        let mut counts = self.record.count();
        let came = timeout(limit, counts.wait_for(|&came| came >= count)).await.is_ok();
        let requests = self.requests();
        if !came && requests.len() < count {
            bail!("waited {limit:?} in vain for {count} requests to {}; there were {}", self.url(""), requests.len());
        }
        Ok(requests)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.questions = None;
        // Nothing is ever sent; it ends with the thread.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(THREAD_LIMIT);
    }
}
