//! What a process prints, while it prints.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{Read, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;
use tokio::sync::watch;

/// What is kept of one stream: its beginning. The rest is read and thrown away, so that the process never waits.
const KEPT: usize = 16 * 1024 * 1024;

/// What a file gets of one stream.
const COPIED: usize = 256 * 1024 * 1024;

/// Lines of an output's end that an error shows.
const TAIL: usize = 15;

/// One stream of a process.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    kept: Mutex<Kept>,
    /// Changes with what is kept.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    discarded: usize,
    closed: bool,
}

impl Stream {
    /// Reads on a thread of its own until the stream is closed, and writes what it reads to `copy`.
    pub(crate) fn read(mut pipe: impl Read + Send + 'static, mut copy: Option<File>) -> Result<Arc<Self>> {
        let stream = Arc::new(Self::default());
        let filled = Arc::clone(&stream);
        thread::Builder::new().name("process-output".to_owned()).spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            let mut copied = 0;
            loop {
                match pipe.read(&mut buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        filled.add(&buffer[..count]);
                        copied += count;
                        // A disk that is full is no reason to stop the process.
                        if let Some(copy) = copy.as_mut().filter(|_| copied <= COPIED) {
                            let _ = copy.write_all(&buffer[..count]);
                        }
                    }
                }
            }
            filled.kept().closed = true;
            filled.changes.send_modify(|change| *change += 1);
        })?;
        Ok(stream)
    }

    fn add(&self, bytes: &[u8]) {
        let mut kept = self.kept();
        let fits = bytes.len().min(KEPT - kept.bytes.len());
        kept.bytes.extend_from_slice(&bytes[..fits]);
        kept.discarded += bytes.len() - fits;
        drop(kept);
        self.changes.send_modify(|change| *change += 1);
    }

    /// All of it, with a last line that says how much is missing, if any.
    pub(crate) fn text(&self) -> String {
        let kept = self.kept();
        let mut text = String::from_utf8_lossy(&kept.bytes).into_owned();
        if kept.discarded > 0 {
            let _ = write!(text, "\n[{} more bytes were not kept]\n", kept.discarded);
        }
        text
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.kept().bytes.clone()
    }

    pub(crate) async fn closed(&self) {
        let mut changes = self.changes.subscribe();
        while !self.kept().closed {
            // The sender is in `self`.
            let _ = changes.changed().await;
        }
    }

    /// The first complete line with `text` in it; `None` when the stream ended without.
    pub(crate) async fn line_with(&self, text: &str) -> Option<String> {
        let mut changes = self.changes.subscribe();
        let mut start = 0;
        loop {
            {
                let kept = self.kept();
                while let Some(line) = line_at(&kept, start) {
                    let shown = String::from_utf8_lossy(line);
                    if shown.contains(text) {
                        return Some(shown.into_owned());
                    }
                    start += line.len() + 1;
                }
                if kept.closed {
                    return None;
                }
            }
            let _ = changes.changed().await;
        }
    }

    /// Nothing is left half done under this lock.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, closed: {}", self.bytes.len() + self.discarded, self.closed)
    }
}

/// The line that begins at `start`, once its end is there.
fn line_at(kept: &Kept, start: usize) -> Option<&[u8]> {
    let rest = kept.bytes.get(start..).filter(|rest| !rest.is_empty())?;
    match rest.iter().position(|&byte| byte == b'\n') {
        Some(end) => Some(&rest[..end]),
        None => kept.closed.then_some(rest),
    }
}

/// The last lines.
pub(crate) fn tail(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().rev().take(TAIL).collect();
    lines.reverse();
    lines.join("\n")
}
