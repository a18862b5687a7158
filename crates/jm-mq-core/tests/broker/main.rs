//! The delivery contract on a real RabbitMQ.
//!
//! One binary, so that all tests which leave the node alone share one; each has a virtual host of its own on it.
//! Tests that kill, freeze or block a node start another one.

mod support;

mod publishing;
mod settlement;
mod wire;
