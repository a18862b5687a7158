//! The program `jm-models`, with the real pip and an index on this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say so at once")]

mod bench;
mod fetching;
mod index;
mod interrupted;
mod pip;
mod telling;
