//! A file in memory that a decoder can be stopped from reading.

use std::{
    io::{self, Cursor, Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use symphonia::core::io::MediaSource;
use tokio_util::sync::CancellationToken;

/// As much as may be read without a packet of sound: 8 MiB of tables, and a picture of 16 MiB. What is read there is
/// kept, and takes many times its length.
pub(super) const MAX_UNHEARD_BYTES: usize = 24 * 1024 * 1024;

/// How much may still be read before there is a packet of sound.
#[derive(Clone)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_UNHEARD_BYTES)))
    }

    /// There was a packet.
    pub(super) fn renew(&self) {
        self.0.store(MAX_UNHEARD_BYTES, Ordering::Relaxed);
    }
}

/// The file; reading fails once nobody waits any more, and once the allowance is used up.
pub(super) struct Guarded {
    file: Cursor<Vec<u8>>,
    allowance: Allowance,
    stop: CancellationToken,
}

impl Guarded {
    pub(super) fn new(file: Vec<u8>, allowance: Allowance, stop: CancellationToken) -> Self {
        Self { file: Cursor::new(file), allowance, stop }
    }
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.0.load(Ordering::Relaxed);
        if self.stop.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        if left == 0 {
            return Err(io::Error::other("too much that is no sound"));
        }
        let room = buffer.len().min(left);
        let count = self.file.read(&mut buffer[..room])?;
        self.allowance.0.store(left - count, Ordering::Relaxed);
        Ok(count)
    }
}

impl Seek for Guarded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl MediaSource for Guarded {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.file.get_ref().len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_ends_with_the_allowance_until_it_is_renewed_and_for_good_with_the_cancellation() {
        let (allowance, stop) = (Allowance::new(), CancellationToken::new());
        let mut guarded = Guarded::new(vec![1; MAX_UNHEARD_BYTES + 100], allowance.clone(), stop.clone());
        let mut read = vec![0; MAX_UNHEARD_BYTES + 10];
        assert_eq!(guarded.read(&mut read).unwrap(), MAX_UNHEARD_BYTES);
        // Going back is no way around it.
        guarded.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(guarded.read(&mut read).unwrap_err().to_string(), "too much that is no sound");
        allowance.renew();
        assert_eq!(guarded.read(&mut read[..7]).unwrap(), 7);
        stop.cancel();
        assert_eq!(guarded.read(&mut read).unwrap_err().to_string(), "cancelled");
    }
}
