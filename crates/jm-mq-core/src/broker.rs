//! The broker we talk to: where it is, who we are, and how a connection comes about.

mod connection;
mod doorbell;
mod dsn;
mod file;
mod greeting;
mod host;
mod node;
mod options;
mod race;
mod refusal;
mod resolver;
pub(crate) mod sanitizer;
mod secrets;
mod single;
mod socket;
mod stream;
mod tls;
mod transport;

pub(crate) use connection::{ConnectionPool, PooledConnection, Role};
pub(crate) use doorbell::Doorbell;
pub use options::{Auth, BrokerOptions, HostOptions, Port, TlsOptions};
pub use single::Connection;

use std::{fmt, sync::Arc, time::Instant};

use self::{resolver::Resolver, secrets::Secrets};
use crate::error::OptionsError;

/// A RabbitMQ broker, or the nodes of one cluster. Nothing is dialled before something is published or consumed.
///
/// Its connections are driven by threads of their own, so that heartbeats go on when every handler of the process blocks
/// its thread. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    options: BrokerOptions,
    secrets: Secrets,
    resolver: Resolver,
    io: IoRuntime,
    identity: Identity,
}

/// Who we are to operators who read a dead letter or the broker's list of connections.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The application's name.
    pub(crate) app_id: String,
    /// This process among its replicas: host name and process id.
    pub(crate) instance: String,
}

impl Broker {
    /// Checks the options and reads the files that they name.
    ///
    /// # Errors
    ///
    /// The first option that cannot be used, a password or certificate file that cannot be read among them.
    pub fn new(options: BrokerOptions) -> Result<Self, OptionsError> {
        Self::with_resolver(options, Resolver::of_system)
    }

    fn with_resolver(
        options: BrokerOptions,
        resolver: impl FnOnce(tokio::runtime::Handle) -> Resolver,
    ) -> Result<Self, OptionsError> {
        options.validate()?;
        let secrets = Secrets::read(&options)?;
        let io = IoRuntime::start()?;
        let resolver = resolver(io.handle());
        let identity = Identity {
            app_id: options.app_id.clone(),
            instance: format!("{}/{}", gethostname::gethostname().to_string_lossy(), std::process::id()),
        };
        Ok(Self { inner: Arc::new(Inner { options, secrets, resolver, io, identity }) })
    }

    /// The options it was made with. Their password does not show in `Debug`.
    pub fn options(&self) -> &BrokerOptions {
        &self.inner.options
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    fn secrets(&self) -> &Secrets {
        &self.inner.secrets
    }

    /// Reads the files with secrets again. A file system that hangs leaves them as they are.
    async fn refresh_secrets(&self, deadline: Instant) {
        let inner = Arc::clone(&self.inner);
        let read = self.io_handle().spawn_blocking(move || inner.secrets.refresh(&inner.options));
        drop(tokio::time::timeout_at(deadline.into(), read).await);
    }

    fn resolver(&self) -> &Resolver {
        &self.inner.resolver
    }

    /// Where lapin's tasks run.
    pub(crate) fn io_handle(&self) -> tokio::runtime::Handle {
        self.inner.io.handle()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

/// One thread for lapin's heartbeats and internal commands.
///
/// On the application's runtime a handler that computes without yielding would stop them, and the broker would take
/// the connection for dead.
#[derive(Debug)]
struct IoRuntime(Option<tokio::runtime::Runtime>);

impl IoRuntime {
    fn start() -> Result<Self, OptionsError> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("jm-mq-io")
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| OptionsError::new("broker", error, "a process that may start another thread"))
    }

    fn handle(&self) -> tokio::runtime::Handle {
        match &self.0 {
            Some(runtime) => runtime.handle().clone(),
            None => unreachable!("the runtime is only taken when the broker is dropped"),
        }
    }
}

impl Drop for IoRuntime {
    fn drop(&mut self) {
        // The last clone may be dropped in async code, where tokio forbids waiting for a runtime's end.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
