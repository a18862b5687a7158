//! The search for secrets in everything that came out.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};
use anyhow::{Context, Result};

use crate::canary::Canary;
use crate::sentry::SentryServer;
use crate::worker::WorkerProcess;

/// What is read of a file at once: a history of a campaign is larger than memory should be.
const CHUNK: usize = 256 * 1024;

/// Finds beyond these are counted and not kept. One is a failure.
const KEPT: usize = 50;

/// What a find shows of its line.
const SHOWN_CHARS: usize = 300;

/// Pages that a worker serves, and one that it does not.
const PAGES: [&str; 4] = ["/metrics", "/health/ready", "/health/live", "/no/such"];

/// A secret at a place where it must not be. It is shown without the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Leak {
    /// Which secret.
    pub secret: String,
    /// As what it was written.
    pub form: &'static str,
    /// Where: a file's path, or what a test called it.
    pub place: String,
    /// The line there, from 1.
    pub line: usize,
    /// The line's beginning, for a test's failure.
    text: String,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is in {}, line {} ({})", self.secret, self.place, self.line, self.form)
    }
}

impl fmt::Debug for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}: {}", self.text)
    }
}

/// Looks for secrets in texts and files, as they are and encoded (base64, hexadecimal digits, percent-encoding, escapes,
/// lists of numbers), whole or a piece of them, whatever their case and wherever lines were broken.
#[derive(Clone, Debug)]
pub struct LeakSearch {
    canaries: Vec<Canary>,
    forms: AhoCorasick,
    /// Of each form, the secret's number and the form's name.
    owners: Vec<(usize, &'static str)>,
    /// The longest form's length.
    longest: usize,
    leaks: Vec<Leak>,
    found: usize,
    bytes: u64,
}

impl LeakSearch {
    /// A search for these secrets.
    pub fn of(canaries: impl IntoIterator<Item = Canary>) -> Self {
        let canaries: Vec<Canary> = canaries.into_iter().collect();
        let (mut written, mut owners) = (Vec::new(), Vec::new());
        for (number, canary) in canaries.iter().enumerate() {
            for (form, text) in canary.forms() {
                written.push(text);
                owners.push((number, form));
            }
        }
        let longest = written.iter().map(Vec::len).max().unwrap_or_default();
        let forms = AhoCorasickBuilder::new().ascii_case_insensitive(true).build(&written);
        let forms = forms.unwrap_or_else(|error| unreachable!("some thousand short patterns: {error}"));
        Self { canaries, forms, owners, longest, leaks: Vec::new(), found: 0, bytes: 0 }
    }

    /// Searches a text. `place` is for failures.
    pub fn text(&mut self, place: &str, text: impl AsRef<[u8]>) {
        // Nothing fails that reads from memory.
        let _ = self.read(place, text.as_ref());
    }

    /// Searches a file.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        let read = File::open(path).and_then(|file| self.read(&path.display().to_string(), file));
        read.with_context(|| format!("could not search {}", path.display()))
    }

    /// Searches all files of a folder and of the folders in it.
    pub fn folder(&mut self, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("could not search {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("could not search {}", folder.display()))?;
            let kind = entry.file_type().with_context(|| format!("could not search {}", entry.path().display()))?;
            if kind.is_dir() {
                self.folder(&entry.path())?;
            } else if kind.is_file() {
                self.file(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Searches what a program printed.
    pub fn output(&mut self, of: &str, output: &Output) {
        self.text(&format!("stdout of {of}"), &output.stdout);
        self.text(&format!("stderr of {of}"), &output.stderr);
    }

    /// Searches what a worker says of itself over HTTP at this moment.
    pub async fn pages(&mut self, of: &str, worker: &WorkerProcess) -> Result<()> {
        for page in PAGES {
            let (status, body) = worker.get(page).await?;
            self.text(&format!("{page} ({status}) of {of}"), body);
        }
        Ok(())
    }

    /// Ends a worker as an orchestrator does, and searches its pages and all that it printed.
    pub async fn end(&mut self, of: &str, worker: WorkerProcess, limit: Duration) -> Result<()> {
        self.pages(of, &worker).await?;
        worker.terminate()?;
        let status = worker.wait(limit).await?;
        anyhow::ensure!(status.success(), "{of} ended with {status}");
        self.text(&format!("stdout of {of}"), worker.stdout());
        self.text(&format!("stderr of {of}"), worker.stderr());
        Ok(())
    }

    /// Searches all that was sent to Sentry but the header in which every client of it sends its key. Fails if there
    /// were less events than `least`.
    pub fn reports(&mut self, sentry: &SentryServer, least: usize) -> Result<()> {
        let events = sentry.events().len();
        anyhow::ensure!(events >= least, "{events} events at Sentry, at least {least} were expected");
        for request in sentry.http().requests() {
            for (name, value) in request.headers.iter().filter(|(name, _)| name != "x-sentry-auth") {
                self.text("a header to Sentry", format!("{name}: {value}"));
            }
            self.text("a request to Sentry", format!("{}?{}", request.path, request.query.unwrap_or_default()));
            self.text("an envelope to Sentry", &request.body);
        }
        Ok(())
    }

    /// What was found, the first 50 of it.
    pub fn leaks(&self) -> &[Leak] {
        &self.leaks
    }

    /// How much was found.
    pub fn found(&self) -> usize {
        self.found
    }

    /// How many bytes were searched.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Blanks and line ends are left out before the search: a form may be broken over lines, or have blanks in it.
    fn read(&mut self, place: &str, mut from: impl Read) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut rest = Rest::default();
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.bytes += count as u64;
            rest.add(&buffer[..count]);
            self.look(place, &rest);
            rest.keep(self.longest.saturating_sub(1));
        }
    }

    fn look(&mut self, place: &str, rest: &Rest) {
        let mut last = None;
        for found in self.forms.find_iter(&rest.bytes) {
            let (secret, form) = self.owners[found.pattern().as_usize()];
            let line = rest.line_at(found.end() - 1);
            // The pieces of one secret follow each other.
            if last.replace((secret, line)) == Some((secret, line)) || self.knows(secret, place, line) {
                continue;
            }
            self.found += 1;
            if self.leaks.len() < KEPT {
                let around = &rest.bytes[found.start().saturating_sub(SHOWN_CHARS / 2)..];
                let text = String::from_utf8_lossy(around).chars().take(SHOWN_CHARS).collect();
                let secret = self.canaries[secret].name().to_owned();
                self.leaks.push(Leak { secret, form, place: place.to_owned(), line, text });
            }
        }
    }

    /// A find at the end of a chunk is in the next one's beginning too.
    fn knows(&self, secret: usize, place: &str, line: usize) -> bool {
        let name = self.canaries[secret].name();
        self.leaks.last().is_some_and(|leak| leak.secret == name && leak.place == place && leak.line == line)
    }
}

/// What was read and has to be looked at, without blanks and line ends.
struct Rest {
    bytes: Vec<u8>,
    /// Where lines begin in `bytes`, with their numbers.
    lines: Vec<(usize, usize)>,
}

impl Default for Rest {
    fn default() -> Self {
        Self { bytes: Vec::with_capacity(CHUNK), lines: vec![(0, 1)] }
    }
}

impl Rest {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let next = self.number() + 1;
                self.lines.push((self.bytes.len(), next));
            } else if !byte.is_ascii_whitespace() {
                self.bytes.push(byte);
            }
        }
    }

    /// Forgets all but the last bytes.
    fn keep(&mut self, count: usize) {
        let gone = self.bytes.len().saturating_sub(count);
        self.bytes.drain(..gone);
        let first = self.lines.partition_point(|&(start, _)| start <= gone).saturating_sub(1);
        self.lines.drain(..first);
        for (start, _) in &mut self.lines {
            *start = start.saturating_sub(gone);
        }
    }

    fn line_at(&self, place: usize) -> usize {
        let behind = self.lines.partition_point(|&(start, _)| start <= place);
        self.lines[behind.saturating_sub(1)].1
    }

    fn number(&self) -> usize {
        self.lines.last().map_or(1, |&(_, number)| number)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn places(search: &LeakSearch) -> Vec<(String, usize)> {
        search.leaks().iter().map(|leak| (leak.place.clone(), leak.line)).collect()
    }

    #[test]
    fn a_planted_secret_is_found_with_its_file_and_its_line() {
        let (password, key) = (Canary::new("the password"), Canary::plain("the key"));
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(folder.path().join("clean.log"), "nothing\n".repeat(100_000)).unwrap();
        let many = "a line of a log\n".repeat(40_000);
        // Also where one chunk ends and the next begins.
        let edge = format!("{}{}", "x".repeat(CHUNK - 5), password.value());
        let encoded = STANDARD.encode(format!("user:{}", key.value()));
        fs::write(inner.join("worker.log"), format!("{many}{}\n{many}Basic {encoded}\n", password.value())).unwrap();
        fs::write(inner.join("edge.log"), edge).unwrap();

        let mut search = LeakSearch::of([password, key]);
        search.folder(folder.path()).unwrap();
        let mut found = places(&search);
        found.sort();
        let place = |name: &str| inner.join(name).display().to_string();
        let (worker, edge) = (place("worker.log"), place("edge.log"));
        assert_eq!(found, [(edge, 1), (worker.clone(), 40_001), (worker.clone(), 80_002)]);
        assert_eq!(search.found(), 3);
        let told: Vec<String> = search.leaks().iter().map(ToString::to_string).collect();
        assert!(told.contains(&format!("the key is in {worker}, line 80002 (base64)")), "{told:?}");
    }

    #[test]
    fn a_find_is_told_without_the_secret() {
        let secret = Canary::new("the password");
        let mut search = LeakSearch::of([secret.clone()]);
        search.text("a log", format!("a\npassword={}", secret.value()));
        let [leak] = search.leaks() else { panic!("{:?}", search.leaks()) };
        assert_eq!(leak.to_string(), "the password is in a log, line 2 (plain)");
        assert!(secret.found_in(&leak.to_string()).is_none() && format!("{leak:?}").contains("password="));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_clean_one() {
        let mut search = LeakSearch::of([Canary::new("the password")]);
        let error = search.file(Path::new("/no/such/file")).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
        assert!(search.folder(Path::new("/no/such/folder")).is_err());
    }
}
