//! A process that does not outlive the test process, however that ends.

mod output;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use self::output::Stream;
pub(crate) use self::output::tail;

const SCRIPT: &str = include_str!("guard.sh");

/// What dropping a process may take after its SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How long the output of an ended process is waited for. It is there at once, unless a child still holds the pipe.
const OUTPUT_LIMIT: Duration = Duration::from_secs(2);

/// A running program with its output so far. Plain threads, nothing of a tokio runtime.
#[derive(Debug)]
pub(crate) struct Guarded {
    name: String,
    pid: u32,
    /// Signals are sent and the process is reaped under this lock: no signal can reach another's pid.
    child: Arc<Mutex<Child>>,
    status: watch::Receiver<Option<ExitStatus>>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
    /// Its end of file is the guard's signal. The descriptor is closed on exec, so no other child holds it.
    lease: Option<ChildStdin>,
    /// Ends when the process has been reaped. In a lock only because a process may be shared between threads.
    reaped: Mutex<Receiver<()>>,
}

/// What to run. The environment is empty but for what is set on the command.
pub(crate) fn command(program: &Path) -> Result<Command> {
    if program.components().count() > 1 && !program.is_file() {
        bail!("there is no program {}", program.display());
    }
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "jm-guard"]).arg(program).env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    Ok(command)
}

impl Guarded {
    /// Starts what [`command`] made; `name` is how errors call it.
    pub(crate) fn start(command: Command, name: String) -> Result<Self> {
        Self::start_with_log(command, name, None)
    }

    /// As [`Guarded::start`]. What it prints is written to `log` too.
    pub(crate) fn start_with_log(mut command: Command, name: String, log: Option<&File>) -> Result<Self> {
        // A group of its own: Ctrl-C or a test runner's kill must not hit it, and the guard kills all of it.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("could not start {name}"))?;
        let lease = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("{name} has no stdout"))?;
        let stderr = child.stderr.take().ok_or_else(|| anyhow!("{name} has no stderr"))?;
        let (pid, child) = (child.id(), Arc::new(Mutex::new(child)));
        let (told, status) = watch::channel(None);
        let (ending, reaped) = sync_channel(0);
        let waited = Arc::clone(&child);
        thread::Builder::new().name("process-wait".to_owned()).spawn(move || reap(pid, &waited, &told, ending))?;
        let copy = || log.map(File::try_clone).transpose().context("could not share the log");
        let (stdout, stderr) = (Stream::read(stdout, copy()?)?, Stream::read(stderr, copy()?)?);
        Ok(Self { name, pid, child, status, stdout, stderr, lease, reaped: Mutex::new(reaped) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        *self.status.borrow()
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// What was printed to stdout and stderr, as it was.
    pub(crate) fn printed(&self) -> (Vec<u8>, Vec<u8>) {
        (self.stdout.bytes(), self.stderr.bytes())
    }

    /// Fails if the process has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let _reaping = lock(&self.child);
        if let Some(status) = self.status() {
            bail!("{} has ended ({status}); it can get no {signal}", self.name);
        }
        let pid = Pid::from_raw(i32::try_from(self.pid)?);
        kill(pid, signal).with_context(|| format!("could not send {signal} to {}", self.name))
    }

    /// Returns when it has ended and all its output is here.
    pub(crate) async fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let mut status = self.status.clone();
        let Ok(ended) = timeout(limit, status.wait_for(Option::is_some)).await else {
            bail!("{} did not end within {limit:?}; {}", self.name, self.digest());
        };
        let ended = ended.context("nothing waits for the process any more")?.ok_or_else(|| anyhow!("no status"))?;
        let deadline = Instant::now() + OUTPUT_LIMIT;
        for stream in [&self.stdout, &self.stderr] {
            // A child of its own that still holds the pipe is no reason to fail.
            let _ = timeout_at(deadline, stream.closed()).await;
        }
        Ok(ended)
    }

    /// Returns the first line with `text` in it, of stdout or stderr, as soon as it is complete.
    pub(crate) async fn line_with(&self, text: &str, limit: Duration) -> Result<String> {
        let either = async {
            tokio::select! {
                Some(line) = self.stdout.line_with(text) => Some(line),
                Some(line) = self.stderr.line_with(text) => Some(line),
                else => None,
            }
        };
        match timeout(limit, either).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!("{} closed its output without the line {text:?}; {}", self.name, self.digest()),
            Err(_) => bail!("{} printed no line with {text:?} within {limit:?}; {}", self.name, self.digest()),
        }
    }

    /// The last lines of both outputs, for errors.
    pub(crate) fn digest(&self) -> String {
        format!("its stdout ends:\n{}\nits stderr ends:\n{}", tail(&self.stdout()), tail(&self.stderr()))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.signal(Signal::SIGKILL);
        // What it started goes with it.
        self.lease = None;
        let reaped = self.reaped.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = reaped.recv_timeout(END_LIMIT);
    }
}

/// Waits for the end of the process, and reaps it under the lock.
fn reap(pid: u32, child: &Mutex<Child>, told: &watch::Sender<Option<ExitStatus>>, ending: SyncSender<()>) {
    let Ok(raw) = i32::try_from(pid) else { return };
    // It stays a zombie, so that its pid is not given away before the lock is held.
    while waitid(Id::Pid(Pid::from_raw(raw)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let mut child = lock(child);
    if let Ok(status) = child.wait() {
        told.send_replace(Some(status));
    }
    drop(ending);
}

/// A panic under this lock leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
