//! Running the binary, and reading what it says.

use std::{
    ffi::OsStr,
    process::{Output, Stdio},
};

use jm_testkit::Vhost;
use tokio::process::Command;

/// What `jm` said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

/// `jm` with nothing of this process's environment, and no configuration but the built-in one.
pub(crate) fn jm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jm"));
    command.env_clear().current_dir(std::env::temp_dir()).stdin(Stdio::null()).kill_on_drop(true);
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
pub(crate) async fn said(mut command: Command, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Said {
    let Output { status, stdout, stderr } = command.args(arguments).output().await.expect("jm should start");
    Said {
        out: String::from_utf8(stdout).expect("its output should be UTF-8"),
        err: String::from_utf8(stderr).expect("its errors should be UTF-8"),
        code: status.code().unwrap_or(-1),
    }
}
