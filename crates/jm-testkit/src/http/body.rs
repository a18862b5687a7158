//! How an answer's body goes out: whole, in drips, without end, or cut.

use std::io;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::watch;
use tokio::time::sleep;

use super::response::{Content, HttpResponse, Pace};

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Bytes of an endless body that are sent at once, at least.
const ROUND: usize = 16 * 1024;

/// What has yet to be sent.
struct Source {
    /// Of the body, or of the present round of an endless one.
    left: Bytes,
    /// What an endless body starts again with.
    again: Option<Bytes>,
    pace: Option<Pace>,
    paused: bool,
    /// Bytes before the cut.
    until_cut: Option<usize>,
    /// Changes when the connection has handed everything so far to the kernel.
    flushes: watch::Receiver<u64>,
}

/// The body of `response`. A cut is an error of the body: hyper then drops the connection.
pub(crate) fn body(response: &HttpResponse, flushes: watch::Receiver<u64>) -> Body {
    let (left, again) = match &response.content {
        Content::Whole(body) => (body.clone(), None),
        Content::Endless(chunk) => {
            let round = round(chunk);
            (round.clone(), Some(round))
        }
        Content::Never => (Bytes::new(), None),
    };
    let until_cut = response.cut.filter(|&cut| again.is_some() || cut < left.len());
    let source = Source { left, again, pace: response.pace, paused: true, until_cut, flushes };
    StreamBody::new(unfold(source, |mut source| async move {
        let piece = source.next().await.transpose()?;
        Some((piece.map(Frame::data), source))
    }))
    .boxed_unsync()
}

/// A short chunk many times over: each piece that is sent costs the same, however few bytes it has.
fn round(chunk: &Bytes) -> Bytes {
    match chunk.len() {
        0 => Bytes::new(),
        length => chunk.repeat(ROUND.div_ceil(length)).into(),
    }
}

impl Source {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.until_cut == Some(0) {
            // hyper throws away what it has not yet written when a body fails.
            self.flushes.mark_unchanged();
            let _ = self.flushes.changed().await;
            return Err(io::Error::other("the answer is cut here"));
        }
        if self.left.is_empty() {
            match &self.again {
                None => return Ok(None),
                Some(chunk) if chunk.is_empty() => std::future::pending().await,
                Some(chunk) => self.left = chunk.clone(),
            }
        }
        let mut size = self.left.len().min(self.until_cut.unwrap_or(usize::MAX));
        if let Some(pace) = self.pace {
            if !std::mem::take(&mut self.paused) {
                sleep(pace.pause).await;
            }
            size = size.min(pace.bytes);
        }
        self.until_cut = self.until_cut.map(|bytes| bytes - size);
        Ok(Some(self.left.split_to(size)))
    }
}
