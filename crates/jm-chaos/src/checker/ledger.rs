//! What is known of messages, connections and processes at one moment of the history.

mod wire;

use std::collections::{BTreeSet, HashMap};

use self::wire::Channel;
pub(super) use self::wire::{Connection, Delivery};
use super::message::Message;
use crate::{
    history::{Outcome, Role, What},
    message::{Id, Queue},
};

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) messages: HashMap<Id, Message>,
    pub(super) connections: HashMap<u32, Connection>,
    pub(super) processes: HashMap<u32, Process>,
    /// Of the ordered queue: the latest first delivery of each publisher.
    pub(super) latest_first: HashMap<u8, u64>,
    pub(super) confirms: u64,
    pub(super) deliveries: u64,
    /// Queues that were counted after the healing.
    pub(super) queues_seen: BTreeSet<Queue>,
    pub(super) unsettled_at_the_end: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) slot: u8,
    pub(super) role: Role,
    pub(super) queue: Queue,
    pub(super) attentive: bool,
    pub(super) told_to_stop: Option<u64>,
    pub(super) exited: Option<u64>,
    pub(super) aborts: u32,
}

impl Ledger {
    pub(super) fn process_of(&self, connection: u32) -> Option<(u32, &Process)> {
        let process = self.connections.get(&connection)?.process;
        Some((process, self.processes.get(&process)?))
    }

    /// Whether the process has ever connected.
    pub(super) fn connected(&self, process: u32) -> bool {
        self.connections.values().any(|connection| connection.process == process)
    }

    fn message(&mut self, id: Id) -> &mut Message {
        self.messages.entry(id).or_default()
    }

    fn channel(&mut self, connection: u32, channel: u16) -> &mut Channel {
        self.connections.entry(connection).or_default().channels.entry(channel).or_default()
    }

    /// Takes in what needs no judgement.
    pub(super) fn see(&mut self, at: u64, what: What) {
        match what {
            What::Started { process, slot, role, queue } => {
                let started =
                    Process { slot, role, queue, attentive: false, told_to_stop: None, exited: None, aborts: 0 };
                self.processes.insert(process, started);
            }
            What::Attentive { process } => {
                if let Some(process) = self.processes.get_mut(&process) {
                    process.attentive = true;
                }
            }
            What::ToldToStop { process } => {
                if let Some(process) = self.processes.get_mut(&process) {
                    process.told_to_stop = Some(at);
                }
            }
            What::Exited { process, .. } => {
                if let Some(process) = self.processes.get_mut(&process) {
                    process.exited = Some(at);
                }
            }
            What::Opened { connection, process, .. } => {
                self.connections.entry(connection).or_default().process = process;
            }
            What::Published { connection, channel, number, id, dead, .. } => {
                self.publish(connection, channel, number, id, dead);
            }
            What::Confirmed { connection, channel, number, multiple, ok } => {
                self.confirm(at, connection, channel, number, multiple, ok);
            }
            What::Returned { connection, channel, id } => self.channel(connection, channel).returned.push(id),
            What::CancelOk { connection, channel } => self.channel(connection, channel).cancel_ok = Some(at),
            What::Intended { id } => self.message(id).intended = true,
            What::Accepted { id } => self.message(id).accepted = true,
            What::RunEnded { process, id, outcome } => self.run_ended(process, id, outcome),
            What::Dead { id, poison, .. } => {
                let message = self.message(id);
                message.dead += 1;
                message.dead_as_poison |= poison;
            }
            What::Waiting { id, .. } => self.message(id).waiting += 1,
            _ => {}
        }
    }

    pub(super) fn run(&mut self, process: u32, id: Id) {
        self.message(id).by_mut(process).runs += 1;
    }

    fn run_ended(&mut self, process: u32, id: Id, outcome: Outcome) {
        match outcome {
            Outcome::Done => self.message(id).by_mut(process).successes += 1,
            Outcome::Abort => {
                if let Some(process) = self.processes.get_mut(&process) {
                    process.aborts += 1;
                }
            }
            Outcome::Retryable | Outcome::Permanent | Outcome::Panic | Outcome::Dropped => {}
        }
    }
}
