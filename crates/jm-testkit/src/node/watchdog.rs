//! The watchdog: a small shell process that owns a node, and ends it when the test process is gone.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::folder::is_plain;

const SCRIPT: &str = include_str!("watchdog.sh");

/// A reply is written at once; killing a VM takes milliseconds, more when the machine is loaded.
const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// What dropping a node may take. When it takes longer, the watchdog goes on alone.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Owns the node's processes and its folder. Plain processes and threads, nothing of a tokio runtime: a node outlives
/// the runtime of the test that started it.
#[derive(Debug)]
pub(crate) struct Watchdog {
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
    /// Starts the watchdog, which makes an empty folder for the node. `node` marks its processes' environment.
    pub(crate) fn start(node: &str) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "jm-rabbit-watchdog"]);
        // Settings of a system broker (RABBITMQ_*, ERL_*) must not reach this one.
        command.env_clear().env("LANG", "C.UTF-8").env("JM_TESTKIT_NODE", node);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        // `/tmp` is used instead of what RabbitMQ hangs at.
        if let Some(folder) = std::env::var("TMPDIR").ok().filter(|folder| is_plain(folder)) {
            command.env("TMPDIR", folder);
        }
        // A group of its own: Ctrl-C or a test runner's kill must not hit it before it has cleaned up.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().context("could not start the node's watchdog (sh)")?;
        let commands = shell.stdin.take();
        let output = shell.stdout.take().ok_or_else(|| anyhow!("the watchdog has no stdout"))?;
        let (sender, replies) = channel();
        thread::Builder::new().name("rabbit-watchdog".to_owned()).spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })?;
        let link = Link { shell, commands, replies };
        let folder = PathBuf::from(link.reply("make a folder")?);
        Ok(Self { link: Mutex::new(link), folder })
    }

    /// The node's folder; the watchdog removes it at the end.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the port mapper by `epmd.sh` of the folder, and returns its pid.
    pub(crate) fn start_epmd(&self) -> Result<u32> {
        self.ask("epmd")?.parse().context("the watchdog gave no pid for epmd")
    }

    /// Starts the Erlang VM by `node.sh` of the folder, and returns its pid.
    pub(crate) fn start_node(&self) -> Result<u32> {
        self.ask("node")?.parse().context("the watchdog gave no pid for the node")
    }

    /// Kills the Erlang VM and returns when it is gone.
    pub(crate) fn kill_node(&self) -> Result<()> {
        match self.ask("kill")?.as_str() {
            "killed" => Ok(()),
            other => bail!("the watchdog answered {other:?} to kill"),
        }
    }

    fn ask(&self, command: &str) -> Result<String> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = link.commands.as_mut().ok_or_else(|| anyhow!("the watchdog has ended"))?;
        writeln!(commands, "{command}").with_context(|| format!("the node's watchdog is gone, asked to {command}"))?;
        link.reply(command)
    }
}

impl Link {
    fn reply(&self, command: &str) -> Result<String> {
        self.replies
            .recv_timeout(REPLY_LIMIT)
            .with_context(|| format!("no answer of the node's watchdog, asked to {command}"))
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
