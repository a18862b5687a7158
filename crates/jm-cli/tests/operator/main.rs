//! `jm` as an operator runs it: the binary, against a real private broker.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

mod asking;
mod canaries;
mod command_line;
mod counting;
mod dead_letters;
mod doctor;
mod drawing;
mod dropping;
mod ground;
mod hostile;
mod looking;
mod records;
mod replaying;
mod rights;
mod shell;
mod status;
mod support;
mod terminal;
mod topology;
mod workers;
