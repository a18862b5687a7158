//! The server's thread: accepts, reads requests whole, and answers as told.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::sleep;

use super::body::{Body, body};
use super::record::Record;
use super::request::HttpRequest;
use super::response::{Content, HttpResponse};
use crate::ports::free_ports;

/// What a request's body may have. Nothing a worker sends comes near it but a long recording, which is 25 MB at most.
pub(crate) const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// Tries with other ports when somebody else took one between our look and our listening.
const ATTEMPTS: usize = 5;

/// After an accept that failed, as with too many open files.
const RETRY: Duration = Duration::from_millis(5);

/// Asks how many connections were accepted.
pub(crate) type Question = SyncSender<usize>;

/// Listens on `address`; port 0 is any free one. Not one of the kernel's choice, see `ports`.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    let mut attempt = 1;
    loop {
        let mut wanted = address;
        if address.port() == 0 {
            wanted.set_port(free_ports(1)?.into_iter().next().context("no free port")?);
        }
        match TcpListener::bind(wanted).await {
            Ok(listener) => return Ok(listener),
            Err(error) if address.port() != 0 || attempt >= ATTEMPTS => {
                return Err(error).with_context(|| format!("could not listen on {wanted}"));
            }
            Err(_) => attempt += 1,
        }
    }
}

/// Serves until the handle is dropped.
pub(crate) async fn run(listener: TcpListener, record: Arc<Record>, mut questions: UnboundedReceiver<Question>) {
    let mut connections = 0;
    loop {
        tokio::select! {
            question = questions.recv() => {
                let Some(question) = question else { return };
                // A turn of the runtime, after which it knows of all connections that wait to be accepted.
                tokio::task::yield_now().await;
                while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
                    connections += 1;
                    serve(stream, &record);
                }
                // A handle that stopped waiting needs no answer.
                let _ = question.try_send(connections);
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections += 1;
                    serve(stream, &record);
                }
                Err(_) => sleep(RETRY).await,
            },
        }
    }
}

fn serve(stream: TcpStream, record: &Arc<Record>) {
    let record = Arc::clone(record);
    // Drips are to leave one by one.
    let _ = stream.set_nodelay(true);
    let (tell, flushes) = watch::channel(0);
    let socket = super::socket::Socket::new(stream, tell);
    let service = service_fn(move |request| answer(Arc::clone(&record), flushes.clone(), request));
    tokio::spawn(async move {
        // A client that broke off, or an answer that was cut: both are what a test wanted.
        let _ = http1::Builder::new().serve_connection(socket, service).await;
    });
}

async fn answer(
    record: Arc<Record>,
    flushes: watch::Receiver<u64>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let (head, incoming) = request.into_parts();
    let content = read(incoming).await?;
    let headers = head.headers.iter();
    let request = HttpRequest {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: content.clone().unwrap_or_default(),
    };
    let response = match (record.add(&request), content, record.find(&request)) {
        (false, ..) => HttpResponse::status(507),
        (true, None, _) => HttpResponse::status(413),
        (true, Some(_), None) => HttpResponse::status(404),
        (true, Some(_), Some(respond)) => respond(&request),
    };
    sleep(response.delay).await;
    if matches!(response.content, Content::Never) {
        std::future::pending::<()>().await;
    }
    Ok(written(&response, flushes.clone()).unwrap_or_else(|| {
        let wrong = "the test's answer has a status or header that HTTP does not know";
        let mut said = Response::new(body(&HttpResponse::bytes("text/plain", wrong), flushes));
        *said.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        said
    }))
}

/// The whole body, or `None` if it is too large. Such a one is read to its end nonetheless: a client that still sends
/// when the connection closes would see a reset instead of the answer.
async fn read(mut incoming: Incoming) -> io::Result<Option<Bytes>> {
    let mut body = BytesMut::new();
    let mut fits = true;
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        fits = fits && body.len() + data.len() <= BODY_LIMIT;
        if fits {
            body.extend_from_slice(&data);
        } else {
            body = BytesMut::new();
        }
    }
    Ok(fits.then(|| body.freeze()))
}

fn written(response: &HttpResponse, flushes: watch::Receiver<u64>) -> Option<Response<Body>> {
    let status = StatusCode::from_u16(response.status).ok().filter(|status| !status.is_informational())?;
    let mut written = Response::new(body(response, flushes));
    *written.status_mut() = status;
    for (name, value) in &response.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        written.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    if let Content::Whole(whole) = &response.content
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
        && !written.headers().contains_key(CONTENT_LENGTH)
    {
        written.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    }
    Some(written)
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
