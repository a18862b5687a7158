//! A byte stream to the broker: plain or TLS, cleaned on its way in, and to be ended from outside.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::task::AtomicWaker;
use tokio_util::compat::Compat;

use super::{doorbell::Doorbell, greeting::PROTOCOL_HEADER, sanitizer::Sanitizer, socket::Socket};

/// The off switch of a stream.
#[derive(Default)]
pub(super) struct Switch {
    off: AtomicBool,
    established: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Switch {
    /// The connection over this stream has been opened.
    pub(super) fn establish(&self) {
        self.established.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_established(&self) -> bool {
        self.established.load(Ordering::SeqCst)
    }

    pub(super) fn end(&self) {
        self.off.store(true, Ordering::SeqCst);
        self.reader.wake();
        self.writer.wake();
    }

    /// Turns "not ready" into an error once the stream was ended. Costs nothing while data flows.
    fn or_ended<T>(&self, poll: Poll<io::Result<T>>, waker: &AtomicWaker, cx: &Context<'_>) -> Poll<io::Result<T>> {
        if poll.is_pending() {
            waker.register(cx.waker());
            if self.off.load(Ordering::SeqCst) {
                return Poll::Ready(Err(ended()));
            }
        }
        poll
    }
}

pub(super) fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "given up by this client")
}

/// A stream to the broker, plain or TLS, that can be ended from outside.
pub(super) struct BrokerStream {
    inner: Inner,
    switch: Arc<Switch>,
    bell: Arc<Doorbell>,
    sanitizer: Sanitizer,
    /// The beginning of a frame that is looked at when it is complete.
    held: Vec<u8>,
    /// Clean bytes for which the reader had no room yet.
    clean: Vec<u8>,
    /// What is left of the header that lapin begins with, and that was sent while the stream was dialled.
    sent: &'static [u8],
}

pub(super) enum Inner {
    Plain(Compat<Socket>),
    Tls(Box<Compat<tokio_rustls::client::TlsStream<Socket>>>),
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

impl BrokerStream {
    /// `received` is the broker's answer to the protocol header.
    pub(super) fn new(inner: Inner, switch: Arc<Switch>, bell: Arc<Doorbell>, received: Vec<u8>) -> Self {
        let mut stream = Self {
            inner,
            switch,
            bell,
            sanitizer: Sanitizer::default(),
            held: received,
            clean: Vec::new(),
            sent: &PROTOCOL_HEADER,
        };
        stream.clean_held();
        stream
    }

    fn clean_held(&mut self) {
        let clean = self.sanitizer.clean(&mut self.held);
        self.clean.extend(self.held.drain(..clean));
    }

    /// What of `bytes` was sent before, if any of it was.
    fn already_sent(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let count = self.sent.len().min(bytes.len());
        let (sent, rest) = self.sent.split_at(count);
        if count == 0 {
            return None;
        }
        self.sent = rest;
        let other = "another protocol header than the one that was sent";
        Some(if bytes[..count] == *sent { Ok(count) } else { Err(io::Error::other(other)) })
    }

    fn parts(self: Pin<&mut Self>) -> (Pin<&mut dyn Duplex>, &Switch) {
        let this = self.get_mut();
        (this.inner.as_duplex(), &this.switch)
    }
}

impl Inner {
    fn as_duplex(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl AsyncRead for BrokerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if !this.clean.is_empty() {
                let count = this.clean.len().min(buf.len());
                buf[..count].copy_from_slice(&this.clean[..count]);
                this.clean.drain(..count);
                return Poll::Ready(Ok(count));
            }
            let read = this.inner.as_duplex().poll_read(cx, buf);
            let count = ready!(this.switch.or_ended(read, &this.switch.reader, cx))?;
            if count == 0 {
                // The stream has ended, perhaps in the middle of a frame; lapin may make of that what it can.
                this.clean = std::mem::take(&mut this.held);
                if this.clean.is_empty() {
                    return Poll::Ready(Ok(0));
                }
            } else if this.held.is_empty() {
                // The usual case: whole frames, cleaned where they are.
                let clean = this.sanitizer.clean(&mut buf[..count]);
                this.held.extend_from_slice(&buf[clean..count]);
                if clean > 0 {
                    return Poll::Ready(Ok(clean));
                }
            } else {
                this.held.extend_from_slice(&buf[..count]);
                this.clean_held();
            }
        }
    }
}

impl AsyncWrite for BrokerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(count) = self.already_sent(buf) {
            return Poll::Ready(count);
        }
        let (stream, switch) = self.parts();
        switch.or_ended(stream.poll_write(cx, buf), &switch.writer, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(count) = bufs.iter().find_map(|buf| self.already_sent(buf)) {
            return Poll::Ready(count);
        }
        let (stream, switch) = self.parts();
        switch.or_ended(stream.poll_write_vectored(cx, bufs), &switch.writer, cx)
    }

    /// lapin flushes before it looks for what it has to write.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bell.answer();
        let (stream, switch) = self.parts();
        switch.or_ended(stream.poll_flush(cx), &switch.writer, cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (stream, switch) = self.parts();
        switch.or_ended(stream.poll_close(cx), &switch.writer, cx)
    }
}
