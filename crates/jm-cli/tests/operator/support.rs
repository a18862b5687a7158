//! Running the binary, and reading what it says.

use std::{
    ffi::OsStr,
    process::{Output, Stdio},
};

use anyhow::{Context as _, Result};
use jm_testkit::Vhost;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};

/// What `jm` said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    /// -1 for a signal.
    pub(crate) code: i32,
}

impl Said {
    /// Its answer as JSON.
    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {self:?}"))
    }
}

/// `jm` with nothing of this process's environment, and no configuration but the built-in one.
pub(crate) fn jm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jm"));
    command.env_clear().current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// `jm` for a virtual host.
pub(crate) fn jm_at(vhost: &Vhost) -> Command {
    let mut command = jm();
    command
        .env("JM_RABBITMQ__PORT", vhost.port.to_string())
        .env("JM_RABBITMQ__NAME", &vhost.user)
        .env("JM_RABBITMQ__PASSWORD", &vhost.password)
        .env("JM_RABBITMQ__VHOST", &vhost.name);
    command
}

/// Runs it to its end.
pub(crate) async fn said(mut command: Command, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Result<Said> {
    let Output { status, stdout, stderr } = command.args(arguments).output().await.context("jm did not start")?;
    let (out, err) = (String::from_utf8(stdout)?, String::from_utf8(stderr)?);
    Ok(Said { out, err, code: status.code().unwrap_or(-1) })
}

/// Asserts what holds of every text for people, written to a pipe: it fits 80 columns and has no colour.
pub(crate) fn assert_plain_and_narrow(text: &str, what: &str) {
    assert!(!text.contains('\u{1b}'), "{what}: colour in a pipe:\n{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{what}: {} columns:\n{line}", line.chars().count());
    }
}

/// Starts it, and leaves it running.
pub(crate) fn started(mut command: Command, arguments: &[&str]) -> Child {
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), signal).unwrap();
}
