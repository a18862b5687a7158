//! What happened in a campaign: events with the time of the machine's monotonic clock, a line each.
//!
//! Three kinds of witness write them, each to a file of its own: the `tap` that sees the frames between a
//! process and the broker, the processes' own handlers and publishers, and the campaign, which does the faults. What the
//! core believes about itself is not among them.

mod event;
mod line;
mod log;
mod merge;

pub use event::{EVERYONE, Event, FaultKind, Outcome, Role, Verdict, What};
pub use line::Field;
pub use log::Log;
pub use merge::{EXTENSION, Merge};

use std::io;

/// Why a history could not be read or written.
pub type Result<T> = io::Result<T>;
