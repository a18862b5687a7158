//! Connections and channels, and what passes on them: publishes and their confirms, deliveries and their settlements.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::{Ledger, Process};
use crate::{
    history::{FaultKind, Role, Verdict},
    message::Id,
};

/// How long after an ack was written its loss can explain another delivery: the connection ended, or the broker was
/// killed, before it had taken the ack in. A link may hold it back for some seconds, and the broker notices a silent
/// peer after two heartbeats.
const ACK_AT_RISK: u64 = 30_000_000;

/// A process that is frozen (for 2 s at most) or starved reads late what has passed its tap; a reset before that takes it.
const READ_WITHIN: u64 = 3_000_000;

/// A connection of a process to a node.
#[derive(Debug, Default)]
pub(in crate::checker) struct Connection {
    pub(in crate::checker) process: u32,
    ended_at: Option<u64>,
    pub(in crate::checker) channels: HashMap<u16, Channel>,
    /// Acks of the last half minute.
    acks: VecDeque<(u64, Id)>,
}

#[derive(Debug, Default)]
pub(in crate::checker) struct Channel {
    /// By their tags.
    pub(in crate::checker) unsettled: BTreeMap<u64, Delivery>,
    /// What was unsettled when the broker closed the channel: a settlement of it may have crossed the broker's word.
    forfeited: BTreeSet<u64>,
    /// Written and not answered.
    unconfirmed: BTreeMap<u64, Publish>,
    pub(super) returned: Vec<Id>,
    pub(in crate::checker) cancel_ok: Option<u64>,
    /// Something was delivered or settled on it.
    used: bool,
    /// The latest delivery of which a first run has begun.
    latest_run: u64,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::checker) struct Delivery {
    pub(in crate::checker) id: Id,
    pub(in crate::checker) at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Publish {
    id: Id,
    dead: bool,
    /// By a worker, into the queue that it consumes.
    copy: bool,
}

impl Ledger {
    pub(super) fn publish(&mut self, connection: u32, channel: u16, number: u64, id: Id, dead: bool) {
        let process = self.connections.get(&connection).map_or(0, |connection| connection.process);
        let consumes = |known: &Process| known.role == Role::Worker && known.queue == id.queue();
        let copy = !dead && self.processes.get(&process).is_some_and(consumes);
        self.channel(connection, channel).unconfirmed.insert(number, Publish { id, dead, copy });
        // A worker answers again when it has run again.
        let done =
            id.question().and_then(|id| self.messages.get(&id)).map_or(0, |message| message.by(process).successes);
        let by = self.messages.get(&id).map(|message| message.by(process)).unwrap_or_default();
        let needed = if copy {
            // One for each delivery.
            by.copies_confirmed < by.deliveries
        } else {
            by.confirms == 0 || done > by.confirms
        };
        let needless = !needed && self.was_read(by.confirmed_by);
        let message = self.message(id);
        if dead {
            message.dead_published += 1;
        } else {
            message.published += 1;
            message.needless += u16::from(needless);
        }
    }

    /// Whether a channel was more than a question to the broker.
    pub(in crate::checker) fn was_used(&mut self, connection: u32, channel: u16) -> bool {
        channel == 0 || self.channel(connection, channel).used
    }

    /// Whether what came by a connection at a moment has been read by its process: not, if the connection ended at once.
    fn was_read(&self, (connection, at): (u32, u64)) -> bool {
        let ended = self.connections.get(&connection).and_then(|connection| connection.ended_at);
        ended.is_none_or(|ended| ended > at + READ_WITHIN)
    }

    pub(super) fn confirm(&mut self, at: u64, connection: u32, channel: u16, number: u64, multiple: bool, ok: bool) {
        let process = self.connections.get(&connection).map_or(0, |connection| connection.process);
        let state = self.channel(connection, channel);
        let confirmed: Vec<Publish> = if multiple {
            let later = state.unconfirmed.split_off(&(number + 1));
            std::mem::replace(&mut state.unconfirmed, later).into_values().collect()
        } else {
            state.unconfirmed.remove(&number).into_iter().collect()
        };
        for Publish { id, dead, copy } in confirmed {
            let returned = &mut self.channel(connection, channel).returned;
            let came_back = returned.iter().position(|&known| known == id);
            if let Some(index) = came_back {
                returned.swap_remove(index);
            }
            if !ok || came_back.is_some() {
                continue;
            }
            self.confirms += 1;
            let message = self.message(id);
            if dead {
                message.by_mut(process).dead_confirmed = true;
            } else {
                message.confirmed += 1;
                let by = message.by_mut(process);
                *(if copy { &mut by.copies_confirmed } else { &mut by.confirms }) += 1;
                by.confirmed_by = (connection, at);
            }
        }
    }

    pub(in crate::checker) fn deliver(&mut self, at: u64, connection: u32, channel: u16, tag: u64, id: Id) {
        self.deliveries += 1;
        let state = self.channel(connection, channel);
        state.unsettled.insert(tag, Delivery { id, at });
        state.used = true;
        let process = self.connections.get(&connection).map_or(0, |connection| connection.process);
        let message = self.message(id);
        message.deliveries += 1;
        let by = message.by_mut(process);
        by.deliveries += 1;
        (by.connection, by.channel) = (connection, channel);
    }

    /// Whether a settlement is for what was unsettled until the broker closed the channel.
    pub(in crate::checker) fn crossed(&mut self, connection: u32, channel: u16, tag: u64) -> bool {
        self.channel(connection, channel).forfeited.remove(&tag)
    }

    /// The delivery of a message on a channel whose run begins now: the oldest that is not older than the latest run's.
    /// The message may have come twice. `Err`: it came before what has been run already.
    pub(in crate::checker) fn next_run(&mut self, connection: u32, channel: u16, id: Id) -> Result<(), (u64, u64)> {
        let channel = self.channel(connection, channel);
        let latest = channel.latest_run;
        let mut tags = channel.unsettled.iter().filter(|(_, delivery)| delivery.id == id).map(|(&tag, _)| tag);
        let Some(last) = tags.clone().next_back() else { return Ok(()) };
        channel.latest_run = tags.find(|&tag| tag > latest).ok_or((last, latest))?;
        Ok(())
    }

    /// Takes the deliveries that a settlement names; none if there are none.
    pub(in crate::checker) fn settled(
        &mut self,
        connection: u32,
        channel: u16,
        tag: u64,
        multiple: bool,
    ) -> Vec<Delivery> {
        let state = self.channel(connection, channel);
        state.used = true;
        let unsettled = &mut state.unsettled;
        if multiple {
            let later = unsettled.split_off(&(tag + 1));
            std::mem::replace(unsettled, later).into_values().collect()
        } else {
            unsettled.remove(&tag).into_iter().collect()
        }
    }

    pub(in crate::checker) fn settle(&mut self, at: u64, connection: u32, delivery: &Delivery, verdict: Verdict) {
        let message = self.message(delivery.id);
        match verdict {
            Verdict::Ack => {
                message.acked += 1;
                let acks = &mut self.connections.entry(connection).or_default().acks;
                acks.push_back((at, delivery.id));
                while acks.front().is_some_and(|&(written, _)| written + ACK_AT_RISK < at) {
                    acks.pop_front();
                }
            }
            Verdict::Requeue => {
                message.requeued += 1;
                message.requeued_done += u16::from(message.successes() > 0);
            }
            Verdict::Reject => {}
        }
    }

    /// What is unsettled on a channel, or on all of a connection's.
    pub(in crate::checker) fn unsettled(&self, connection: u32, channel: Option<u16>) -> Vec<Delivery> {
        let Some(connection) = self.connections.get(&connection) else { return Vec::new() };
        let wanted = |number: &u16| channel.is_none_or(|channel| channel == *number);
        let channels = connection.channels.iter().filter(|(number, _)| wanted(number));
        channels.flat_map(|(_, channel)| channel.unsettled.values().copied()).collect()
    }

    /// A channel is closed: its broker has what was unsettled again. Channel 0 is the connection's.
    pub(in crate::checker) fn close(&mut self, at: u64, connection: u32, channel: u16) {
        for (number, state) in &mut self.connections.entry(connection).or_default().channels {
            if channel == 0 || channel == *number {
                state.forfeited.extend(state.unsettled.keys());
                // Its number may be used again, and then counts anew.
                state.unconfirmed.clear();
                state.returned.clear();
                state.latest_run = 0;
                state.used = false;
            }
        }
        if channel == 0 {
            self.lose(connection, None);
            self.risk_acks(at, connection);
        } else {
            self.lose(connection, Some(channel));
        }
    }

    pub(in crate::checker) fn end(&mut self, at: u64, connection: u32) {
        self.lose(connection, None);
        self.risk_acks(at, connection);
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.ended_at = Some(at);
            connection.acks = VecDeque::new();
            // A run may still look for the channel it came by.
            for channel in connection.channels.values_mut() {
                channel.forfeited = BTreeSet::new();
                channel.unconfirmed = BTreeMap::new();
            }
        }
    }

    pub(in crate::checker) fn end_all(&mut self) {
        let open: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.ended_at.is_none())
            .map(|(&number, _)| number)
            .collect();
        for connection in open {
            self.lose(connection, None);
        }
    }

    fn lose(&mut self, connection: u32, channel: Option<u16>) {
        for delivery in self.unsettled(connection, channel) {
            self.message(delivery.id).lost += 1;
        }
        if let Some(connection) = self.connections.get_mut(&connection) {
            for (number, state) in &mut connection.channels {
                if channel.is_none_or(|channel| channel == *number) {
                    state.unsettled.clear();
                }
            }
        }
    }

    /// The acks of the last half minute may not have been taken in.
    fn risk_acks(&mut self, at: u64, connection: u32) {
        let Some(connection) = self.connections.get_mut(&connection) else { return };
        for (written, id) in std::mem::take(&mut connection.acks) {
            if written + ACK_AT_RISK >= at {
                self.messages.entry(id).or_default().at_risk += 1;
            }
        }
    }

    /// A broker that is killed forgets acks that it had not written to its disk.
    pub(in crate::checker) fn broker_fault(&mut self, at: u64, kind: FaultKind) {
        if matches!(kind, FaultKind::BrokerKill | FaultKind::LeaderKill) {
            let all: Vec<u32> = self.connections.keys().copied().collect();
            for connection in all {
                self.risk_acks(at, connection);
            }
        }
    }
}
