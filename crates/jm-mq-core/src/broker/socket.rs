//! The socket under a connection: watched by tokio while little comes, waited for by lapin's thread while much does.
//!
//! lapin reads on a thread of its own, which sleeps in a queue and cannot wait for a socket. tokio's reactor watches the
//! socket for it, on another thread: each packet wakes two threads before anything of it is parsed, and that is a good
//! part of what a message costs. So in a stream of packets the thread that reads waits for the next one here, inside of its
//! read, for a millisecond at most; and tokio does not know of the socket. When nothing has come for a while, tokio has
//! it back. See `docs/adr/0017-who-waits-for-the-socket.md`.

use std::{
    io::{self, Read, Write},
    mem,
    os::fd::AsFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    runtime::Handle,
};

use super::{doorbell::Doorbell, stream::Switch};

/// The longest wait inside of a read. lapin's own tasks, which do not ring, wait for it.
const WAIT: Duration = Duration::from_millis(1);
/// So many waits in vain, and tokio has the socket back.
const QUIET_WAITS: u32 = 10;
/// Packets that come closer together are a stream,
const CLOSE: Duration = Duration::from_millis(5);
/// if there are so many of them.
const STREAM: u32 = 4;

/// See the module.
pub(super) struct Socket {
    watched_by: Watcher,
    reactor: Handle,
    /// The longest wait.
    wait: Timespec,
    bell: Arc<Doorbell>,
    switch: Arc<Switch>,
    last_packet: Option<Instant>,
    /// Packets that came close to the one before.
    stream: u32,
    /// Waits in vain since the last packet.
    quiet_waits: u32,
    /// The last read took all there was.
    emptied: bool,
    /// lapin has something to parse, which it does between two reads that found nothing.
    unparsed: bool,
    /// A write waits for room. Only tokio tells when there is some.
    write_waits: bool,
}

enum Watcher {
    Reactor(TcpStream),
    Reader(std::net::TcpStream),
    /// Only while it changes, and for ever if it could not.
    Nobody,
}

/// What ended a wait.
enum Waited {
    Readable,
    /// There is something to write, or lapin should have a look.
    Interrupted,
    /// Nothing has come for a while.
    Quiet,
}

impl Socket {
    /// `reactor` has tokio's I/O driver on another thread than lapin's.
    pub(super) fn new(stream: TcpStream, reactor: Handle, bell: Arc<Doorbell>, switch: Arc<Switch>) -> Self {
        Self {
            watched_by: Watcher::Reactor(stream),
            reactor,
            wait: Timespec { tv_sec: 0, tv_nsec: WAIT.subsec_nanos().into() },
            bell,
            switch,
            last_packet: None,
            stream: 0,
            quiet_waits: 0,
            emptied: false,
            unparsed: false,
            write_waits: false,
        }
    }

    fn arrived(&mut self, emptied: bool) {
        let now = Instant::now();
        let close = self.last_packet.replace(now).is_some_and(|last| now - last < CLOSE);
        self.stream = if close { self.stream.saturating_add(1) } else { 0 };
        self.quiet_waits = 0;
        self.emptied = emptied;
        self.unparsed = true;
    }

    /// Before the connection is open, others than lapin's thread may read: whoever dials.
    fn may_be_waited_for(&self) -> bool {
        self.stream >= STREAM && !self.write_waits && self.switch.is_established()
    }

    fn let_reader_wait(&mut self) -> io::Result<()> {
        if let Watcher::Reactor(stream) = mem::replace(&mut self.watched_by, Watcher::Nobody) {
            self.watched_by = Watcher::Reader(stream.into_std()?);
            self.emptied = false;
        }
        Ok(())
    }

    fn let_reactor_watch(&mut self) -> io::Result<()> {
        if let Watcher::Reader(stream) = mem::replace(&mut self.watched_by, Watcher::Nobody) {
            let _reactor = self.reactor.enter();
            self.watched_by = Watcher::Reactor(TcpStream::from_std(stream)?);
            self.stream = 0;
        }
        Ok(())
    }

    /// Waits on this thread for a packet, the bell or a millisecond.
    fn wait(&mut self) -> io::Result<Waited> {
        let Watcher::Reader(socket) = &self.watched_by else { return Ok(Waited::Interrupted) };
        if !self.bell.begin_to_wait() {
            return Ok(Waited::Interrupted);
        }
        let mut ready =
            [PollFd::new(socket, PollFlags::IN), PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
        let polled = poll(&mut ready, Some(&self.wait));
        let [readable, rung] = ready.map(|fd| !fd.revents().is_empty());
        self.bell.end_to_wait(rung);
        match polled {
            Ok(0) => self.quiet_waits += 1,
            Err(error) if error != Errno::INTR => return Err(error.into()),
            _ => {}
        }
        Ok(match () {
            () if readable => Waited::Readable,
            () if self.quiet_waits >= QUIET_WAITS => Waited::Quiet,
            () => Waited::Interrupted,
        })
    }

    /// Writes: by the reader's thread itself as long as there is room.
    fn poll_write_by(
        &mut self,
        cx: &mut Context<'_>,
        direct: impl Fn(&std::net::TcpStream) -> io::Result<usize>,
        watched: impl Fn(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match &mut self.watched_by {
                Watcher::Reactor(stream) => {
                    let written = watched(Pin::new(stream), cx);
                    self.write_waits = written.is_pending();
                    return written;
                }
                Watcher::Reader(stream) => match direct(stream) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.let_reactor_watch()?,
                    written => return Poll::Ready(written),
                },
                Watcher::Nobody => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.watched_by {
                Watcher::Reactor(stream) => match Pin::new(stream).poll_read(cx, buf) {
                    Poll::Pending if this.may_be_waited_for() => this.let_reader_wait()?,
                    Poll::Ready(Ok(())) => {
                        this.arrived(buf.remaining() > 0);
                        return Poll::Ready(Ok(()));
                    }
                    read => return read,
                },
                Watcher::Reader(_) if this.emptied => {
                    // Between two reads that find nothing, lapin parses and writes.
                    let waited = if mem::take(&mut this.unparsed) { Waited::Interrupted } else { this.wait()? };
                    match waited {
                        Waited::Readable => this.emptied = false,
                        Waited::Quiet => this.let_reactor_watch()?,
                        Waited::Interrupted => {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                    }
                }
                Watcher::Reader(stream) => match stream.read(buf.initialize_unfilled()) {
                    Ok(count) => {
                        buf.advance(count);
                        this.arrived(buf.remaining() > 0);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => this.emptied = true,
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Watcher::Nobody => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_by(cx, |mut stream| stream.write(buf), |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_by(
            cx,
            |mut stream| stream.write_vectored(bufs),
            |stream, cx| stream.poll_write_vectored(cx, bufs),
        )
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// A socket keeps nothing back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().watched_by {
            Watcher::Reactor(stream) => Pin::new(stream).poll_shutdown(cx),
            Watcher::Reader(stream) => Poll::Ready(stream.shutdown(std::net::Shutdown::Write)),
            Watcher::Nobody => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests;
