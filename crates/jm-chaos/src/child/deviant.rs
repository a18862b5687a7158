//! Workers that do one thing wrong, with plain lapin: the checker has to find each of them.

use std::sync::Arc;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::Job;
use crate::history::Log;

/// What a worker does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deviation {
    /// It acks before its handler has run.
    AckFirst,
    /// It forgets to hand back what it could not do.
    NackDropped,
    /// It acks without the confirm of its answer.
    AnswerUnconfirmed,
    /// It settles on a new channel what came by the old one.
    SettledElsewhere,
    /// It stops without handing back what it had not begun.
    BufferForgotten,
}

pub(super) async fn run(_job: &Job, _deviation: Deviation, _log: Arc<Log>) -> Result<()> {
    bail!("not yet")
}
