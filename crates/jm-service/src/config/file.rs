//! Reading a file that has to be small.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum Unread {
    Missing,
    /// In words, without the path.
    Because(String),
}

/// The text of a regular file of at most `limit` bytes. A device or a pipe may have no end, and is refused.
pub(super) fn text(path: &Path, limit: u64) -> Result<String, Unread> {
    // Looked at before it is opened: opening a pipe waits for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(Unread::Because("is not a regular file".into()));
    }
    let mut text = String::new();
    let read = File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read <= limit) {
        Ok(text)
    } else {
        Err(Unread::Because(format!("is larger than {} KiB, so it is the wrong file", limit / 1024)))
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Because(format!("cannot be read: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str, limit: u64) -> String {
        match text(Path::new(path), limit) {
            Err(Unread::Because(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_small_regular_file_is_refused_without_reading_it_all() {
        assert_eq!(refused("/dev/zero", 10), "is not a regular file");
        assert_eq!(refused("/", 10), "is not a regular file");
        assert_eq!(refused("/proc/self/maps", 0), "is larger than 0 KiB, so it is the wrong file");
        assert!(matches!(text(Path::new("/no/such"), 10), Err(Unread::Missing)));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "12345").unwrap();
        assert_eq!(text(file.path(), 5).unwrap(), "12345");
        assert_eq!(refused(file.path().to_str().unwrap(), 4), "is larger than 0 KiB, so it is the wrong file");
    }
}
