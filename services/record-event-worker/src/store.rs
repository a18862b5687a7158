//! Records, results and tasks under way, in SQLite or PostgreSQL.
//!
//! Both are reached through sqlx's `Any` driver, by one text of SQL: what they differ in is in this file. SQLite is
//! written by one connection, which takes the write lock when a transaction begins (a lock taken later could be
//! refused without a wait); PostgreSQL by as many as configured, each of which locks its record's row.
//!
//! # Rows without content
//!
//! Two kinds of them are never removed. A deleted record leaves its row in `records`, without content: it is what
//! refuses the events that still arrive for the record, and nobody can know which one is the last. And a result whose
//! record was never announced leaves a placeholder of revision 0, with the result. The one costs a hundred bytes or so,
//! the other does not happen where producers are in order. An operator who wants them gone does it while nothing can
//! arrive any more, with this worker's queue, its dead letters and the four queues of tasks all empty:
//!
//! ```sql
//! DELETE FROM results WHERE record_id IN (SELECT id FROM records WHERE content IS NULL);
//! DELETE FROM records WHERE content IS NULL;
//! ```

mod error;
mod options;
mod session;
mod transaction;
mod view;

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, time::Duration};

use sqlx::{
    AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions as _, Connection as _,
    any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers},
    migrate::{MigrateError, Migrator},
};

pub use self::error::StoreError;
pub use self::options::DatabaseOptions;
use self::options::Target;
pub(crate) use self::transaction::Known;
pub use self::view::{DeletedUpTo, RecordView, StartedTask};

static MIGRATOR: Migrator = sqlx::migrate!();

/// What opening takes at most, with its migrations: another replica may be at them.
const OPEN_LIMIT: Duration = Duration::from_mins(1);
/// What connecting takes at most.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The longest wait for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a transaction takes at most besides its wait for a lock. With the default of that and [`ACQUIRE_TIMEOUT`] it is
/// 25 s in all, well below the `handler_timeout` of a minute that this worker is configured with.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at a SQLite file that another process is about to change into WAL mode.
const WAL_RETRY: Duration = Duration::from_millis(20);

/// The database. Cheap to clone; all clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    pool: AnyPool,
    backend: Backend,
    /// What a transaction takes at most.
    limit: Duration,
}

/// A pool's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Those that work for somebody, or are being opened.
    pub in_use: u32,
    /// Those that are open and wait.
    pub idle: u32,
    /// What the pool may open at most.
    pub max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Sqlite,
    Postgres,
}

impl Store {
    /// Connects, and brings the schema up to date. Several processes may do so at once.
    ///
    /// # Errors
    ///
    /// When an option is out of range, the database cannot be reached or is newer than this program.
    pub async fn open(options: &DatabaseOptions) -> Result<Self, StoreError> {
        options.validate()?;
        let target = options.target()?;
        if let Some(folder) = target.folder().filter(|folder| !folder.is_dir()) {
            return Err(StoreError::Folder { folder: folder.to_owned() });
        }
        if let Target::Sqlite(file) = &target {
            // What users wrote is for nobody else's eyes. SQLite gives its other files the same mode; it reports what is
            // wrong with the place itself. A file that exists keeps its mode.
            let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        }
        let address = options.driver_address(&target, true)?;
        let prepared = prepare(options, &target, &address);
        let slow = |_| StoreError::Slow { database: target.shown(), after: OPEN_LIMIT };
        tokio::time::timeout(OPEN_LIMIT, prepared).await.map_err(slow)??;
        Self::pool(options, &target)
    }

    /// Connects to a database that a worker has opened before, as it is: for tools. Makes no file and no table, and
    /// finds out with the first query whether there are any.
    ///
    /// # Errors
    ///
    /// When an option is out of range.
    pub fn open_existing(options: &DatabaseOptions) -> Result<Self, StoreError> {
        options.validate()?;
        Self::pool(options, &options.target()?)
    }

    fn pool(options: &DatabaseOptions, target: &Target) -> Result<Self, StoreError> {
        install_default_drivers();
        let backend = Backend::of(target);
        // Not even the pool makes a file: one that is gone now was there a moment ago.
        let address = options.driver_address(target, false)?;
        let limit = options.lock_timeout + TRANSACTION_LIMIT;
        let settings = backend.settings(options.lock_timeout, limit);
        let pool = AnyPoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).after_connect(move |connection, _| {
            let settings = settings.clone();
            Box::pin(async move { execute(connection, settings).await })
        });
        // Not the driver's test: it has no limit.
        let pool = pool.test_before_acquire(false);
        let pool = pool.before_acquire(|connection, _| Box::pin(session::check(connection)));
        let pool = match backend {
            Backend::Sqlite => pool.max_connections(1).idle_timeout(None).max_lifetime(None),
            Backend::Postgres => pool.max_connections(options.connections),
        };
        Ok(Self { pool: pool.connect_lazy_with(address), backend, limit })
    }

    /// What its pool holds at this moment; `None` once it is closed.
    pub fn connections(&self) -> Option<Connections> {
        if self.pool.is_closed() {
            return None;
        }
        let size = self.pool.size();
        // Counted apart from the size, and so perhaps a moment later.
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX).min(size);
        Some(Connections { in_use: size - idle, idle, max: self.pool.options().get_max_connections() })
    }

    /// Waits for what is under way and closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Backend {
    fn of(target: &Target) -> Self {
        match target {
            Target::Sqlite(_) => Self::Sqlite,
            Target::Postgres(_) => Self::Postgres,
        }
    }

    /// How a transaction that writes begins.
    fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// How a transaction begins that reads one moment's state in several statements.
    fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// What each connection is told at its beginning.
    fn settings(self, lock_timeout: Duration, transaction_limit: Duration) -> String {
        let milliseconds = lock_timeout.as_millis();
        match self {
            // FULL: a message is acked after the commit, which therefore has to survive a power cut.
            Self::Sqlite => format!("PRAGMA busy_timeout = {milliseconds}; PRAGMA synchronous = FULL"),
            // A worker that hangs in a transaction, or was cut off, must not keep its record from the others for longer
            // than it would itself.
            Self::Postgres => format!(
                "SET lock_timeout = {milliseconds}; SET idle_in_transaction_session_timeout = {}",
                transaction_limit.as_millis()
            ),
        }
    }
}

/// The first connection: it finds out what is wrong, and brings the schema up to date.
async fn prepare(options: &DatabaseOptions, target: &Target, address: &AnyConnectOptions) -> Result<(), StoreError> {
    install_default_drivers();
    let open = |source| StoreError::Open { database: target.shown(), source };
    let migrate = |source| StoreError::Migrate { database: target.shown(), source };
    let slow = |_| StoreError::Slow { database: target.shown(), after: CONNECT_LIMIT };
    let mut connection = tokio::time::timeout(CONNECT_LIMIT, address.connect()).await.map_err(slow)?.map_err(open)?;
    match Backend::of(target) {
        Backend::Sqlite => {
            let settings = Backend::Sqlite.settings(options.lock_timeout, OPEN_LIMIT);
            execute(&mut connection, settings).await.map_err(open)?;
            write_ahead_log(&mut connection, options.lock_timeout).await.map_err(open)?;
            // The driver's own lock does nothing here. The file's write lock is one, and migrations nest in it.
            let mut transaction = connection.begin_with(Backend::Sqlite.begin()).await.map_err(open)?;
            MIGRATOR.run_direct(None, &mut *transaction, false).await.map_err(migrate)?;
            transaction.commit().await.map_err(|source| migrate(MigrateError::Execute(source)))?;
        }
        // The driver takes a lock on the server. No limit but ours for that wait.
        Backend::Postgres => MIGRATOR.run_direct(None, &mut connection, false).await.map_err(migrate)?,
    }
    // It has done its work; how it ends does not matter.
    let _ = connection.close().await;
    Ok(())
}

/// Readers and the writer then do not wait for each other. The file remembers it. When two processes change a new file
/// at once, SQLite refuses one of them without the usual wait.
async fn write_ahead_log(connection: &mut AnyConnection, limit: Duration) -> Result<(), sqlx::Error> {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        match execute(connection, "PRAGMA journal_mode = WAL".to_owned()).await {
            Err(sqlx::Error::Database(error))
                if error.message().contains("locked") && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(WAL_RETRY).await;
            }
            other => return other,
        }
    }
}

/// Runs statements of ours that nobody else has a part in.
async fn execute(connection: &mut AnyConnection, statements: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.map(drop)
}
