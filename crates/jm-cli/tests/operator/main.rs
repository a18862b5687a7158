//! `jm` as an operator runs it: the binary, against a real private broker.

mod command_line;
mod doctor;
mod ground;
mod shell;
mod status;
mod support;
mod topology;
