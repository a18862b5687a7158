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

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use jm_tasks::RecordId;
use serde::{Deserialize, Serialize};

use crate::{engines::Chat, notes::Note, pipeline::Access};

/// Somebody who only looks holds the lock for microseconds, and a new holder needs some to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Notes that a new one is compared with: the latest.
const MAX_NOTES: usize = 200;

/// The folder.
#[derive(Clone, Debug)]
pub struct StateFolder {
    folder: PathBuf,
}

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

/// A note that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its record.
    pub id: RecordId,
    /// What people call it.
    pub title: String,
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

    /// This folder, made if it is missing; only its owner may read it, since it has a password in it.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("could not make {}", folder.display()))?;
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

    /// The notes that were sent last, the latest last.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn sent(&self) -> Result<Vec<Sent>> {
        let text = match fs::read_to_string(self.folder.join("notes.jsonl")) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("could not read notes.jsonl of the state's folder"),
        };
        let lines: Vec<&str> = text.lines().rev().take(MAX_NOTES).collect();
        Ok(lines.into_iter().rev().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Remembers a note.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn remember(&self, note: &Note) -> Result<()> {
        let sent = Sent { id: note.id.clone(), title: note.title.clone() };
        let mut file = OpenOptions::new().append(true).create(true).open(self.folder.join("notes.jsonl"))?;
        // In one piece, since two may do so at once.
        file.write_all(format!("{}\n", serde_json::to_string(&sent)?).as_bytes())?;
        Ok(())
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
    use crate::notes::Note;

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
    fn one_process_holds_the_folder_and_others_see_which() {
        let (_folder, state) = state();
        assert_eq!(state.holder().unwrap(), None);
        let held = state.hold().unwrap().unwrap();
        assert_eq!(state.holder().unwrap(), Some(held.holder.clone()));
        assert_eq!(held.holder.pid, std::process::id());
        assert!(state.hold().unwrap().is_none());
        drop(held);
        assert_eq!(state.holder().unwrap(), None);
        assert!(state.hold().unwrap().is_some());
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
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, state) = state();
        state.announce(&up(Holder::this_process().unwrap())).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.path().join("up.json")), 0o600);
    }

    #[test]
    fn notes_are_remembered_in_their_order_and_a_line_of_another_version_is_passed_over() {
        let (_folder, state) = state();
        assert_eq!(state.sent().unwrap(), []);
        for text in ["one", "二"] {
            state.remember(&Note::of_text(text).unwrap()).unwrap();
            fs::write(state.path().join("x"), "").unwrap();
        }
        let mut file = OpenOptions::new().append(true).open(state.path().join("notes.jsonl")).unwrap();
        file.write_all(b"{}\n").unwrap();
        let titles: Vec<String> = state.sent().unwrap().into_iter().map(|sent| sent.title).collect();
        assert_eq!(titles, ["one", "二"]);
    }
}
