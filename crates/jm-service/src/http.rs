//! `/metrics`, `/health/live` and `/health/ready` on `http.listen`.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use self::health::Health;
use crate::logging::DroppedLines;

pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod probe;

/// Connections at a time: probes and a few scrapers. Further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// A request is a line and a few headers.
const HEADER_LIMIT: Duration = Duration::from_secs(2);
/// The same, in bytes and in number: what a scraper or a service mesh adds is far below.
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// The longest a connection may last. It has one request: one that is kept open, or whose answer nobody reads, must not
/// take the place of a probe.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// After a failed accept, which means that the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is served.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) metrics: PrometheusHandle,
    pub(crate) process: metrics_process::Collector,
    pub(crate) health: Health,
    pub(crate) dropped_logs: DroppedLines,
}

/// Takes the port.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "http.listen: {address} is in use by another process; choose another port, as with JM_HTTP__LISTEN=127.0.0.1:9191"
        ),
        _ => format!("http.listen: cannot listen on {address}: {error}"),
    })
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, pages: Pages) -> Infallible {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = pages.clone();
                tokio::spawn(async move {
                    connection(stream, pages).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(error = error.to_string(), "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, pages: Pages) {
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(pages.answer(&request))));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_LIMIT, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = error.to_string(), "an HTTP connection ended badly"),
        Err(_) => tracing::debug!("an HTTP connection was closed after its time"),
    }
}

impl Pages {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/metrics" => {
                self.process.collect();
                metrics::log_lines_dropped(self.dropped_logs.count());
                page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::known(&self.metrics.render()))
            }
            "/health/live" => text(StatusCode::OK, "alive\n"),
            "/health/ready" => match self.health.ready() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /health/live and /health/ready\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", body)
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
