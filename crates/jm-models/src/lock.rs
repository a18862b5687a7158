//! One fetch at a time in a cache folder. The system unlocks what a process held, however it ended.

use std::{
    fs::{File, TryLockError},
    path::Path,
    thread,
    time::Duration,
};

use crate::{failure::Failure, interrupt::Interrupt, progress};

const NAME: &str = ".lock";
/// How often a fetch that waits looks again.
const EVERY: Duration = Duration::from_millis(100);

/// Held until it is dropped.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits, and says so, while another process has it.
    pub(crate) fn acquire(folder: &Path, interrupt: &Interrupt) -> Result<Self, Failure> {
        let path = folder.join(NAME);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(Failure::io("open", &path))?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(Failure::io("lock", &path)(error)),
            }
            if !said {
                progress::say(&format!("another jm-models fetches into {}; waiting for it", folder.display()));
                said = true;
            }
            interrupt.check()?;
            thread::sleep(EVERY);
        }
    }
}
