//! The socket on loopback, read as lapin reads it: again and again until there is nothing, on a thread of its own.

use std::{
    net::{Shutdown, TcpListener},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Wake, Waker},
    thread,
};

use super::*;

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A socket, its other end, and what goes with them.
struct Pair {
    socket: Socket,
    peer: std::net::TcpStream,
    bell: Arc<Doorbell>,
    woken: Arc<Woken>,
    reactor: Option<tokio::runtime::Runtime>,
}

impl Pair {
    /// Of a connection that is open.
    fn new() -> Self {
        let pair = Self::dialling();
        pair.socket.switch.establish();
        pair
    }

    fn dialling() -> Self {
        let reactor = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = reactor.block_on(TcpStream::connect(listener.local_addr().unwrap())).unwrap();
        let peer = listener.accept().unwrap().0;
        peer.set_nodelay(true).unwrap();
        let bell = Arc::new(Doorbell::new().unwrap());
        let socket = Socket::new(stream, reactor.handle().clone(), Arc::clone(&bell), Arc::default());
        Self { socket, peer, bell, woken: Arc::default(), reactor: Some(reactor) }
    }

    fn read(&mut self, room: usize) -> Poll<io::Result<Vec<u8>>> {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut bytes = vec![0; room];
        let mut buf = ReadBuf::new(&mut bytes);
        let read = Pin::new(&mut self.socket).poll_read(&mut Context::from_waker(&waker), &mut buf);
        read.map_ok(|()| buf.filled().to_vec())
    }

    fn read_until_ready(&mut self) -> Vec<u8> {
        loop {
            if let Poll::Ready(read) = self.read(4096) {
                break read.unwrap();
            }
        }
    }

    /// The peer sends a packet, and it is read as lapin does it: up to the first read that finds nothing.
    fn receive(&mut self, packet: &[u8]) -> Vec<u8> {
        self.peer.write_all(packet).unwrap();
        let mut received = Vec::new();
        while received.len() < packet.len() {
            received.extend(self.read_until_ready());
        }
        while self.read(4096).is_ready() {}
        received
    }

    fn stream(&mut self) {
        for n in 0..=STREAM {
            assert_eq!(self.receive(&[7; 100]), [7; 100], "packet {n}");
        }
    }

    fn is_waited_for_by_its_reader(&self) -> bool {
        matches!(self.socket.watched_by, Watcher::Reader(_))
    }
}

#[test]
fn the_reader_waits_for_a_stream_and_tokio_for_what_comes_after_a_while() {
    let mut pair = Pair::new();
    assert_eq!(pair.receive(b"first"), b"first");
    assert!(!pair.is_waited_for_by_its_reader(), "one packet is no stream");
    pair.stream();
    assert!(pair.is_waited_for_by_its_reader());

    // Nothing comes: each read waits for a millisecond, and says that it is to be called again.
    let mut reads = 0;
    while pair.is_waited_for_by_its_reader() {
        let woken = pair.woken.0.load(Ordering::SeqCst);
        assert!(pair.read(4096).is_pending());
        reads += 1;
        assert!(reads <= QUIET_WAITS, "tokio has it back by now");
        assert!(
            pair.woken.0.load(Ordering::SeqCst) > woken || !pair.is_waited_for_by_its_reader(),
            "nobody would read again"
        );
    }
    let woken = pair.woken.0.load(Ordering::SeqCst);
    pair.peer.write_all(b"later").unwrap();
    while pair.woken.0.load(Ordering::SeqCst) == woken {
        thread::yield_now();
    }
    assert!(matches!(pair.read(4096), Poll::Ready(Ok(read)) if read == b"later"));
}

#[test]
fn what_was_read_can_be_parsed_before_the_next_wait() {
    let mut pair = Pair::new();
    pair.stream();
    pair.peer.write_all(b"packet").unwrap();
    while pair.read(4096).is_pending() {}
    let waits = pair.socket.quiet_waits;
    assert!(pair.read(4096).is_pending());
    assert_eq!(pair.socket.quiet_waits, waits, "it waited");
    assert!(pair.read(4096).is_pending());
    assert_eq!(pair.socket.quiet_waits, waits + 1, "now it may");
}

#[test]
fn a_ring_ends_the_wait_and_one_before_it_lets_none_begin() {
    let mut pair = Pair::new();
    pair.stream();
    pair.bell.answer();
    pair.bell.ring();
    let rung_before = pair.socket.quiet_waits;
    assert!(pair.read(4096).is_pending());
    assert_eq!(pair.socket.quiet_waits, rung_before, "what was rung for before is not waited upon");

    // Each round: lapin writes, somebody rings, and the reader waits: as long as it takes.
    pair.socket.wait = Timespec { tv_sec: 60, tv_nsec: 0 };
    let (ring, rings) = mpsc::channel();
    let bell = Arc::clone(&pair.bell);
    let ringer = thread::spawn(move || rings.iter().for_each(|()| bell.ring()));
    for _ in 0..20_000 {
        pair.bell.answer();
        ring.send(()).unwrap();
        assert!(pair.read(4096).is_pending());
    }
    assert_eq!(pair.socket.quiet_waits, 0, "a ring was missed");
    drop(ring);
    ringer.join().unwrap();
}

#[test]
fn nobody_waits_inside_of_a_read_before_the_connection_is_open() {
    let mut pair = Pair::dialling();
    pair.stream();
    assert!(!pair.is_waited_for_by_its_reader());
}

#[test]
fn a_write_without_room_is_told_by_tokio_when_there_is_some() {
    let mut pair = Pair::new();
    pair.stream();
    let writer = Arc::<Woken>::default();
    let waker = Waker::from(Arc::clone(&writer));
    let mut sent = 0;
    let chunk = vec![1; 1 << 16];
    while let Poll::Ready(count) = Pin::new(&mut pair.socket).poll_write(&mut Context::from_waker(&waker), &chunk) {
        sent += count.unwrap();
    }
    assert!(!pair.is_waited_for_by_its_reader(), "only tokio tells when there is room again");
    // A stream the other way does not take it from tokio.
    pair.stream();
    assert!(!pair.is_waited_for_by_its_reader());

    let mut peer = pair.peer.try_clone().unwrap();
    let taking = thread::spawn(move || io::copy(&mut (&mut peer).take(sent as u64), &mut io::sink()).unwrap());
    while writer.0.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    assert_eq!(taking.join().unwrap(), sent as u64);
    let written = Pin::new(&mut pair.socket).poll_write(&mut Context::from_waker(&waker), b"more");
    assert!(matches!(written, Poll::Ready(Ok(4))));
    pair.stream();
    assert!(pair.is_waited_for_by_its_reader());
}

#[test]
fn an_end_is_seen_whoever_waits() {
    let mut pair = Pair::new();
    pair.stream();
    pair.peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(pair.read_until_ready(), b"");
    // The runtime may end before the socket does.
    pair.reactor.take().unwrap().shutdown_background();
    assert_eq!(pair.read_until_ready(), b"");
}

#[test]
fn a_socket_that_tokio_cannot_take_back_ends_with_an_error() {
    let mut pair = Pair::new();
    pair.stream();
    pair.reactor.take().unwrap().shutdown_timeout(Duration::from_secs(30));
    for _ in 0..=QUIET_WAITS {
        if let Poll::Ready(read) = pair.read(4096) {
            assert!(read.is_err(), "{read:?}");
            return;
        }
    }
    panic!("it waits for a runtime that is gone");
}
