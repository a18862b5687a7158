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
mod credentials;
mod draining;
mod forgotten;
mod hostile;
mod late_confirms;
mod observing;
mod outages;
mod poison;
mod publishing;
mod queue_types;
mod refusals;
mod replies;
mod returns;
mod settlement;
mod strangers;
mod versions;
mod wire;
