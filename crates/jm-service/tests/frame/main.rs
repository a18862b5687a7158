//! What every worker's process promises, seen from the outside: a real process, a real broker, real servers.

mod command_line;
mod health;
mod observing;
mod reports;
mod support;
