//! All witnesses' files as one history, in the order of time, without holding any of them in memory.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use super::Event;

/// The ending of a witness's file.
pub const EXTENSION: &str = "history";

/// Events of several files in the order of time.
#[derive(Debug)]
pub struct Merge {
    files: Vec<Witness>,
    /// The next event of each file, by time and then by file, so that the order is always the same.
    next: BinaryHeap<Reverse<(u64, usize)>>,
}

#[derive(Debug)]
struct Witness {
    path: PathBuf,
    lines: BufReader<File>,
    line: Vec<u8>,
    event: Option<Event>,
}

impl Merge {
    /// Opens all files of a folder that end in `.history`.
    pub fn of_folder(folder: &Path) -> io::Result<Self> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        paths.retain(|path| path.extension() == Some(OsStr::new(EXTENSION)));
        paths.sort();
        let mut merge = Self { files: Vec::with_capacity(paths.len()), next: BinaryHeap::new() };
        for path in paths {
            let lines = BufReader::with_capacity(32 * 1024, File::open(&path)?);
            merge.files.push(Witness { path, lines, line: Vec::new(), event: None });
            merge.advance(merge.files.len() - 1)?;
        }
        Ok(merge)
    }

    /// The next event.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        let Some(Reverse((_, file))) = self.next.pop() else { return Ok(None) };
        let event = self.files[file].event.take();
        self.advance(file)?;
        Ok(event)
    }

    fn advance(&mut self, number: usize) -> io::Result<()> {
        let file = &mut self.files[number];
        file.line.clear();
        file.lines.read_until(b'\n', &mut file.line)?;
        // The last line of a process that was killed may be cut: it is nobody's word.
        if file.line.pop() != Some(b'\n') {
            return Ok(());
        }
        let event = Event::read(&file.line)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.path.display())))?;
        file.event = Some(event);
        self.next.push(Reverse((event.at, number)));
        Ok(())
    }
}
