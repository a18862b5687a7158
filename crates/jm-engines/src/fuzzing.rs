//! What must hold of recordings and of their addresses, whoever sends them: for property tests and for `make fuzz`. Not
//! part of the crate otherwise.

pub use crate::audio::fuzzing::{address, recording, resolved};
