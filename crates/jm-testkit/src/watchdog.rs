//! The watchdog: a small shell process that owns a server, and ends it when the test process is gone.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

const SCRIPT: &str = include_str!("watchdog/watchdog.sh");

/// Starting or killing a process takes milliseconds; a script that has to end may take seconds (`initdb` 1 to 3 s on
/// two cores), and a machine that compiles at the same time takes a multiple of it.
const REPLY_LIMIT: Duration = Duration::from_secs(90);

/// What dropping a server may take. When it takes longer, the watchdog goes on alone.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Owns a server's processes and its folder. Plain processes and threads, nothing of a tokio runtime: a server
/// outlives the runtime of the test that started it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// What it watches, for errors.
    server: &'static str,
    link: Mutex<Link>,
    folder: PathBuf,
}

#[derive(Debug)]
struct Link {
    shell: Child,
    /// Its end of file is the watchdog's signal to end. The descriptor is closed on exec, so no other child holds it.
    commands: Option<ChildStdin>,
    replies: Receiver<String>,
}

impl Watchdog {
    /// Starts the watchdog, which makes an empty folder whose name begins with `prefix`. `signal` ends a process of
    /// the server at once. Of this process' environment nothing is passed on but the path to programs: settings for
    /// a system server must not reach this one. `adapt` adds what this server's processes need: variables, a user.
    pub(crate) async fn start(
        prefix: &'static str,
        signal: Signal,
        adapt: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Arc<Self>> {
        let signal = signal.as_str().trim_start_matches("SIG");
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "jm-watchdog", prefix, signal]);
        command.env_clear().env("LANG", "C.UTF-8").current_dir("/");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        adapt(&mut command)?;
        blocking(move || Self::spawn(command, prefix).map(Arc::new)).await
    }

    fn spawn(mut command: Command, server: &'static str) -> Result<Self> {
        // A group of its own: Ctrl-C or a test runner's kill must not hit it before it has cleaned up.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().with_context(|| format!("could not start the watchdog (sh) of {server}"))?;
        let commands = shell.stdin.take();
        let output = shell.stdout.take().ok_or_else(|| anyhow!("the watchdog has no stdout"))?;
        let (sender, replies) = channel();
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })?;
        let link = Link { shell, commands, replies };
        let folder = PathBuf::from(link.reply(server, "make a folder")?);
        Ok(Self { server, link: Mutex::new(link), folder })
    }

    /// The server's folder; the watchdog removes it at the end.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a script of the folder to its end. Fails when the script does; what it printed is in the file `output`.
    pub(crate) async fn run_script(self: &Arc<Self>, script: &'static str) -> Result<()> {
        match self.ask("run", script).await?.as_str() {
            "done" => Ok(()),
            other => bail!("{script} of {}: {other}", self.server),
        }
    }

    /// Starts a process by a script of the folder, and returns its pid.
    pub(crate) async fn start_script(self: &Arc<Self>, script: &'static str) -> Result<u32> {
        let pid = self.ask("start", script).await?;
        pid.parse().with_context(|| format!("the watchdog of {} gave {pid:?} as the pid of {script}", self.server))
    }

    /// Ends what the script started, and returns when it is gone.
    pub(crate) async fn kill_script(self: &Arc<Self>, script: &'static str) -> Result<()> {
        match self.ask("kill", script).await?.as_str() {
            "killed" => Ok(()),
            other => bail!("the watchdog of {} answered {other:?} to kill {script}", self.server),
        }
    }

    async fn ask(self: &Arc<Self>, command: &'static str, script: &'static str) -> Result<String> {
        let watchdog = Arc::clone(self);
        blocking(move || {
            let what = format!("{command} {script}");
            let mut link = watchdog.link.lock().unwrap_or_else(PoisonError::into_inner);
            let commands = link.commands.as_mut().ok_or_else(|| anyhow!("the watchdog has ended"))?;
            writeln!(commands, "{what}")
                .with_context(|| format!("the watchdog of {} is gone, asked to {what}", watchdog.server))?;
            link.reply(watchdog.server, &what)
        })
        .await
    }
}

/// Runs what waits for the watchdog away from the runtime's own threads.
async fn blocking<T: Send + 'static>(task: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(task).await.context("a task of the test kit did not end")?
}

impl Link {
    fn reply(&self, server: &str, asked: &str) -> Result<String> {
        self.replies
            .recv_timeout(REPLY_LIMIT)
            .with_context(|| format!("no answer of the watchdog of {server}, asked to {asked}"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let link = self.link.get_mut().unwrap_or_else(PoisonError::into_inner);
        link.commands = None;
        let deadline = Instant::now() + END_LIMIT;
        while matches!(link.shell.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
