//! What the server's thread and its handle share: the routes, and what arrived.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::request::HttpRequest;
use super::response::HttpResponse;

/// What all recorded bodies may take together, so that a test that loops does not take the machine's memory.
const RECORDED_BYTES: usize = 512 * 1024 * 1024;

/// How many requests are recorded at most, for the same reason.
const RECORDED_REQUESTS: usize = 100_000;

pub(crate) type Respond = Arc<dyn Fn(&HttpRequest) -> HttpResponse + Send + Sync>;

#[derive(Default)]
pub(crate) struct Record {
    routes: Mutex<HashMap<(String, String), Respond>>,
    arrived: Mutex<Arrived>,
    /// The number of requests so far.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct Arrived {
    requests: Vec<HttpRequest>,
    bytes: usize,
}

impl Record {
    pub(crate) fn route(&self, method: &str, path: &str, respond: Respond) {
        lock(&self.routes).insert((method.to_owned(), path.to_owned()), respond);
    }

    /// Records a request. False if there is no room for more.
    pub(crate) fn add(&self, request: &HttpRequest) -> bool {
        let mut arrived = lock(&self.arrived);
        let bytes = arrived.bytes.saturating_add(request.body.len());
        if bytes > RECORDED_BYTES || arrived.requests.len() >= RECORDED_REQUESTS {
            return false;
        }
        arrived.bytes = bytes;
        arrived.requests.push(request.clone());
        // Under the lock, so that the count never goes back.
        self.count.send_replace(arrived.requests.len());
        true
    }

    /// Who answers a request.
    pub(crate) fn find(&self, request: &HttpRequest) -> Option<Respond> {
        lock(&self.routes).get(&(request.method.clone(), request.path.clone())).cloned()
    }

    pub(crate) fn requests(&self) -> Vec<HttpRequest> {
        lock(&self.arrived).requests.clone()
    }

    pub(crate) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes: Vec<_> = lock(&self.routes).keys().cloned().collect();
        f.debug_struct("Record")
            .field("routes", &routes)
            .field("requests", &*self.count.borrow())
            .finish_non_exhaustive()
    }
}

/// Nothing is left half done under these locks, so that a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
