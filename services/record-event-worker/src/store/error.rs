//! What can go wrong with a database.

use std::{path::PathBuf, time::Duration};

use jm_mq_core::{HandlerError, OptionsError};
use sqlx::migrate::MigrateError;

/// Why something could not be stored or read. No text of it has an address, a password or a record's content.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An option cannot be used as it stands.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The folder of the SQLite file is missing. It is not made: it may be a volume that was not mounted.
    #[error("there is no folder {} for the database; make it, or change database.url", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
    },
    /// The database cannot be reached, or refuses us.
    #[error("cannot open the database {database}")]
    Open {
        /// The file, or host, port and name.
        database: String,
        /// What it said.
        #[source]
        source: sqlx::Error,
    },
    /// The schema cannot be brought up to date. Nothing was changed.
    #[error("cannot bring the schema of the database {database} up to date")]
    Migrate {
        /// The file, or host, port and name.
        database: String,
        /// What it said.
        #[source]
        source: MigrateError,
    },
    /// The database did not let us begin in time.
    #[error("the database {database} was not ready within {after:?}")]
    Slow {
        /// The file, or host, port and name.
        database: String,
        /// How long we waited.
        after: Duration,
    },
    /// A statement failed: locked, full, lost, restarted. Nothing of its transaction is stored.
    #[error("could not {doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// A transaction took too long: the database hangs, or the way to it was lost without a word. Its connection was
    /// closed, and nothing of it is stored, unless it was lost in the middle of its commit.
    #[error("the database did not do its part of a transaction within {after:?}")]
    Stuck {
        /// How long it had.
        after: Duration,
    },
    /// What is stored is not what this version writes. Somebody else wrote it, or a newer version.
    #[error("what is stored as {what} of record {record} cannot be read: {reason}")]
    Unreadable {
        /// A stage's name, or `content`.
        what: &'static str,
        /// The record's id.
        record: String,
        /// Where and why, without the text.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same will happen however often it is tried.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Options(_) | Self::Folder { .. } | Self::Unreadable { .. } => true,
            Self::Migrate { source, .. } => match source {
                // Of another version of this program, or ended in the middle.
                MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) | MigrateError::Dirty(_) => true,
                // Whatever else there may be, the connection or a lock among it.
                _ => false,
            },
            Self::Open { .. } | Self::Slow { .. } | Self::Query { .. } | Self::Stuck { .. } => false,
        }
    }

    pub(crate) fn into_handler_error(self) -> HandlerError {
        if self.is_permanent() { HandlerError::permanent(self) } else { HandlerError::retryable(self) }
    }

    /// For `map_err`: what was being done when the database failed.
    pub(super) fn query(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Query { doing, source }
    }

    /// JSON's own error would quote the text.
    pub(super) fn unreadable(what: &'static str, record: &str, error: &serde_json::Error) -> Self {
        let reason = format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column());
        Self::Unreadable { what, record: record.to_owned(), reason }
    }
}
