//! A file of which a decoder reads only so much without a packet of sound.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use symphonia::core::io::MediaSource;

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

/// The part of the file that has its sound; reading fails once the allowance is used up.
pub(super) struct Guarded {
    file: Arc<File>,
    /// What is left out at the beginning.
    start: u64,
    length: u64,
    place: u64,
    allowance: Allowance,
}

impl Guarded {
    pub(super) fn new(file: Arc<File>, part: &Range<u64>, allowance: Allowance) -> Self {
        Self { file, start: part.start, length: part.end.saturating_sub(part.start), place: 0, allowance }
    }
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.0.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other("too much that is no sound"));
        }
        let behind = usize::try_from(self.length.saturating_sub(self.place)).unwrap_or(usize::MAX);
        let room = buffer.len().min(left).min(behind);
        let count = self.file.read_at(&mut buffer[..room], self.start.saturating_add(self.place))?;
        self.place += count as u64;
        self.allowance.0.store(left - count, Ordering::Relaxed);
        Ok(count)
    }
}

impl Seek for Guarded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.place.checked_add_signed(offset),
        };
        self.place = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.place)
    }
}

impl MediaSource for Guarded {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(bytes: &[u8], part: &Range<u64>, allowance: &Allowance) -> Guarded {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Guarded::new(Arc::new(file), part, allowance.clone())
    }

    #[test]
    fn reading_ends_with_the_allowance_until_it_is_renewed() {
        let allowance = Allowance::new();
        let mut guarded = guarded(&vec![1; MAX_UNHEARD_BYTES + 100], &(0..u64::MAX), &allowance);
        let mut read = vec![0; MAX_UNHEARD_BYTES + 10];
        assert_eq!(guarded.read(&mut read).unwrap(), MAX_UNHEARD_BYTES);
        // Going back is no way around it.
        guarded.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(guarded.read(&mut read).unwrap_err().to_string(), "too much that is no sound");
        allowance.renew();
        assert_eq!(guarded.read(&mut read[..7]).unwrap(), 7);
    }

    #[test]
    fn what_is_left_out_before_and_behind_is_in_no_place() {
        let mut guarded = guarded(b"tagsoundtag", &(3..8), &Allowance::new());
        let mut read = [0; 5];
        guarded.read_exact(&mut read).unwrap();
        assert_eq!((&read, guarded.byte_len()), (b"sound", Some(5)));
        assert_eq!(guarded.seek(SeekFrom::End(-2)).unwrap(), 3);
        assert_eq!(guarded.read(&mut read).unwrap(), 2);
        assert!(guarded.seek(SeekFrom::Current(-6)).is_err());
    }
}
