//! One plain HTTP request to a process under test.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::limit::within;

/// Health and metrics are answered in milliseconds, a first vector of a small model in seconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Metrics of a worker are tens of KiB.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// Returns status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let request = Request::get(path).header(HOST, address.to_string()).body(Full::new(Bytes::new()))?;
    within(LIMIT, &format!("get http://{address}{path}"), send(address, request)).await
}

/// Returns status and body.
pub(crate) async fn post_json(address: SocketAddr, path: &str, body: &Value) -> Result<(u16, String)> {
    let request = Request::post(path).header(HOST, address.to_string()).header(CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(Bytes::from(body.to_string())))?;
    within(LIMIT, &format!("post to http://{address}{path}"), send(address, request)).await
}

async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<(u16, String)> {
    let stream = TcpStream::connect(address).await.context("no connection")?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await.map_err(|error| anyhow!(error))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    // The connection is driven here and is gone with this call.
    tokio::pin!(exchange, connection);
    tokio::select! {
        exchanged = &mut exchange => exchanged,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}
