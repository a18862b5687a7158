//! A virtual host of one test, and the test's view into it from outside.

mod access;
mod connections;
mod messages;
mod outsider;
mod queues;
mod tasks;

use std::sync::Arc;

use anyhow::Result;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use self::outsider::Outsider;
pub use self::queues::QueueCounts;
pub use self::tasks::Received;
use crate::node::{Erlang, Ports};

/// A virtual host with a user of its own: what the code under test connects to. Clones are the same virtual host.
///
/// What it does itself, it does with another user and on connections of its own, so that a test may revoke its user's
/// permissions or close its connections and still look. They live on the runtime that used them first: one test each.
#[derive(Clone, Debug)]
pub struct Vhost {
    /// The name of the virtual host.
    pub name: String,
    /// Its user, with all permissions in it.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// The node's port for AMQP on 127.0.0.1.
    pub port: u16,
    /// The node's port for AMQP over TLS, if it has one.
    pub tls_port: Option<u16>,
    erlang: Arc<Erlang>,
    /// Publishes: in an alarm the broker stops to read from a connection that publishes.
    publishing: Outsider,
    /// Does everything else.
    looking: Outsider,
}

impl Vhost {
    pub(crate) async fn add(
        erlang: &Arc<Erlang>,
        name: &str,
        user: &str,
        password: &str,
        ports: &Ports,
    ) -> Result<Self> {
        let vhost = Self::of_node(erlang, name, user, password, ports);
        vhost.add_user(user, password).await?;
        vhost.add_user(&access::helper_of(name), password).await?;
        vhost.create().await?;
        Ok(vhost)
    }

    /// What there is of it stays, however far an earlier attempt got.
    pub(crate) async fn keep(
        erlang: &Arc<Erlang>,
        name: &str,
        user: &str,
        password: &str,
        ports: &Ports,
    ) -> Result<Self> {
        let vhost = Self::of_node(erlang, name, user, password, ports);
        vhost.keep_user(user, password).await?;
        vhost.keep_user(&access::helper_of(name), password).await?;
        if vhost.exists().await? {
            vhost.permit().await?;
        } else {
            vhost.create().await?;
        }
        Ok(vhost)
    }

    /// The same by another node of its cluster.
    pub(crate) fn at(&self, erlang: &Arc<Erlang>, ports: &Ports) -> Self {
        Self::of_node(erlang, &self.name, &self.user, &self.password, ports)
    }

    fn of_node(erlang: &Arc<Erlang>, name: &str, user: &str, password: &str, ports: &Ports) -> Self {
        let helper = access::helper_of(name);
        Self {
            name: name.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            port: ports.amqp,
            tls_port: ports.amqps,
            erlang: Arc::clone(erlang),
            publishing: Outsider::new(ports.amqp, name, &helper, password),
            looking: Outsider::new(ports.amqp, name, &helper, password),
        }
    }

    /// The virtual host's address, `amqp://user:password@127.0.0.1:port/name`, with everything escaped.
    pub fn uri(&self) -> String {
        self.uri_at(self.port)
    }

    /// The same address at another port, such as a [`crate::TcpProxy`]'s.
    pub fn uri_at(&self, port: u16) -> String {
        let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (user, password, name) = (escaped(&self.user), escaped(&self.password), escaped(&self.name));
        format!("amqp://{user}:{password}@127.0.0.1:{port}/{name}")
    }

    fn erlang(&self) -> &Erlang {
        &self.erlang
    }

    /// How errors call a queue.
    fn of(&self, queue: &str) -> String {
        format!("queue {queue:?} of virtual host {:?}", self.name)
    }
}
