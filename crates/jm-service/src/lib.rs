//! What a worker's binary needs round its handler.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use jm_mq_core::{Context, HandlerError, Router};
//! use jm_service::{NoSettings, Service, Worker};
//!
//! const WORKER: Worker = Worker {
//!     name: "greet-worker",
//!     about: "Greets whoever is named in a task from jm.greet",
//!     version: env!("CARGO_PKG_VERSION"),
//!     queue: "jm.greet",
//!     types: &["greet"],
//!     answers_to: &[],
//!     defaults: "consumer: { concurrency: 4 }",
//! };
//!
//! fn main() -> ExitCode {
//!     jm_service::run(&WORKER, async |_: &Service<NoSettings>| {
//!         Ok(Router::new().on_type("greet", async |name: String, _: Context| {
//!             tracing::info!(name, "hello");
//!             Ok::<_, HandlerError>(())
//!         }))
//!     })
//! }
//! ```
//!
//! From the start to the end of a process: the command line; the [configuration](config), whose every
//! mistake is reported by key, value and source; logs; error reports to Sentry; metrics and health over HTTP;
//! the consumer, until a signal; a drain; an [`exit`] code.

mod command_line;
pub mod config;
pub mod escape;
pub mod exit;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod http;
mod logging;
mod reporting;
mod service;
mod worker;

pub use config::{NoSettings, Sections, Settings};
pub use service::{Service, StartError, run};
pub use worker::Worker;
