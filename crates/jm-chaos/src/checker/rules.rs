//! The eleven invariants, each a function named after it. What they judge is in the ledger.

use std::collections::BTreeSet;

use super::{Checker, Invariant, ledger::Delivery};
use crate::{
    cast::{MAX_RETRY_ATTEMPTS, max_deliveries},
    history::{Role, Verdict},
    message::{Deed, Id, Queue},
};

/// The exit code of a process that SIGTERM ended.
const SIGTERM: u16 = 128 + 15;

impl Checker {
    // --- 1, 2, 3, 7: known at the end, message by message ---

    pub(super) fn judge_messages(&mut self) {
        let mut ids: Vec<Id> = self.ledger.messages.keys().copied().collect();
        // In order, so that the same history has the same examples.
        ids.sort_unstable();
        for id in ids {
            self.nothing_lost(id);
            self.nothing_unexpected(id);
            self.repeats_explained(id);
            self.dead_letters_whole(id);
            self.poison_crashed(id);
        }
    }

    /// Invariant 1: Every confirmed publish is processed, queued or dead-lettered; and what a publisher was told is confirmed, is.
    fn nothing_lost(&mut self, id: Id) {
        let messages = &self.ledger.messages;
        let Some(message) = messages.get(&id) else { return };
        if message.accepted && message.confirmed == 0 {
            self.findings.add(Invariant::NothingLost, 0, Some(id), || {
                format!("{id:?}: the publisher was told that it is confirmed, and the broker sent no confirm")
            });
        }
        if message.confirmed == 0 {
            return;
        }
        // Done is a message whose answer is with the broker.
        let answered = id.is_answer() || messages.get(&id.answer()).is_some_and(|answer| answer.confirmed > 0);
        let processed = message.successes() > 0 && message.acked > 0 && answered;
        if !processed && message.dead == 0 && message.waiting == 0 {
            let (successes, deliveries, acked) = (message.successes(), message.deliveries, message.acked);
            self.findings.add(Invariant::NothingLost, 0, Some(id), || {
                format!(
                    "{id:?} is lost: confirmed, {deliveries} deliveries, {successes} successful runs, {acked} acks, \
                     answer confirmed: {answered}, in no queue"
                )
            });
        }
    }

    /// Invariant 2: Nothing is processed that was not published.
    fn nothing_unexpected(&mut self, id: Id) {
        let Some(message) = self.ledger.messages.get(&id) else { return };
        let wanted = match id.question() {
            Some(question) => self.ledger.messages.get(&question).is_some_and(|question| question.successes() > 0),
            None => message.intended,
        };
        let seen = message.deliveries > 0 || message.successes() > 0 || message.dead > 0;
        if seen && !wanted {
            self.findings.add(Invariant::NothingUnexpected, 0, Some(id), || format!("{id:?} was published by nobody"));
        }
        let runs: u16 = message.by.iter().map(|by| by.runs).sum();
        if runs > 0 && message.deliveries == 0 {
            self.findings
                .add(Invariant::NothingUnexpected, 0, Some(id), || format!("{id:?} was run and never delivered"));
        }
    }

    /// Invariant 3: Each repeat is explained: by a second copy that a publisher had to write since it did not hear of the first,
    /// by a delivery whose channel ended, by one that was given back, or by an ack that may have been lost.
    fn repeats_explained(&mut self, id: Id) {
        let Some(message) = self.ledger.messages.get(&id) else { return };
        if message.needless > 0 {
            let needless = message.needless;
            self.findings.add(Invariant::RepeatsExplained, 0, Some(id), || {
                format!("{id:?} was published {needless} more times than needed: it had been confirmed")
            });
        }
        let explained = message.published + message.requeued + message.lost + message.at_risk;
        if message.deliveries > explained {
            let (deliveries, published) = (message.deliveries, message.published);
            let (requeued, lost, at_risk) = (message.requeued, message.lost, message.at_risk);
            self.findings.add(Invariant::RepeatsExplained, 0, Some(id), || {
                format!(
                    "{id:?} was delivered {deliveries} times: {published} copies, {requeued} given back, {lost} lost with \
                     their channel, {at_risk} acks at risk"
                )
            });
        }
        if message.successes() > message.deliveries {
            let (successes, deliveries) = (message.successes(), message.deliveries);
            self.findings.add(Invariant::RepeatsExplained, 0, Some(id), || {
                format!("{id:?} was done {successes} times in {deliveries} deliveries")
            });
        }
    }

    /// Invariant 7: A dead-lettered message has one copy there, or as many as faults explain, and is not done elsewhere.
    fn dead_letters_whole(&mut self, id: Id) {
        let Some(message) = self.ledger.messages.get(&id) else { return };
        let deed = Deed::of(self.seed, id);
        if deed.is_hopeless() && message.successes() > 0 {
            self.findings.add(Invariant::DeadLettersWhole, 0, Some(id), || {
                format!("{id:?} ({}) was done, which cannot be", deed.label())
            });
        }
        if message.dead == 0 {
            return;
        }
        let (copies, deliveries) = (message.dead, message.deliveries);
        // One for each delivery that came to nothing, and one for each that had to be written again.
        let explained = message.deliveries.max(message.dead_published);
        if copies > explained || copies > 1 && message.deliveries == 1 && message.dead_published == 1 {
            self.findings.add(Invariant::DeadLettersWhole, 0, Some(id), || {
                format!("{id:?} has {copies} copies among the dead letters, of {deliveries} deliveries")
            });
        }
        if !deed.is_hopeless() && !message.dead_as_poison {
            self.findings.add(Invariant::DeadLettersWhole, 0, Some(id), || {
                format!("{id:?} ({}) is among the dead letters", deed.label())
            });
        }
    }

    /// Invariant 11: A message is taken for poison only after `max_deliveries` crashes: deliveries whose process, connection or
    /// broker ended before they were settled. What a worker gave back by itself is none, however often.
    fn poison_crashed(&mut self, id: Id) {
        let Some(message) = self.ledger.messages.get(&id) else { return };
        let limit = max_deliveries(id.queue());
        if message.dead_as_poison && u64::from(message.lost) < limit {
            let (deliveries, lost, requeued) = (message.deliveries, message.lost, message.requeued);
            self.findings.add(Invariant::PoisonCrashed, 0, Some(id), || {
                format!(
                    "{id:?} was called poison: {deliveries} deliveries, {requeued} given back, {lost} crashes of the \
                     {limit} that it takes"
                )
            });
        }
    }

    pub(super) fn intact(&mut self, at: u64, queue: Queue, id: Id, intact: bool) {
        if !intact {
            self.findings.add(Invariant::DeadLettersWhole, at, Some(id), || {
                format!("{id:?} in {}: its body is not the one that was published", queue.dead())
            });
        }
    }

    // --- 4, 5: at each settlement ---

    /// Invariant 4: An ack comes after the handler's success and after its answers' confirms, or after the confirm of the copy
    /// among the dead letters, or of one that took its place in the queue; all of it in the process that acks.
    pub(super) fn ack_order(&mut self, at: u64, connection: u32, delivery: &Delivery, verdict: Verdict) {
        if verdict != Verdict::Ack {
            return;
        }
        let Some((process, _)) = self.ledger.process_of(connection) else { return };
        let id = delivery.id;
        let answers = self.ledger.messages.get(&id.answer()).map(|answer| answer.by(process).confirms);
        let answered = id.is_answer() || answers.unwrap_or_default() > 0;
        let Some(message) = self.ledger.messages.get_mut(&id) else { return };
        let by = message.by_mut(process);
        if by.dead_confirmed || by.successes > 0 && answered {
            return;
        }
        if by.copies_acked < by.copies_confirmed {
            by.copies_acked += 1;
            return;
        }
        let missing = if by.successes == 0 { "its handler's success" } else { "its answer's confirm" };
        self.findings.add(Invariant::AckLast, at, Some(id), || format!("{id:?} was acked before {missing}"));
    }

    /// Invariant 5: One settlement for each delivery, on the channel it came by.
    pub(super) fn one_settlement(&mut self, at: u64, connection: u32, channel: u16, tag: u64, empty: bool) {
        if empty {
            self.findings.add(Invariant::OneSettlement, at, None, || {
                format!(
                    "connection {connection}, channel {channel}: tag {tag} was settled, which is not unsettled there"
                )
            });
        }
    }

    /// 5 as well: the broker closes a channel with 406 for a settlement that it cannot place.
    pub(super) fn closed_for_a_reason(&mut self, at: u64, connection: u32, channel: u16, code: u16, by_broker: bool) {
        // A worker learns its queue's type from a refusal.
        if by_broker && code == PRECONDITION_FAILED && self.ledger.was_used(connection, channel) {
            self.findings.add(Invariant::OneSettlement, at, None, || {
                format!("connection {connection}, channel {channel} was closed by the broker with {code}")
            });
        }
    }

    /// 3 as well: an end of a connection that repeats work has to have a cause.
    pub(super) fn ended_for_a_reason(&mut self, at: u64, connection: u32, unsettled: &[Delivery]) {
        let Some((_, process)) = self.ledger.process_of(connection) else { return };
        let Some(first) = unsettled.first() else { return };
        let over = process.exited.is_some() || process.told_to_stop.is_some() || process.aborts > 0;
        if !over && !self.faults.disturbed(process.slot, at, at) {
            self.findings.add(Invariant::RepeatsExplained, at, Some(first.id), || {
                format!("connection {connection} ended without a fault, with {} unsettled deliveries", unsettled.len())
            });
        }
    }

    // --- 6, 8: at each run ---

    /// Invariant 6: At most 1 + `max_retry_attempts` runs for each delivery; one for a permanent error; none for what cannot be
    /// read.
    pub(super) fn run_limit(&mut self, at: u64, process: u32, id: Id, attempt: u32) {
        let Some(message) = self.ledger.messages.get(&id) else { return };
        let by = message.by(process);
        let runs = match Deed::of(self.seed, id) {
            Deed::Undecodable | Deed::UnknownType => 0,
            Deed::Permanent => 1,
            _ => 1 + MAX_RETRY_ATTEMPTS,
        };
        if u32::from(by.runs) > u32::from(by.deliveries) * runs || attempt > 1 + MAX_RETRY_ATTEMPTS {
            self.findings.add(Invariant::RunsLimited, at, Some(id), || {
                format!("{id:?}: run {} in {} deliveries, attempt {attempt}", by.runs, by.deliveries)
            });
        }
    }

    /// Invariant 8: One worker begins what it is given in the order in which it came.
    pub(super) fn in_order(&mut self, at: u64, process: u32, id: Id, attempt: u32) {
        if id.queue() != Queue::Ordered || id.is_answer() || attempt != 1 {
            return;
        }
        let Some(by) = self.ledger.messages.get(&id).map(|message| message.by(process)) else { return };
        if let Err((tag, latest)) = self.ledger.next_run(by.connection, by.channel, id) {
            self.findings.add(Invariant::InOrder, at, Some(id), || {
                format!("{id:?} was delivered as {tag} and run after {latest} of the same channel")
            });
        }
    }

    /// 8 as well: first deliveries come in the order in which they were published. After a fault the broker may give out
    /// what another connection held later than what came after it.
    pub(super) fn first_deliveries_in_order(&mut self, at: u64, connection: u32, id: Id) {
        if id.queue() != Queue::Ordered || id.is_answer() {
            return;
        }
        if self.ledger.messages.get(&id).is_some_and(|message| message.deliveries > 0) {
            return;
        }
        let latest = self.ledger.latest_first.entry(id.publisher()).or_default();
        let before = *latest;
        *latest = before.max(id.count());
        let slot = self.ledger.process_of(connection).map_or(0, |(_, process)| process.slot);
        if id.count() < before && !self.faults.disturbed(slot, at, at) {
            self.findings.add(Invariant::InOrder, at, Some(id), || {
                format!("{id:?} was delivered first after a later one, without a fault")
            });
        }
    }

    // --- 9: at the end of a process ---

    /// Invariant 9: A process that was told to stop leaves nothing unsettled, unless its broker was not there to be told.
    pub(super) fn drained(&mut self, at: u64, connection: u32, by_client: bool, unsettled: &[Delivery]) {
        let Some((_, process)) = self.ledger.process_of(connection) else { return };
        let (Some(told), Some(first)) = (process.told_to_stop, unsettled.first()) else { return };
        if by_client && process.aborts == 0 && !self.faults.disturbed_besides_stop(process.slot, told, at) {
            self.findings.add(Invariant::Drained, at, Some(first.id), || {
                format!("{} deliveries were unsettled when a process that was told to stop left", unsettled.len())
            });
        }
    }

    /// 9 as well: it ends with success.
    pub(super) fn ended_well(&mut self, at: u64, process: u32, code: u16) {
        let Some(known) = self.ledger.processes.get(&process) else { return };
        // One that was told in its first moments, with nothing in hand, is ended by the signal itself.
        let unborn = code == SIGTERM && !known.attentive && !self.ledger.connected(process);
        if known.told_to_stop.is_some() && code != 0 && known.aborts == 0 && !unborn {
            self.findings.add(Invariant::Drained, at, None, || {
                format!("process {process} was told to stop and ended with code {code}")
            });
        }
    }

    /// 9 as well: no handler starts after `cancel-ok`.
    pub(super) fn started_after_cancel(&mut self, at: u64, process: u32, id: Id) {
        let Some(by) = self.ledger.messages.get(&id).map(|message| message.by(process)) else { return };
        let channel = self.ledger.connections.get(&by.connection).and_then(|known| known.channels.get(&by.channel));
        if let Some(cancelled) = channel.and_then(|channel| channel.cancel_ok).filter(|&cancelled| at > cancelled) {
            self.findings.add(Invariant::Drained, at, Some(id), || {
                format!("{id:?} was started {} µs after cancel-ok", at - cancelled)
            });
        }
    }

    // --- 10: at the end of the campaign ---

    /// Invariant 10: After healing, all queues become empty, and each has a consumer.
    pub(super) fn healed(&mut self, at: u64, queue: Queue, ready: u64, unacked: u64, consumers: u64) {
        self.ledger.queues_seen.insert(queue);
        self.ledger.unsettled_at_the_end += ready + unacked;
        if ready + unacked > 0 || consumers == 0 {
            self.findings.add(Invariant::Healed, at, None, || {
                format!("{} has {ready} ready, {unacked} unacked and {consumers} consumers in the end", queue.name())
            });
        }
    }

    /// 9 and 10: nothing is unacked after the last drain, and nothing came back into a queue by it.
    pub(super) fn nothing_left(&mut self, at: u64, queue: Queue, ready: u64, unacked: u64) {
        self.ledger.unsettled_at_the_end += unacked;
        if ready + unacked > 0 {
            self.findings.add(Invariant::Drained, at, None, || {
                format!("{} has {ready} ready and {unacked} unacked after the last drain", queue.name())
            });
        }
    }

    pub(super) fn judge_queues(&mut self) {
        let workers = self.ledger.processes.values().filter(|process| process.role == Role::Worker);
        for queue in workers.map(|process| process.queue).collect::<BTreeSet<_>>() {
            if !self.ledger.queues_seen.contains(&queue) {
                self.findings
                    .add(Invariant::Healed, 0, None, || format!("{} could not be counted in the end", queue.name()));
            }
        }
    }
}

/// The code by which the broker answers a settlement of what it does not have.
const PRECONDITION_FAILED: u16 = 406;
