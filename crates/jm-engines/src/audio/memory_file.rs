//! A recording's file as it is fetched: in memory, without a name.

use std::{fs::File, io::Write};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::error::EngineError;

/// A file that is in memory once, however many processes read it.
///
/// It is given to the process that decodes it, which can read and mend it in place, and can make it no longer.
#[derive(Debug)]
pub(super) struct MemoryFile {
    file: File,
    length: usize,
    max_bytes: usize,
}

impl MemoryFile {
    /// An empty file, which may grow to `max_bytes`. More that is announced is refused at once.
    pub(super) fn new(announced: Option<u64>, max_bytes: usize) -> Result<Self, EngineError> {
        if announced.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > max_bytes)) {
            return Err(too_large(max_bytes));
        }
        let file = memfd_create("recording", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        let file = file.map_err(|error| EngineError::operator(format!("no file in memory: {error}")))?;
        Ok(Self { file: file.into(), length: 0, max_bytes })
    }

    /// Adds what arrived, up to the limit.
    pub(super) fn append(&mut self, chunk: &[u8]) -> Result<(), EngineError> {
        if self.length + chunk.len() > self.max_bytes {
            return Err(too_large(self.max_bytes));
        }
        self.file.write_all(chunk).map_err(|error| EngineError::retryable(format!("no room in memory: {error}")))?;
        self.length += chunk.len();
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The whole file, whose length is final.
    pub(super) fn sealed(self) -> Result<File, EngineError> {
        let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&self.file, seals)
            .map_err(|error| EngineError::operator(format!("no file in memory: {error}")))?;
        Ok(self.file)
    }
}

pub(super) fn too_large(max_bytes: usize) -> EngineError {
    EngineError::permanent(format!("a file of more than {max_bytes} bytes, which `max_bytes` allows"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorClass;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_file_holds_what_was_appended_up_to_its_limit_and_can_grow_no_more() {
        let mut file = MemoryFile::new(Some(6), 6).unwrap();
        assert!(file.is_empty());
        file.append(b"abc").unwrap();
        file.append(b"def").unwrap();
        assert_eq!(file.append(b"g").unwrap_err().class(), ErrorClass::Permanent);
        let file = file.sealed().unwrap();
        let mut read = [0; 6];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"abcdef");
        file.write_all_at(b"A", 0).unwrap();
        assert!(file.write_all_at(b"g", 6).is_err());
        assert!(file.set_len(0).is_err());
        assert!(MemoryFile::new(Some(7), 6).unwrap_err().to_string().contains("`max_bytes`"));
    }
}
