//! Who holds the folder: a lock of the kernel's, and beside it who that is.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::StateFolder;

/// Somebody who only looks holds the lock for microseconds, and a new holder needs some to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A process, told from all others that had or will have its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// When it was started, in the kernel's ticks since it was itself.
    pub started: u64,
}

/// Held by the supervisor. The kernel gives the lock back when this is dropped, or its process is gone.
#[derive(Debug)]
pub struct Held {
    _lock: File,
    /// Who holds it.
    pub holder: Holder,
}

impl StateFolder {
    /// Takes the lock for this process; `None` when somebody else has it.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn hold(&self) -> Result<Option<Held>> {
        let mut file = self.lock_file()?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => thread::sleep(LOOK),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error).context("could not lock the state's folder"),
            }
        }
        let holder = Holder::this_process()?;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&serde_json::to_vec(&holder)?)?;
        Ok(Some(Held { _lock: file, holder }))
    }

    /// Who holds the lock; `None`: nobody.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the holder does not say who it is.
    pub fn holder(&self) -> Result<Option<Holder>> {
        let mut file = self.lock_file()?;
        let begun = Instant::now();
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(None),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error).context("could not look at the state's lock"),
            }
            let mut text = String::new();
            file.rewind()?;
            file.read_to_string(&mut text)?;
            // Until a new holder has written its own, the file still has its predecessor.
            if let Some(holder) = serde_json::from_str::<Holder>(&text).ok().filter(Holder::runs) {
                return Ok(Some(holder));
            }
            if begun.elapsed() > PATIENCE {
                bail!("somebody holds {}, and does not say who", self.folder.join("lock").display());
            }
            thread::sleep(LOOK);
        }
    }

    fn lock_file(&self) -> Result<File> {
        let path = self.folder.join("lock");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        file.with_context(|| format!("could not open {}", path.display()))
    }
}

impl Holder {
    fn this_process() -> Result<Self> {
        let pid = std::process::id();
        Ok(Self { pid, started: started(pid).context("could not read /proc/self/stat")? })
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// The 22nd field of `/proc/PID/stat`.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state ...", and the name may contain anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_the_folder_and_others_see_which() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        assert_eq!(state.holder().unwrap(), None);
        let held = state.hold().unwrap().unwrap();
        assert_eq!(state.holder().unwrap(), Some(held.holder.clone()));
        assert_eq!(held.holder.pid, std::process::id());
        assert!(state.hold().unwrap().is_none());
        drop(held);
        assert_eq!(state.holder().unwrap(), None);
        assert!(state.hold().unwrap().is_some());
    }
}
