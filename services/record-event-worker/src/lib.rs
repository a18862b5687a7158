//! Record events: what producers tell of records, and what the workers found out about them (`jm.coreRecordEvent`).
//!
//! ```text
//! message ──> Event ──> RecordEvents: one transaction ──────────────────────────────> answers: the tasks to start
//!             (typed)     lock the record's row, read  ──> state::apply (pure)
//!                         write what changed           <── pipeline::plan (pure)
//! ```
//!
//! Events arrive in any order, more than once, and several at a time. What the store ends up with depends on none of
//! that, and each task is started once: see [`state`] and [`pipeline`] for how.
//!
//! In reading order: [`event`] (what a message says), [`state`] (what it changes), [`pipeline`] (what is due then),
//! [`follow_up`] (the tasks' messages), [`store`] (SQLite or PostgreSQL), [`handler`] (all of it together),
//! [`metrics`].

pub mod event;
pub mod follow_up;
pub mod handler;
pub mod metrics;
pub mod pipeline;
pub mod state;
pub mod store;
mod worker;

pub use handler::RecordEvents;
pub use pipeline::PipelineOptions;
pub use store::{Connections, DatabaseOptions, DeletedUpTo, RecordView, StartedTask, Store, StoreError};
pub use worker::WORKER;
