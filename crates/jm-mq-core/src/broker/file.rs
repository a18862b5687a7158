//! A small file that an option names.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

/// The whole content, or why there is none. A device or a pipe may have no end, and is refused unopened.
pub(super) fn bytes(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match read.map_err(|error| error.to_string())? {
        read if u64::try_from(read).is_ok_and(|read| read <= limit) => Ok(bytes),
        _ => Err(format!("larger than {} KiB", limit / 1024)),
    }
}
