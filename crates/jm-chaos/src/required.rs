//! What a campaign cannot do without.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// The exit code of a campaign that could not be run.
const FAILED: i32 = 2;

/// The result; or the end of the process, which says what is wrong: a campaign that goes on without a part of its record, or
/// of its cast, would find that all is well.
pub(crate) fn required<T, E: Display>(otherwise: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        // Where this cannot be said either, the code says it.
        let _ = writeln!(io::stderr(), "jm-chaos: {otherwise}: {error:#}");
        std::process::exit(FAILED);
    })
}
