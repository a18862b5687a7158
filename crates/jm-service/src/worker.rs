//! Which worker a binary is.

/// What distinguishes one worker's binary from another's, apart from its handlers.
#[derive(Clone, Copy, Debug)]
pub struct Worker {
    /// The binary's name, and that of its file in the configuration's folder: `asr-worker`.
    pub name: &'static str,
    /// What it does, in one line; shown by `--help`.
    pub about: &'static str,
    /// Its version, usually `env!("CARGO_PKG_VERSION")`.
    pub version: &'static str,
    /// The queue it consumes unless `consumer.queue` says otherwise; exchange and routing key have the same name.
    pub queue: &'static str,
    /// The types of the messages it handles: what aliases may stand for.
    pub types: &'static [&'static str],
    /// The queues its answers go to. Each is declared whenever the consumer connects, with exchange and binding.
    pub answers_to: &'static [&'static str],
    /// Its own defaults, as YAML: usually `include_str!` of its file in `config/`, so that the bare binary works with
    /// the same options as a deployment.
    pub defaults: &'static str,
}
