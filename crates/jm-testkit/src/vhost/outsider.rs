//! A connection of the test kit's own, kept until it breaks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use lapin::options::ConfirmSelectOptions;
use lapin::types::ShortString;
use lapin::uri::{AMQPAuthority, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::{Mutex, MutexGuard};

use crate::limit::within;

/// The name that the kit's connections show, by which [`super::Vhost::close_connections`] spares them.
pub(super) const CONNECTION_NAME: &str = "jm-testkit";

/// Connecting takes milliseconds, unless the node is down or frozen.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// One channel on a connection of its own, opened when needed, and anew when it broke.
#[derive(Clone, Debug)]
pub(super) struct Outsider {
    port: u16,
    vhost: String,
    user: String,
    password: String,
    kept: Arc<Mutex<Option<Channel>>>,
}

/// The channel, for one use at a time: errors of one must not hit another.
pub(super) struct Kept<'a>(MutexGuard<'a, Option<Channel>>);

impl Kept<'_> {
    pub(super) fn channel(&self) -> Result<&Channel> {
        self.0.as_ref().context("the test kit's channel is closed")
    }
}

impl Outsider {
    pub(super) fn new(port: u16, vhost: &str, user: &str, password: &str) -> Self {
        Self {
            port,
            vhost: vhost.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            kept: Arc::default(),
        }
    }

    /// The kept channel, in confirm mode.
    pub(super) async fn channel(&self) -> Result<Kept<'_>> {
        let mut kept = self.kept.lock().await;
        if !kept.as_ref().is_some_and(|channel| channel.status().connected()) {
            *kept = None;
            let channel = open(self.port, &self.vhost, &self.user, &self.password).await?;
            let confirms = channel.confirm_select(ConfirmSelectOptions::default());
            within(CONNECT_LIMIT, "switch the test kit's channel to confirms", confirms).await?;
            *kept = Some(channel);
        }
        Ok(Kept(kept))
    }
}

/// A channel on a new connection, which closes when the channel's last handle is dropped.
pub(super) async fn open(port: u16, vhost: &str, user: &str, password: &str) -> Result<Channel> {
    let uri = AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: user.to_owned(), password: password.to_owned() },
            host: "127.0.0.1".to_owned(),
            port,
        },
        vhost: vhost.to_owned(),
        query: lapin::uri::AMQPQueryString::default(),
    };
    let properties = ConnectionProperties::default().with_connection_name(CONNECTION_NAME.into());
    let what = format!("open a connection to virtual host {vhost:?} as user {user:?} at 127.0.0.1:{port}");
    within(CONNECT_LIMIT, &what, async {
        let connection = Connection::connect_uri(uri, properties).await?;
        connection.create_channel().await
    })
    .await
}

/// A name of AMQP, which has at most 255 bytes.
pub(super) fn short(name: &str) -> Result<ShortString> {
    ShortString::try_new(name).with_context(|| format!("{name:?} is too long for a name"))
}
