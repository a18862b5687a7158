//! Recordings in the configured folder.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path},
};

use super::memory_file::MemoryFile;
use crate::error::EngineError;

/// Read at once; large enough to be quick.
const CHUNK_BYTES: usize = 256 * 1024;
/// The system's `ELOOP`: the standard library's name for it is not stable yet.
const LINKS_IN_A_CIRCLE: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };

/// A copy of a regular file under `folder`, wherever symbolic links lead.
///
/// Blocks its thread. Between the check and the opening somebody who can write to the folder could put a link in the
/// file's place; who can do that is the operator.
pub(super) fn read(path: &Path, folder: Option<&Path>, max_bytes: usize) -> Result<MemoryFile, EngineError> {
    let folder = folder.ok_or_else(|| EngineError::permanent("`folder` is not configured"))?;
    let outside = || EngineError::permanent("outside of `folder`");
    let real_folder = fs::canonicalize(folder).map_err(|error| EngineError::operator(format!("`folder`: {error}")))?;
    // Before the file system is asked: its answer would tell what there is outside.
    let climbs = path.components().any(|component| component == Component::ParentDir);
    if climbs || !(path.starts_with(folder) || path.starts_with(&real_folder)) {
        return Err(outside());
    }
    let path = fs::canonicalize(path).map_err(|error| failed(&error))?;
    if !path.starts_with(&real_folder) {
        return Err(outside());
    }
    let not_a_file = || EngineError::permanent("not a regular file");
    // Before opening: that of a pipe would wait for its other end.
    if !fs::metadata(&path).map_err(|error| failed(&error))?.is_file() {
        return Err(not_a_file());
    }
    let mut file = File::open(&path).map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return Err(not_a_file());
    }
    let mut copy = MemoryFile::new(Some(metadata.len()), max_bytes)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(copy),
            // It may have grown since.
            Ok(count) => copy.append(&chunk[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(&error)),
        }
    }
}

fn failed(error: &io::Error) -> EngineError {
    if error.raw_os_error() == Some(LINKS_IN_A_CIRCLE) {
        return EngineError::permanent("symbolic links that lead to each other");
    }
    match error.kind() {
        // A name with a zero in it is an invalid input.
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidFilename
        | io::ErrorKind::InvalidInput => EngineError::permanent("no such file"),
        io::ErrorKind::PermissionDenied => EngineError::operator("no permission to read it"),
        _ => EngineError::retryable(error.to_string()),
    }
}
