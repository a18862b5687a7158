//! A witness's file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{Event, What};
use crate::{clock, required::required};

/// Lines collected before they are written, where that is allowed.
const BUFFER: usize = 64 * 1024;

/// An append-only file of events. Times are taken under its lock, so they never go back within a file.
#[derive(Debug)]
pub struct Log {
    inner: Mutex<Inner>,
    /// Whether a line may wait in memory: not in a process that may be killed at any moment.
    buffered: bool,
}

#[derive(Debug)]
struct Inner {
    file: File,
    lines: Vec<u8>,
}

impl Log {
    /// A file for a process that nobody kills: lines are written in blocks.
    pub fn buffered(path: &Path) -> io::Result<Self> {
        Self::open(path, true)
    }

    /// A file for a process that may be killed: each call is written before it returns, so that it is the kernel's.
    pub fn immediate(path: &Path) -> io::Result<Self> {
        Self::open(path, false)
    }

    fn open(path: &Path, buffered: bool) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { inner: Mutex::new(Inner { file, lines: Vec::with_capacity(BUFFER) }), buffered })
    }

    /// Records an event of this moment. Ends the process where it cannot be written, as on a full disk: a history that
    /// lacks events may look as if all had held.
    pub fn add(&self, what: What) {
        self.add_all([what]);
    }

    /// Records events of this moment, all or none of them in a process that is killed.
    pub fn add_all(&self, events: impl IntoIterator<Item = What>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let at = clock::now();
        for what in events {
            Event { at, what }.write(&mut inner.lines);
        }
        if !self.buffered || inner.lines.len() >= BUFFER {
            required("the history cannot be recorded", inner.flush());
        }
    }

    /// Writes what waits.
    pub fn flush(&self) -> io::Result<()> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

impl Inner {
    fn flush(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.lines);
        self.lines.clear();
        written
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        required("the history cannot be recorded", self.flush());
    }
}
