//! How a node is to be configured, and the start of one.

use std::path::PathBuf;

use anyhow::Result;

use super::RabbitNode;

/// What is asked of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) config_lines: Vec<String>,
    pub(crate) advanced_config: Option<String>,
    pub(crate) plugins: Vec<String>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) port: Option<u16>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) peer: Option<Peer>,
}

/// A node whose cluster another one joins.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// The port of its Erlang port mapper, which the nodes of a cluster share.
    pub(crate) epmd: u16,
    pub(crate) cookie: String,
}

/// The PEM files of a node that also listens with TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate authorities whose client certificates the node accepts.
    pub ca: PathBuf,
    /// The node's certificate, followed by its intermediates if any.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// Whether a client without a certificate of `ca` is turned away; otherwise none is asked for.
    pub require_client_certificate: bool,
}

/// Configures a [`RabbitNode`] before it starts.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `start`"]
pub struct RabbitNodeBuilder {
    options: Options,
}

impl RabbitNodeBuilder {
    /// Adds a line of `rabbitmq.conf`, such as `heartbeat = 10` (seconds).
    pub fn config_line(mut self, line: impl Into<String>) -> Self {
        self.options.config_lines.push(line.into());
        self
    }

    /// Sets the whole `advanced.config`, an Erlang term such as `[{rabbit, [{consumer_timeout, 5000}]}].`, for what
    /// `rabbitmq.conf` cannot say.
    pub fn advanced_config(mut self, text: impl Into<String>) -> Self {
        self.options.advanced_config = Some(text.into());
        self
    }

    /// Listens with TLS too, on [`RabbitNode::tls_port`].
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.options.tls = Some(files);
        self
    }

    /// Enables a plugin, such as `rabbitmq_prometheus`. One that serves HTTP gets a port of its own:
    /// [`RabbitNode::http_port`]. Plugins make the start slower.
    pub fn plugin(mut self, name: impl Into<String>) -> Self {
        self.options.plugins.push(name.into());
        self
    }

    /// Listens for AMQP at this port of 127.0.0.1, if nobody else does.
    pub fn port(mut self, port: u16) -> Self {
        self.options.port = Some(port);
        self
    }

    /// Keeps the node's data in this folder instead of one that goes with the node: virtual hosts, users, queues and
    /// their messages are there again when another node is started on it, after this one has ended. The folder has to be
    /// there, and its path may have letters, digits and `/._-` in it, since RabbitMQ hangs at others.
    pub fn data_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.options.data = Some(folder.into());
        self
    }

    /// Joins the cluster of another node when it starts for the first time. The other one has to run, and its port
    /// mapper goes with it: keep it for as long as this one.
    pub fn join(mut self, node: &RabbitNode) -> Result<Self> {
        self.options.peer = Some(node.as_peer()?);
        Ok(self)
    }

    /// Starts the node and returns once it answers AMQP.
    ///
    /// Fails when RabbitMQ is not installed (and says what to install), or when the node does not start within
    /// 90 s (and shows the end of its output).
    pub async fn start(self) -> Result<RabbitNode> {
        RabbitNode::launch(self.options).await
    }
}
