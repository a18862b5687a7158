//! Whether a broker answers: the first step of an AMQP handshake, since a port may accept long before the broker does.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One attempt. A loaded machine may take its time; a frozen broker accepts and never answers.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);

/// Connects, sends the protocol header, and returns once the broker's `connection.start` has begun to arrive.
pub(crate) async fn connection_start(port: u16) -> Result<()> {
    match tokio::time::timeout(ATTEMPT_LIMIT, greet(port)).await {
        Ok(greeted) => greeted,
        Err(_) => bail!("no answer to the AMQP header within {ATTEMPT_LIMIT:?}"),
    }
}

async fn greet(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(b"AMQP\0\0\x09\x01").await?;
    // Frame type (1: method), channel (2 octets), size (4), class (2), method (2).
    let mut frame = [0_u8; 11];
    stream.read_exact(&mut frame).await?;
    match frame {
        [1, 0, 0, _, _, _, _, 0, 10, 0, 10] => Ok(()),
        other => bail!("answered {other:?} instead of connection.start"),
    }
}
