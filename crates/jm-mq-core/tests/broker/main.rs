//! The delivery contract on a real RabbitMQ.
//!
//! One binary, so that all tests which leave the node alone share one; each has a virtual host of its own on it.
//! Tests that kill, freeze or block a node start another one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say so at once"
)]

mod support;

mod acks;
mod bodies;
mod connecting;
mod draining;
mod hostile;
mod observing;
mod outages;
mod publishing;
mod refusals;
mod settlement;
mod versions;
mod wire;
