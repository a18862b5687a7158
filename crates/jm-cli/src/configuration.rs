//! The same configuration as the workers': each worker's queue and options as its own process would read them, and jm's
//! own connection.

pub(crate) mod fleet;
mod management;

use std::env;

use jm_mq_core::{BrokerOptions, ConsumerOptions, DeadLetter, OptionsError, PublisherOptions, Topology};
use jm_service::{
    Sections, Settings, Worker,
    config::{WorkerOptions, of_tool, of_worker},
};
use serde::de::IgnoredAny;

pub(crate) use self::management::ManagementOptions;
use crate::{command_line::Global, failure::Failure};

/// All that is configured.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    /// Where the broker is, and who the operator is to it.
    pub(crate) rabbitmq: BrokerOptions,
    pub(crate) publisher: PublisherOptions,
    pub(crate) management: ManagementOptions,
    /// The chosen workers, in the fleet's order.
    pub(crate) workers: Vec<ConfiguredWorker>,
    global: Global,
}

/// A worker, and what its process would consume with.
#[derive(Clone, Debug)]
pub(crate) struct ConfiguredWorker {
    pub(crate) worker: &'static Worker,
    /// Where its process would connect, and as whom.
    pub(crate) rabbitmq: BrokerOptions,
    pub(crate) topology: Topology,
    pub(crate) consumer: ConsumerOptions,
}

impl ConfiguredWorker {
    /// The queue it consumes.
    pub(crate) fn queue(&self) -> &str {
        self.topology.name()
    }

    /// Whether it keeps its dead letters itself; otherwise a policy of the broker does, or nobody.
    pub(crate) fn keeps_dead_letters(&self) -> bool {
        self.consumer.dead_letter == DeadLetter::Queue
    }

    /// Where its dead letters are kept, whether it or a policy of the broker puts them there.
    pub(crate) fn dead_letter_queue(&self) -> String {
        self.consumer.dead_letter_queue.clone().unwrap_or_else(|| format!("{}.dead", self.queue()))
    }
}

impl Configuration {
    pub(crate) fn load(global: &Global) -> Result<Self, Failure> {
        let folder = global.config.as_deref();
        let Own { mut rabbitmq, publisher, mut management } =
            of_tool("jm", include_str!("../../../config/jm.yaml"), folder, env::vars_os())?;
        if rabbitmq.app_id == BrokerOptions::default().app_id {
            "jm".clone_into(&mut rabbitmq.app_id);
        }
        if let Some(url) = &global.management {
            management.url = Some(url.clone());
            management.validate()?;
        }
        let chosen = |worker: &&&'static Worker| {
            global.worker.is_empty() || global.worker.iter().any(|name| name == worker.name)
        };
        let workers = fleet::FLEET.iter().filter(chosen).map(|worker| {
            let (options, OfOthers) = of_worker(worker, folder, env::vars_os())?;
            let WorkerOptions { rabbitmq, topology, consumer, .. } = options;
            Ok(ConfiguredWorker { worker, rabbitmq, topology, consumer })
        });
        let workers = workers.collect::<Result<_, Failure>>()?;
        Ok(Self { rabbitmq, publisher, management, workers, global: global.clone() })
    }

    /// The worker of a queue, by the queue's name or the worker's.
    pub(crate) fn worker_of(&self, name: &str) -> Result<&ConfiguredWorker, Failure> {
        let found = self.workers.iter().find(|worker| worker.queue() == name || worker.worker.name == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = self.workers.iter().map(ConfiguredWorker::queue).collect();
            Failure::missing(format_args!("no worker consumes a queue `{name}`; known are {}", known.join(", ")))
        })
    }

    /// The workers of the named queues; all, if none is named.
    pub(crate) fn workers_of(&self, names: &[String]) -> Result<Vec<&ConfiguredWorker>, Failure> {
        if names.is_empty() {
            return Ok(self.workers.iter().collect());
        }
        names.iter().map(|name| self.worker_of(name)).collect()
    }

    /// The worker's own sections, such as `engine` or `database`, read as its process would read them.
    pub(crate) fn settings_of<S: Settings>(&self, worker: &'static Worker) -> Result<S, Failure> {
        let (_, settings) = of_worker(worker, self.global.config.as_deref(), env::vars_os())?;
        Ok(settings)
    }
}

/// What jm itself reads.
struct Own {
    rabbitmq: BrokerOptions,
    publisher: PublisherOptions,
    management: ManagementOptions,
}

impl Settings for Own {
    fn read(sections: &mut Sections) -> Self {
        for section in ["consumer", "http", "log", "sentry"] {
            pass_over(sections, section);
        }
        let OfOthers = OfOthers::read(sections);
        Self {
            rabbitmq: sections.read("rabbitmq", BrokerOptions::validate),
            publisher: sections.read("publisher", PublisherOptions::validate),
            management: sections.read("management", ManagementOptions::validate),
        }
    }
}

/// The sections that single workers have, and jm. An environment variable for one of them is no mistake of the others'.
struct OfOthers;

impl Settings for OfOthers {
    fn read(sections: &mut Sections) -> Self {
        for section in ["audio", "database", "engine", "management", "pipeline"] {
            pass_over(sections, section);
        }
        Self
    }
}

/// Whoever needs a section reads it; for everybody else it may be as it is.
pub(crate) fn pass_over(sections: &mut Sections, section: &'static str) {
    sections.read(section, |_: &IgnoredAny| Ok::<_, OptionsError>(()));
}
