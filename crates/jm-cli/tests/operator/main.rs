//! `jm` as an operator runs it: the binary, against a real private broker.

mod canaries;
mod command_line;
mod dead_letters;
mod doctor;
mod ground;
mod looking;
mod records;
mod replaying;
mod shell;
mod status;
mod support;
mod topology;
