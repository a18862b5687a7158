//! One private broker: its start, its end, and its life between.

mod builder;
mod erlang;
mod faults;
mod folder;
mod handshake;
mod installation;

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use self::builder::{Options, Peer};
pub use self::builder::{RabbitNodeBuilder, TlsFiles};
pub(crate) use self::erlang::{CONNECTIONS, Erlang, binary};
pub(crate) use self::folder::Ports;
use self::installation::Installation;
use crate::limit::until;
use crate::ports::{free_ports, is_free};
use crate::process;
use crate::vhost::Vhost;
use crate::watchdog::Watchdog;

/// A start takes 2 to 8 s on two cores; a machine that compiles at the same time takes a multiple of it.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Tries with other ports when somebody else took one between our look and the node's listening.
const START_ATTEMPTS: usize = 5;

/// What writing the node's own records may take before a kill.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// What an orderly end may take: seconds, more where much is to be written.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How long a port stays open after its process has gone, or a port mapper needs to listen.
const PORT_LIMIT: Duration = Duration::from_secs(10);

/// A private RabbitMQ node on 127.0.0.1, in a folder of its own, with its own Erlang port mapper.
///
/// It ends with this value, or with the test process, however that ends: a watchdog process waits for it. Nothing of
/// it lives on a tokio runtime, so it may be shared by tests that each have their own.
#[derive(Debug)]
pub struct RabbitNode {
    erlang: Arc<Erlang>,
    watchdog: Arc<Watchdog>,
    epmd: u32,
    ports: Ports,
    /// Of the VM started last; it may be gone.
    vm: Mutex<Option<u32>>,
    vhosts: AtomicU64,
}

/// A failure is kept too: otherwise each test of a process would wait for its own.
static SHARED: OnceCell<std::result::Result<RabbitNode, String>> = OnceCell::const_new();

impl RabbitNode {
    /// Begins the configuration of a node.
    pub fn builder() -> RabbitNodeBuilder {
        RabbitNodeBuilder::default()
    }

    /// Starts a node as RabbitMQ is by default, and returns once it answers AMQP. It is the machine's RabbitMQ, or
    /// the one that `JM_TEST_BROKER` in the environment says: `4` (4.0) or `4.3`.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// The node all tests of this process share, started by the first of them. Only for tests that leave it alive and
    /// well: each takes a [`RabbitNode::vhost`] of its own.
    pub async fn shared() -> Result<&'static Self> {
        let started = SHARED.get_or_init(async || Self::start().await.map_err(|error| format!("{error:#}"))).await;
        started.as_ref().map_err(|error| anyhow!("the shared node did not start: {error}"))
    }

    async fn launch(options: Options) -> Result<Self> {
        let installation = Installation::find()?;
        let mut attempt = 1;
        loop {
            let node = Self::spawn(&installation, &options).await?;
            match node.wait_until_up(START_LIMIT).await {
                // A node that found a foreign port mapper at its port would be ended with that one.
                Ok(()) if process::runs(node.epmd) => return Ok(node),
                Err(error) if attempt >= START_ATTEMPTS || !node.lost_a_port() => return Err(error),
                Ok(()) | Err(_) => attempt += 1,
            }
            if attempt > START_ATTEMPTS {
                bail!("no RabbitMQ node started in {START_ATTEMPTS} attempts, each time a port was taken by another");
            }
        }
    }

    /// Starts the processes of a node on fresh ports.
    async fn spawn(installation: &Installation, options: &Options) -> Result<Self> {
        let mut free = free_ports(4 + options.plugins.len())?.into_iter();
        let mut next = || free.next().ok_or_else(|| anyhow!("too few free ports"));
        let mut ports = Ports { amqp: next()?, distribution: next()?, epmd: next()?, amqps: None, http: Vec::new() };
        ports.amqp = options.port.filter(|&port| is_free(port)).unwrap_or(ports.amqp);
        if options.tls.is_some() {
            ports.amqps = Some(next()?);
        }
        for plugin in options.plugins.iter().filter(|plugin| folder::http_prefix(plugin).is_some()) {
            ports.http.push((plugin.clone(), next()?));
        }
        let name = folder::node_name(options.data.as_deref())?;
        let watchdog = watchdog(&name).await?;
        let path = watchdog.folder();
        folder::write(path, &name, installation, &ports, options)?;
        let erlang = Erlang {
            node: name,
            distribution_port: ports.distribution,
            home: path.join("home"),
            erl_call: installation.erl_call.clone(),
            exchange: path.join("eval"),
            calls: AtomicU64::new(0),
        };
        let epmd = watchdog.start_script(folder::EPMD).await?;
        until(PORT_LIMIT, &format!("epmd on 127.0.0.1:{}", ports.epmd), || answers(ports.epmd, true)).await?;
        let node =
            Self { erlang: Arc::new(erlang), watchdog, epmd, ports, vm: Mutex::new(None), vhosts: AtomicU64::new(0) };
        node.start_again().await?;
        Ok(node)
    }

    /// The port for AMQP on 127.0.0.1. It stays the same over [`RabbitNode::restart`].
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// The port for AMQP over TLS, of a node built with [`RabbitNodeBuilder::tls`].
    pub fn tls_port(&self) -> Option<u16> {
        self.ports.amqps
    }

    /// The port on which `rabbitmq_prometheus` or `rabbitmq_management` serves HTTP, if that plugin is enabled.
    pub fn http_port(&self, plugin: &str) -> Option<u16> {
        self.ports.http.iter().find(|(name, _)| name == plugin).map(|&(_, port)| port)
    }

    /// The node's Erlang name, such as `jm01234567@localhost`. All its processes have it in their environment as
    /// `JM_TESTKIT_NODE`.
    pub fn name(&self) -> &str {
        &self.erlang.node
    }

    /// The broker's version, such as `3.10.8`, as it tells it itself.
    pub async fn version(&self) -> Result<String> {
        let version = self.eval("{ok, Version} = application:get_key(rabbit, vsn), list_to_binary(Version)").await?;
        Ok(version.trim_matches(['<', '>', '"']).to_owned())
    }

    /// The folder with the node's data, removed when the node ends.
    pub fn folder(&self) -> PathBuf {
        self.watchdog.folder().to_owned()
    }

    /// The process id of the Erlang VM, `None` while it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.vm.lock().unwrap_or_else(PoisonError::into_inner).filter(|&pid| process::runs(pid))
    }

    /// A fresh virtual host with a fresh name, and a user of its own with all permissions there.
    pub async fn vhost(&self) -> Result<Vhost> {
        let name = format!("test-{}", self.vhosts.fetch_add(1, Ordering::Relaxed) + 1);
        let password: String = std::iter::repeat_with(fastrand::alphanumeric).take(16).collect();
        self.vhost_named(&name, &format!("{name}-user"), &password).await
    }

    /// A virtual host with a given name, user and password, for names that an address must escape.
    /// Fails if one of them exists.
    pub async fn vhost_named(&self, name: &str, user: &str, password: &str) -> Result<Vhost> {
        Vhost::add(&self.erlang, name, user, password, &self.ports).await
    }

    /// As [`RabbitNode::vhost_named`], and if the node has kept one of that name (see
    /// [`RabbitNodeBuilder::data_folder`]), that one with all that is in it. Its users get this password.
    pub async fn kept_vhost(&self, name: &str, user: &str, password: &str) -> Result<Vhost> {
        Vhost::keep(&self.erlang, name, user, password, &self.ports).await
    }

    /// A virtual host of this node's cluster as this node has it: what its methods do, they do through this node.
    pub fn view_of(&self, vhost: &Vhost) -> Vhost {
        vhost.at(&self.erlang, &self.ports)
    }

    /// What another node has to know to join.
    fn as_peer(&self) -> Result<Peer> {
        let cookie = self.erlang.home.join(".erlang.cookie");
        let cookie = fs::read_to_string(&cookie).with_context(|| format!("could not read {}", cookie.display()))?;
        Ok(Peer { name: self.name().to_owned(), epmd: self.ports.epmd, cookie })
    }

    /// Evaluates Erlang expressions, separated by commas, in the node. Returns the last one's value as Erlang prints
    /// it, in one line of any length. Fails after 15 s, as on a frozen node.
    pub async fn eval(&self, erlang: &str) -> Result<String> {
        self.erlang.eval(erlang).await
    }

    /// Kills the Erlang VM (SIGKILL). Returns when it is gone and its port is closed.
    ///
    /// Before that, what the node knows of virtual hosts, users and queues is written to disk, if it answers. RabbitMQ
    /// 3 keeps that in memory for up to 2 s, and a crash within them loses a queue just declared with its confirmed
    /// messages: a test would take that for a loss by the code under test.
    pub async fn kill(&self) -> Result<()> {
        if self.pid().is_some_and(|pid| !process::stopped(pid)) {
            // As good as it gets: the node may be in any state.
            let _ = timeout(FLUSH_LIMIT, self.eval("catch mnesia:sync_log()")).await;
        }
        let killed = self.watchdog.kill_script(folder::NODE).await;
        killed.with_context(|| format!("could not kill node {}", self.name()))?;
        until(PORT_LIMIT, &format!("port {} to close", self.port()), || answers(self.port(), false)).await
    }

    /// Has the node stop as an operator would: clients are told, and what it knows is on disk. Returns when it is gone.
    pub async fn stop(&self) -> Result<()> {
        // In a process of its own: the answer comes while there still is a node.
        let what = format!("node {} to stop", self.name());
        self.erlang.ok("spawn(fun() -> rabbit:stop_and_halt() end), ok").await.with_context(|| what.clone())?;
        until(STOP_LIMIT, &what, || async {
            Ok(if self.pid().is_none() { Ok(()) } else { Err("it still runs".to_owned()) })
        })
        .await
    }

    /// Starts the node again on its ports and data, after killing it if it still runs. Returns once it answers AMQP.
    pub async fn restart(&self) -> Result<()> {
        if self.pid().is_some() {
            self.kill().await?;
        }
        self.start_again().await?;
        self.wait_until_up(START_LIMIT).await
    }

    /// Starts a killed node again and returns at once; see [`RabbitNode::wait_until_up`].
    pub async fn start_again(&self) -> Result<()> {
        if let Some(pid) = self.pid() {
            bail!("node {} still runs, as process {pid}", self.name());
        }
        let started = self.watchdog.start_script(folder::NODE).await;
        let pid = started.with_context(|| format!("could not start node {}", self.name()))?;
        *self.vm.lock().unwrap_or_else(PoisonError::into_inner) = Some(pid);
        Ok(())
    }

    /// Returns once the node answers an AMQP handshake with `connection.start`. Fails after `limit`, or at once with
    /// the end of its output when it does not run.
    pub async fn wait_until_up(&self, limit: Duration) -> Result<()> {
        let what = format!("an AMQP handshake of node {} at port {}", self.name(), self.port());
        let up = until(limit, &what, || async {
            if self.pid().is_none() {
                bail!("node {} does not run", self.name());
            }
            Ok(handshake::connection_start(self.port()).await.map_err(|error| error.to_string()))
        });
        up.await.with_context(|| format!("its output, in part:\n{}", digest(&self.log().unwrap_or_default())))
    }

    /// The node's log so far, of all its starts, with what epmd and the VM printed.
    pub fn log(&self) -> Result<String> {
        let path = self.watchdog.folder().join("output");
        let log = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    fn lost_a_port(&self) -> bool {
        let output = self.log().unwrap_or_default().to_lowercase();
        !process::runs(self.epmd)
            || ["eaddrinuse", "address already in use", "port_in_use"].iter().any(|sign| output.contains(sign))
    }

    pub(crate) fn erlang(&self) -> &Erlang {
        &self.erlang
    }
}

/// Whether a port is open (or closed, if `open` is false), in the form [`until`] asks for.
async fn answers(port: u16, open: bool) -> Result<Result<(), String>> {
    let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok();
    Ok(if connected == open { Ok(()) } else { Err(format!("connected: {connected}")) })
}

/// Makes the node's folder, and marks its processes' environment with its name.
async fn watchdog(node: &str) -> Result<Arc<Watchdog>> {
    Watchdog::start("jm-rabbit", Signal::SIGKILL, |command| {
        command.env("JM_TESTKIT_NODE", node);
        // `/tmp` is used instead of what RabbitMQ hangs at.
        if let Some(folder) = std::env::var("TMPDIR").ok().filter(|folder| folder::is_plain(folder)) {
            command.env("TMPDIR", folder);
        }
        Ok(())
    })
    .await
}

/// The first lines that tell of an error, and the last lines: a failing VM buries the former under reports.
fn digest(output: &str) -> String {
    let (mut lines, end): (Vec<&str>, Vec<&str>) = (Vec::new(), output.lines().rev().take(10).collect());
    lines.extend(output.lines().filter(|line| line.to_lowercase().contains("error")).take(10));
    lines.push("...");
    lines.extend(end.into_iter().rev());
    lines.join("\n")
}
