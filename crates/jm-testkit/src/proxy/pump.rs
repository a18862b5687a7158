//! One direction of a connection: reads, waits, and writes as the link's weather has it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep, sleep_until};

use super::link::Link;

/// Read at once.
const CHUNK: usize = 16 * 1024;

/// Chunks on the way while they are delayed: latency must not become a limit of the rate too soon.
const IN_FLIGHT: usize = 64;

/// Between two slices, so that the receiver sees them apart.
const SLICE_PAUSE: Duration = Duration::from_millis(1);

/// Why a pump ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its reader had nothing more, and its writer knows.
    Finished,
    /// The connection's `reset_after` is due.
    ResetDue,
}

/// Bytes that were read, and when.
type Chunk = (Vec<u8>, Instant);

/// Forwards until the end of the stream. `counted`: this direction counts for `reset_after`. `lossy` is set when bytes
/// were swallowed.
pub(crate) async fn pump(
    mut reader: ReadHalf<'_>,
    mut writer: WriteHalf<'_>,
    link: &Arc<Link>,
    counted: bool,
    lossy: &AtomicBool,
) -> io::Result<Ended> {
    let (sender, receiver) = channel(IN_FLIGHT);
    let (read, written) = tokio::join!(fill(&mut reader, sender), drain(&mut writer, receiver, link, counted, lossy));
    match written? {
        Ended::ResetDue => Ok(Ended::ResetDue),
        Ended::Finished => read.map(|()| Ended::Finished),
    }
}

async fn fill(reader: &mut ReadHalf<'_>, sender: Sender<Chunk>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = tokio::select! {
            count = reader.read(&mut buffer) => count?,
            // The writer failed or a reset is due.
            () = sender.closed() => return Ok(()),
        };
        if count == 0 || sender.send((buffer[..count].to_vec(), Instant::now())).await.is_err() {
            return Ok(());
        }
    }
}

async fn drain(
    writer: &mut WriteHalf<'_>,
    mut receiver: Receiver<Chunk>,
    link: &Link,
    counted: bool,
    lossy: &AtomicBool,
) -> io::Result<Ended> {
    while let Some((chunk, read_at)) = receiver.recv().await {
        let mut left = &chunk[..];
        while !left.is_empty() {
            link.flowing().await;
            let weather = link.weather();
            if weather.swallow {
                lossy.store(true, Ordering::SeqCst);
                break;
            }
            if let Some(latency) = weather.delay {
                sleep_until(read_at + latency).await;
            }
            let piece = left.len().min(weather.slice.unwrap_or(usize::MAX));
            let (allowed, reset) = if counted { link.allow(piece) } else { (piece, false) };
            writer.write_all(&left[..allowed]).await?;
            if reset {
                return Ok(Ended::ResetDue);
            }
            left = &left[allowed..];
            if weather.slice.is_some() {
                sleep(SLICE_PAUSE).await;
            }
        }
    }
    // The end of a stream is swallowed and held back like its bytes.
    link.flowing().await;
    link.heard().await;
    writer.shutdown().await?;
    Ok(Ended::Finished)
}
