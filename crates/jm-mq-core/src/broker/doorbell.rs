//! Tells a connection's thread that it has something to write, while it waits for its socket.
//!
//! lapin wakes its thread where that sleeps in lapin's own queue. While the thread waits in [`super::socket`] instead,
//! lapin cannot reach it; whoever hands frames to lapin rings here. Nothing depends on it but time: the thread
//! looks after its queue each millisecond in any case.

use std::{
    fmt,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

/// Of one connection. Rung by many, heard by the connection's thread.
pub(crate) struct Doorbell {
    /// How often it was rung.
    rings: AtomicUsize,
    /// How often it had been rung when the thread last began to write: what was handed over by then is written.
    answered: AtomicUsize,
    /// The thread waits, and has to be woken by a byte.
    waiting: AtomicBool,
    inside: PipeReader,
    outside: PipeWriter,
}

impl Doorbell {
    pub(crate) fn new() -> io::Result<Self> {
        let (inside, outside) = io::pipe()?;
        Ok(Self {
            rings: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
            inside,
            outside,
        })
    }

    /// Something was handed to lapin.
    pub(crate) fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        // In this order, and the thread's in the opposite one: either it sees the ring, or it is seen waiting.
        if self.waiting.load(Ordering::SeqCst) && self.waiting.swap(false, Ordering::SeqCst) {
            // One byte for each wait, so that the pipe has room. Without it the thread is a millisecond late.
            drop((&self.outside).write(&[0]));
        }
    }

    /// Rings when `handing_over` was polled for the first time, which is when lapin has it.
    pub(crate) fn ring_for<F: Future>(&self, handing_over: F) -> Ringing<'_, F> {
        Ringing { handing_over, bell: Some(self) }
    }

    /// The thread begins to write all that it was handed.
    pub(super) fn answer(&self) {
        self.answered.store(self.rings.load(Ordering::SeqCst), Ordering::Relaxed);
    }

    /// The thread is about to wait. False if it was rung since it last wrote.
    pub(super) fn begin_to_wait(&self) -> bool {
        self.waiting.store(true, Ordering::SeqCst);
        let quiet = self.rings.load(Ordering::SeqCst) == self.answered.load(Ordering::Relaxed);
        if !quiet {
            self.waiting.store(false, Ordering::SeqCst);
        }
        quiet
    }

    /// The thread waits no more; `heard` if there is a byte.
    pub(super) fn end_to_wait(&self, heard: bool) {
        self.waiting.store(false, Ordering::SeqCst);
        if heard {
            // What is left of earlier rings goes with it.
            drop((&self.inside).read(&mut [0; 16]));
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbell").field("rings", &self.rings).field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

pin_project! {
    /// See [`Doorbell::ring_for`].
    pub(crate) struct Ringing<'a, F> {
        #[pin]
        handing_over: F,
        bell: Option<&'a Doorbell>,
    }
}

impl<F: Future> Future for Ringing<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.handing_over.poll(cx);
        if let Some(bell) = this.bell.take() {
            bell.ring();
        }
        polled
    }
}
