//! What every worker's process promises, seen from the outside: a real process, a real broker, real servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

mod command_line;
mod health;
mod names;
mod observing;
mod reports;
mod signals;
mod support;
