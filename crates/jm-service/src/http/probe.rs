//! `--health`: whether the process that runs with this configuration is ready, asked by its own page. For a container's
//! health check, since the image has neither shell nor HTTP client.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::HOST,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

/// The page is answered in milliseconds. Below the time that whoever asks usually allows.
const LIMIT: Duration = Duration::from_secs(3);
/// The page is one line.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// `Ok` if `/health/ready` says so; otherwise why not, on one line.
pub(crate) async fn ready(listen: SocketAddr) -> Result<(), String> {
    let address = within_this_machine(listen);
    if address.port() == 0 {
        return Err("http.listen has port 0, so nobody knows where to ask".into());
    }
    match tokio::time::timeout(LIMIT, ask(address)).await {
        Ok(Ok((StatusCode::OK, _))) => Ok(()),
        // It says `not ready: …` itself.
        Ok(Ok((StatusCode::SERVICE_UNAVAILABLE, page))) => Err(page),
        Ok(Ok((status, _))) => Err(format!("http://{address}/health/ready answers {status}; is that another program?")),
        Ok(Err(error)) => Err(format!("cannot ask http://{address}/health/ready: {error}; does the worker run?")),
        Err(_) => Err(format!("http://{address}/health/ready did not answer within {LIMIT:?}")),
    }
}

/// Where a server that listens on every address can be reached.
fn within_this_machine(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(address: SocketAddr) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // In a set, so that it ends with this call.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let request = Request::get("/health/ready").header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    Ok((response.status(), first_line(response.into_body()).await?))
}

async fn first_line(body: Incoming) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_every_address_is_asked_on_this_machine() {
        for (listen, asked) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9191", "[::1]:9191"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(within_this_machine(listen.parse().unwrap()).to_string(), asked);
        }
    }

    #[tokio::test]
    async fn a_port_that_nobody_knows_is_told() {
        let said = ready("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
        assert!(said.contains("port 0"), "{said}");
    }
}
