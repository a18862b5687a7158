//! A connection of the pool for the length of one transaction.
//!
//! A network can fail without a word: nothing arrives, and nothing says so for a quarter of an hour. The driver has no
//! limits of its own for a statement, for a connection's way back into the pool, nor for its end; with each of these,
//! a place in the pool would be gone for as long. So all of them have limits here, and a transaction that did not end
//! as it should takes its connection with it: closing a socket waits for nobody, and is a rollback too.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{Any, AnyConnection, AnyPool, pool::PoolConnection};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout, timeout_at},
};

use super::StoreError;

/// The longest wait for the answer to a ping: one trip to the database and back.
const PING_LIMIT: Duration = Duration::from_secs(2);
/// The longest way back into the pool: a ping.
const RETURN_LIMIT: Duration = PING_LIMIT;

/// A transaction and its connection. Dropped before it was committed or rolled back, it closes the connection.
pub(super) struct Session {
    connection: PoolConnection<Any>,
    deadline: Deadline,
    /// Whether the connection is as it was before the transaction.
    clean: bool,
}

/// When a transaction is given up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Session {
    /// Waits for a connection of the pool, and begins a transaction that takes no longer than `limit`.
    pub(super) async fn begin(pool: &AnyPool, statement: &'static str, limit: Duration) -> Result<Self, StoreError> {
        let connection = pool.acquire().await.map_err(StoreError::query("begin a transaction"))?;
        let deadline = Deadline { at: Instant::now() + limit, limit };
        let mut session = Self { connection, deadline, clean: false };
        session.run(statement, "begin a transaction").await?;
        Ok(session)
    }

    /// When this transaction is given up: for what is done in it.
    pub(super) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Makes it last.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.run("COMMIT", "commit").await?;
        self.clean = true;
        Ok(())
    }

    /// Ends it as if it had never begun.
    pub(super) async fn roll_back(mut self) -> Result<(), StoreError> {
        self.run("ROLLBACK", "roll back").await?;
        self.clean = true;
        Ok(())
    }

    async fn run(&mut self, statement: &'static str, doing: &'static str) -> Result<(), StoreError> {
        let deadline = self.deadline;
        let run = sqlx::raw_sql(statement).execute(&mut *self.connection);
        deadline.meet(async { run.await.map(drop).map_err(StoreError::query(doing)) }).await
    }
}

impl Deadline {
    /// Does it in time.
    pub(super) async fn meet<T>(self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        timeout_at(self.at, work).await.unwrap_or(Err(StoreError::Stuck { after: self.limit }))
    }
}

impl Deref for Session {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What the pool would do by itself, in a task without a limit. Whoever drops this future, begun or not, closes
        // the connection and gives its place back.
        let returning = self.connection.return_to_pool();
        if self.clean
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(RETURN_LIMIT, returning));
        }
    }
}

/// Whether an idle connection still answers. The driver's own question waits until the pool's limit, and then the event
/// has failed.
pub(super) async fn check(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    use sqlx::Connection as _;

    match timeout(PING_LIMIT, connection.ping()).await {
        Ok(answered) => answered.map(|()| true),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}
