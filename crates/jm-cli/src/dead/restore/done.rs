//! Which lines of a file were put back, in a file beside it: so that a run that was ended is gone on with.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

use crate::{exit::Code, failure::Failure};

/// `FILE.done`: the number of each line, in the order in which they were confirmed.
#[derive(Debug)]
pub(super) struct DoneLines {
    path: PathBuf,
    file: File,
    lines: HashSet<u64>,
    before: usize,
}

impl DoneLines {
    /// Makes it if there is none, and keeps it from others.
    pub(super) fn open(saved: &Path) -> Result<Self, Failure> {
        let mut name = OsString::from(saved);
        name.push(".done");
        let path = PathBuf::from(name);
        let io = |error: std::io::Error| Failure::new(Code::Io, format_args!("{}: {error}", path.display()));
        let refused = |what: &str| {
            let text = format_args!(
                "{}: {what}, and jm writes only into a regular file; delete it to put back all",
                path.display()
            );
            Failure::new(Code::Io, text)
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(&path)
            .map_err(|error| match error.raw_os_error() {
                Some(code) if code == Errno::LOOP.raw_os_error() => refused("a symbolic link"),
                _ => io(error),
            })?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(refused("no regular file"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format_args!("{}: another jm puts these back at the moment", saved.display());
                return Err(Failure::unavailable(text));
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io)?;
        let lines = text.lines().map(str::parse).collect::<Result<HashSet<u64>, _>>();
        let lines = lines.map_err(|_| {
            let text = format_args!("{}: not a list of line numbers; delete it to put back all", path.display());
            Failure::new(Code::Io, text)
        })?;
        let before = lines.len();
        Ok(Self { path, file, lines, before })
    }

    pub(super) fn has(&self, line: u64) -> bool {
        self.lines.contains(&line)
    }

    /// In one write, which a kill cannot divide.
    pub(super) fn add(&mut self, line: u64) -> Result<(), Failure> {
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        written.map_err(|error| Failure::new(Code::Io, format_args!("{}: {error}", self.path.display())))?;
        self.lines.insert(line);
        Ok(())
    }

    /// How many there were in the beginning.
    pub(super) fn before(&self) -> usize {
        self.before
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
