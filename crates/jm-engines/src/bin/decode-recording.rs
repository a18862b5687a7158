//! The process that decodes recordings, on its own: for the tests, whose program is not ours.

use std::process::ExitCode;

fn main() -> ExitCode {
    jm_engines::audio::decode_if_asked().unwrap_or(ExitCode::FAILURE)
}
