//! What `make up` keeps, in a folder of the user's: data, logs, and who holds it.
//!
//! | File | |
//! |---|---|
//! | `lock` | locked for as long as the supervisor lives, however that ends; it says who that is |
//! | `up.json` | the addresses, and the supervisor that they are of |
//! | `notes.jsonl` | the notes that were sent, a line each |
//! | `records.db`, `audio`, `broker` | the data |
//! | `supervisor.log`, `logs` | the logs of the last start |
//!
//! Whether something is up is asked of the lock alone. The kernel gives it back when its holder is gone, so neither a
//! crash nor a reboot leaves anything that looks as if it were up.

mod lock;
mod sent;

use std::{
    env,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

pub use self::{
    lock::{Held, Holder},
    sent::Sent,
};
use crate::{engines::Chat, pipeline::Access};

/// The folder.
#[derive(Clone, Debug)]
pub struct StateFolder {
    folder: PathBuf,
}

/// What is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Up {
    /// The supervisor.
    pub holder: Holder,
    /// How one gets at it.
    pub access: Access,
    /// The language model, where it is one of ours.
    pub chat: Option<Chat>,
}

impl StateFolder {
    /// `jm-mq/demo` below `XDG_STATE_HOME` or, unless that is set, `~/.local/state`; made if it is missing.
    ///
    /// # Errors
    ///
    /// Without a home, or when it cannot be made.
    pub fn from_environment() -> Result<Self> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
        Self::open(&state.context("neither XDG_STATE_HOME nor HOME is set")?.join("jm-mq/demo"))
    }

    /// This folder, made if it is missing; only its owner may read it, since it has a password and notes in it.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or is somebody else's.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("could not make {}", folder.display()))?;
        // One that was there may be open to others.
        let kept = fs::set_permissions(&folder, Permissions::from_mode(0o700));
        kept.with_context(|| format!("could not close {} to others than its owner", folder.display()))?;
        Ok(Self { folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The file that the supervisor's log goes to.
    pub fn log(&self) -> PathBuf {
        self.folder.join("supervisor.log")
    }

    /// The folder for the workers' logs.
    pub(crate) fn logs(&self) -> Result<PathBuf> {
        self.made("logs")
    }

    /// The folder for the broker's data.
    pub(crate) fn broker(&self) -> Result<PathBuf> {
        self.made("broker")
    }

    fn made(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        Ok(folder)
    }

    /// What is up; `None`: nothing, or it is not ready yet.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn up(&self) -> Result<Option<Up>> {
        let Some(holder) = self.holder()? else { return Ok(None) };
        Ok(self.last()?.filter(|up| up.holder == holder))
    }

    /// What was up last, and perhaps still is.
    ///
    /// # Errors
    ///
    /// When the file cannot be read. What is in it does not matter: that of another version counts as none.
    pub fn last(&self) -> Result<Option<Up>> {
        match fs::read(self.folder.join("up.json")) {
            Ok(json) => Ok(serde_json::from_slice(&json).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("could not read up.json of the state's folder"),
        }
    }

    /// Says what is up.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn announce(&self, up: &Up) -> Result<()> {
        let (fresh, file) = (self.folder.join("up.json.new"), self.folder.join("up.json"));
        let mut written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        written.write_all(&serde_json::to_vec_pretty(up)?)?;
        fs::rename(&fresh, &file).context("could not write up.json of the state's folder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateFolder) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(&folder.path().join("a/b")).unwrap();
        (folder, state)
    }

    fn up(holder: Holder) -> Up {
        let access = Access {
            amqp: "amqp://me:secret@127.0.0.1:1/v".into(),
            port: 1,
            password: "secret".into(),
            database: "/d".into(),
            audio: "/a".into(),
            workers: vec![("llm-worker".into(), 2)],
        };
        Up { holder, access, chat: Some(Chat::Qwen) }
    }

    #[test]
    fn what_a_crash_has_left_behind_is_not_up() {
        let (_folder, state) = state();
        let held = state.hold().unwrap().unwrap();
        state.announce(&up(held.holder.clone())).unwrap();
        assert_eq!(state.up().unwrap(), Some(up(held.holder.clone())));
        drop(held);
        // This very process still runs, under the number that the files say.
        assert_eq!(state.up().unwrap(), None);
        assert!(state.last().unwrap().is_some());

        // Another one holds it now, and has not said yet what is up.
        let other = Holder { pid: std::process::id(), started: 0 };
        state.announce(&up(other.clone())).unwrap();
        let _held = state.hold().unwrap().unwrap();
        assert_eq!(state.up().unwrap(), None);
        assert!(!other.runs());
    }

    #[test]
    fn the_folder_is_its_owners_alone() {
        let (_folder, state) = state();
        let held = state.hold().unwrap().unwrap();
        state.announce(&up(held.holder)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.path().join("up.json")), 0o600);

        fs::set_permissions(state.path(), Permissions::from_mode(0o755)).unwrap();
        StateFolder::open(state.path()).unwrap();
        assert_eq!(mode(state.path()), 0o700);
    }
}
