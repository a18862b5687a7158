//! The same configuration for programs that are no workers: an operator's tool.

use std::{ffi::OsString, path::Path};

use jm_mq_core::{BrokerOptions, ConsumerOptions, PublisherOptions, Topology};

use super::{Configuration, Problem, Sections, Settings, environment, layers};
use crate::worker::Worker;

/// What a worker would consume with, as its process would read it.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Where its broker is.
    pub rabbitmq: BrokerOptions,
    /// What it declares.
    pub topology: Topology,
    /// How it consumes.
    pub consumer: ConsumerOptions,
    /// How it publishes.
    pub publisher: PublisherOptions,
}

/// Reads a worker's configuration as its own process would, and `S` besides.
///
/// # Errors
///
/// All that is wrong, at least one problem.
pub fn of_worker<S: Settings>(
    worker: &Worker,
    folder: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(WorkerOptions, S), Vec<Problem>> {
    let Configuration { common, settings, .. } = Configuration::<S>::load(worker, folder, environment)?;
    let options = WorkerOptions {
        rabbitmq: common.rabbitmq,
        topology: common.topology,
        consumer: common.consumer,
        publisher: common.publisher,
    };
    Ok((options, settings))
}

/// Reads the configuration of a program that consumes nothing: only what `S` reads. Its file is `<name>.yaml`, and
/// `defaults` is the built-in one.
///
/// # Errors
///
/// All that is wrong, at least one problem.
pub fn of_tool<S: Settings>(
    name: &'static str,
    defaults: &'static str,
    folder: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<S, Vec<Problem>> {
    let tool = Worker { name, about: "", version: "", queue: "", types: &[], answers_to: &[], defaults };
    let mut problems = Vec::new();
    let environment = environment::ours(environment, &mut problems);
    let layers = layers(&tool, folder, &environment, &mut problems);
    let mut sections = Sections::new(layers, problems);
    let settings = S::read(&mut sections);
    sections.finish(&environment)?;
    Ok(settings)
}
