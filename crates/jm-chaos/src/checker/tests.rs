//! Histories written by hand, each right but for one thing.

use super::*;
use crate::{
    cast::max_deliveries,
    history::{EVERYONE, FaultKind, Outcome, Role, Verdict as Settlement},
    message::{Deed, Id, Queue},
};

const SEED: u64 = 1;
const CONSUMING: u32 = 10;
const PUBLISHING: u32 = 11;
const WORKER: u32 = 2;
const CHANNEL: u16 = 1;

/// Events a millisecond apart.
struct History {
    checker: Checker,
    at: u64,
}

impl History {
    /// A publisher in slot 8 with connection 1, and a worker of a queue with two connections.
    fn of(queue: Queue) -> Self {
        let mut history = Self { checker: Checker::new(SEED), at: 1_000_000 };
        history
            .add(What::Started { process: 1, slot: 8, role: Role::Publisher, queue })
            .add(What::Started { process: WORKER, slot: 0, role: Role::Worker, queue })
            .add(What::Opened { connection: 1, process: 1, node: 0 })
            .add(What::Opened { connection: CONSUMING, process: WORKER, node: 0 })
            .add(What::Opened { connection: PUBLISHING, process: WORKER, node: 0 });
        history
    }

    fn add(&mut self, what: What) -> &mut Self {
        self.at += 1_000;
        self.checker.see(Event { at: self.at, what });
        self
    }

    fn published(&mut self, id: Id) -> &mut Self {
        let (connection, channel, number, queue) = (1, CHANNEL, id.count(), id.queue());
        self.add(What::Intended { id })
            .add(What::Published { connection, channel, number, id, queue, dead: false })
            .add(What::Confirmed { connection, channel, number, multiple: false, ok: true })
            .add(What::Accepted { id })
    }

    fn delivered(&mut self, id: Id, tag: u64) -> &mut Self {
        self.add(What::Delivered { connection: CONSUMING, channel: CHANNEL, tag, id, redelivered: false })
    }

    fn run(&mut self, id: Id, attempt: u32, outcome: Outcome) -> &mut Self {
        self.add(What::RunBegan { process: WORKER, id, attempt }).add(What::RunEnded { process: WORKER, id, outcome })
    }

    fn written(&mut self, id: Id, dead: bool, number: u64) -> &mut Self {
        let (connection, channel, queue) = (PUBLISHING, CHANNEL, id.queue());
        self.add(What::Published { connection, channel, number, id, queue, dead })
    }

    fn confirmed(&mut self, number: u64) -> &mut Self {
        self.add(What::Confirmed { connection: PUBLISHING, channel: CHANNEL, number, multiple: false, ok: true })
    }

    fn settled(&mut self, tag: u64, verdict: Settlement) -> &mut Self {
        self.add(What::SettledBy { connection: CONSUMING, channel: CHANNEL, tag, multiple: false, verdict })
    }

    /// The answer is handed on and done, by nobody in particular.
    fn answer_left(&mut self, id: Id) -> &mut Self {
        self.add(What::Waiting { queue: Queue::Done, id: id.answer() })
    }

    fn done(&mut self, id: Id, tag: u64) -> &mut Self {
        self.delivered(id, tag)
            .run(id, 1, Outcome::Done)
            .written(id.answer(), false, tag)
            .confirmed(tag)
            .settled(tag, Settlement::Ack)
            .answer_left(id)
    }

    fn end(&mut self) -> Verdict {
        let queue = self.checker.ledger.processes[&WORKER].queue;
        self.add(What::Settled { queue, ready: 0, unacked: 0, consumers: 1 })
            .add(What::ToldToStop { process: WORKER })
            .add(What::Exited { process: WORKER, code: 0 })
            .add(What::Left { queue, ready: 0, unacked: 0 });
        std::mem::replace(&mut self.checker, Checker::new(SEED)).finish()
    }
}

/// The first message of a queue that asks for this.
fn asking(queue: Queue, deed: Deed) -> Id {
    (1..1_000_000).map(|count| Id::message(queue, 8, count)).find(|&id| Deed::of(SEED, id) == deed).unwrap()
}

fn answering(queue: Queue) -> Id {
    asking(queue, Deed::Answer)
}

/// The invariants that were broken.
fn broken(verdict: &Verdict) -> Vec<Invariant> {
    let broken = verdict.invariants.iter().filter(|invariant| invariant.violations > 0);
    broken.map(|invariant| invariant.invariant).collect()
}

#[test]
fn a_history_as_it_should_be_breaks_nothing() {
    let id = answering(Queue::Work);
    let verdict = History::of(Queue::Work).published(id).done(id, 1).end();
    assert_eq!(broken(&verdict), []);
    let totals = &verdict.totals;
    assert_eq!((totals.messages, totals.confirmed_messages, totals.confirmed_answers, totals.lost), (1, 1, 1, 0));
}

#[test]
fn a_confirmed_message_that_nobody_got_is_lost() {
    let verdict = History::of(Queue::Work).published(answering(Queue::Work)).end();
    assert_eq!(broken(&verdict), [Invariant::NothingLost]);
    assert_eq!(verdict.totals.lost, 1);
}

#[test]
fn what_nobody_published_is_unexpected() {
    let id = answering(Queue::Work);
    let verdict = History::of(Queue::Work).done(id, 1).end();
    assert_eq!(broken(&verdict), [Invariant::NothingUnexpected, Invariant::RepeatsExplained]);
}

#[test]
fn a_repeat_needs_a_fault_to_explain_it() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.published(id).done(id, 1).delivered(id, 2).run(id, 1, Outcome::Done).written(id.answer(), false, 2);
    let verdict = history.confirmed(2).settled(2, Settlement::Ack).end();
    assert_eq!(broken(&verdict), [Invariant::RepeatsExplained]);
    assert_eq!(verdict.totals.duplicates_unexplained, 1);
}

#[test]
fn a_lost_connection_explains_a_repeat_if_something_was_done_to_it() {
    let id = answering(Queue::Work);
    let repeat = |fault: bool| {
        let mut history = History::of(Queue::Work);
        history.published(id).delivered(id, 1).run(id, 1, Outcome::Done);
        if fault {
            history.add(What::FaultBegan { fault: 1, kind: FaultKind::CloseAll, slot: EVERYONE });
        }
        history.add(What::Ended { connection: CONSUMING, by_client: false });
        history.add(What::Opened { connection: CONSUMING, process: WORKER, node: 0 }).done(id, 2).end()
    };
    let explained = repeat(true);
    assert_eq!(broken(&explained), []);
    assert_eq!((explained.totals.duplicates_explained, explained.totals.recovered), (1, 1));
    assert_eq!(broken(&repeat(false)), [Invariant::RepeatsExplained]);
}

#[test]
fn an_answer_is_written_again_only_if_its_confirm_may_not_have_been_read() {
    let id = answering(Queue::Work);
    let again = |reset: bool| {
        let mut history = History::of(Queue::Work);
        history.published(id).delivered(id, 1).run(id, 1, Outcome::Done).written(id.answer(), false, 1).confirmed(1);
        if reset {
            history.add(What::Ended { connection: PUBLISHING, by_client: false });
        }
        let (connection, channel, queue) = (12, CHANNEL, Queue::Done);
        history.add(What::Opened { connection, process: WORKER, node: 0 });
        history.add(What::Published { connection, channel, number: 1, id: id.answer(), queue, dead: false });
        broken(&history.settled(1, Settlement::Ack).answer_left(id).answer_left(id).end())
    };
    assert_eq!(again(true), []);
    assert_eq!(again(false), [Invariant::RepeatsExplained]);
}

#[test]
fn an_ack_before_the_handler_is_found() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.published(id).delivered(id, 1).settled(1, Settlement::Ack).run(id, 1, Outcome::Done);
    let verdict = history.written(id.answer(), false, 1).confirmed(1).answer_left(id).end();
    assert_eq!(broken(&verdict), [Invariant::AckLast]);
}

#[test]
fn an_ack_before_the_answers_confirm_is_found() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.published(id).delivered(id, 1).run(id, 1, Outcome::Done).written(id.answer(), false, 1);
    let verdict = history.settled(1, Settlement::Ack).confirmed(1).answer_left(id).end();
    assert_eq!(broken(&verdict), [Invariant::AckLast]);
}

#[test]
fn an_answer_that_is_never_confirmed_is_a_lost_message_too() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.published(id).delivered(id, 1).run(id, 1, Outcome::Done).written(id.answer(), false, 1);
    let verdict = history.settled(1, Settlement::Ack).end();
    assert_eq!(broken(&verdict), [Invariant::NothingLost, Invariant::AckLast]);
}

#[test]
fn a_refused_question_is_no_settlement_gone_wrong() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.add(What::Closed { connection: CONSUMING, channel: 2, code: 406, by_broker: true });
    assert_eq!(broken(&history.published(id).done(id, 1).end()), []);
}

#[test]
fn a_second_settlement_is_found() {
    let id = answering(Queue::Work);
    let verdict = History::of(Queue::Work).published(id).done(id, 1).settled(1, Settlement::Ack).end();
    assert_eq!(broken(&verdict), [Invariant::OneSettlement]);
}

#[test]
fn a_settlement_on_another_channel_is_found() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.published(id).delivered(id, 1).run(id, 1, Outcome::Done).written(id.answer(), false, 1).confirmed(1);
    let (connection, verdict) = (CONSUMING, Settlement::Ack);
    history.add(What::SettledBy { connection, channel: 2, tag: 1, multiple: false, verdict });
    history.add(What::Closed { connection, channel: 2, code: 406, by_broker: true });
    let verdict = history.settled(1, Settlement::Ack).answer_left(id).end();
    assert_eq!(broken(&verdict), [Invariant::OneSettlement]);
    assert_eq!(verdict.violations(Invariant::OneSettlement), 2);
}

#[test]
fn a_settlement_that_crosses_the_brokers_close_is_none() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.published(id).delivered(id, 1).run(id, 1, Outcome::Done).written(id.answer(), false, 1).confirmed(1);
    history.add(What::FaultBegan { fault: 1, kind: FaultKind::CloseAll, slot: EVERYONE });
    history.add(What::Closed { connection: CONSUMING, channel: 0, code: 320, by_broker: true });
    history.settled(1, Settlement::Ack).add(What::Ended { connection: CONSUMING, by_client: true });
    assert_eq!(broken(&history.done(id, 1).end()), []);
}

#[test]
fn more_runs_than_a_delivery_may_have_are_found() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.published(id).delivered(id, 1);
    for attempt in 1..=4 {
        history.run(id, attempt, if attempt < 4 { Outcome::Retryable } else { Outcome::Done });
    }
    let verdict = history.written(id.answer(), false, 1).confirmed(1).settled(1, Settlement::Ack).answer_left(id).end();
    assert_eq!(broken(&verdict), [Invariant::RunsLimited]);
}

#[test]
fn a_permanent_error_has_one_run_and_one_dead_letter_with_the_same_body() {
    let id = asking(Queue::Work, Deed::Permanent);
    let dead = |copies: u32, intact: bool, runs: u32| {
        let mut history = History::of(Queue::Work);
        history.published(id).delivered(id, 1);
        (1..=runs).for_each(|attempt| _ = history.run(id, attempt, Outcome::Permanent));
        history.written(id, true, 1).confirmed(1).settled(1, Settlement::Ack);
        (0..copies).for_each(|_| _ = history.add(What::Dead { queue: Queue::Work, id, intact, poison: false }));
        broken(&history.end())
    };
    assert_eq!(dead(1, true, 1), []);
    assert_eq!(dead(1, true, 2), [Invariant::RunsLimited]);
    assert_eq!(dead(2, true, 1), [Invariant::DeadLettersWhole]);
    assert_eq!(dead(1, false, 1), [Invariant::DeadLettersWhole]);
    assert_eq!(dead(0, true, 1), [Invariant::NothingLost]);
}

#[test]
fn a_message_that_could_be_done_is_no_dead_letter() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.published(id).delivered(id, 1).written(id, true, 1).confirmed(1).settled(1, Settlement::Ack);
    let verdict = history.add(What::Dead { queue: Queue::Work, id, intact: true, poison: false }).end();
    assert_eq!(broken(&verdict), [Invariant::DeadLettersWhole]);
}

#[test]
fn a_copy_takes_a_messages_place_in_its_queue_once_it_is_confirmed() {
    let id = answering(Queue::Work);
    let returned = |early: bool, copies: u64| {
        let mut history = History::of(Queue::Work);
        history.published(id).delivered(id, 1).run(id, 1, Outcome::Retryable);
        if early {
            history.settled(1, Settlement::Ack);
        }
        (1..=copies).for_each(|number| _ = history.written(id, false, number).confirmed(number));
        if !early {
            history.settled(1, Settlement::Ack);
        }
        broken(&history.done(id, 9).end())
    };
    assert_eq!(returned(false, 1), []);
    assert_eq!(returned(true, 1), [Invariant::AckLast]);
    assert_eq!(returned(false, 0), [Invariant::RepeatsExplained, Invariant::AckLast]);
    assert_eq!(returned(false, 2), [Invariant::RepeatsExplained]);
}

#[test]
fn poison_that_only_went_back_or_crashed_too_seldom_is_found() {
    let id = answering(Queue::Poison);
    let poison = |crashes: u64, returns: u64| {
        let mut history = History::of(Queue::Poison);
        history.published(id).add(What::FaultBegan { fault: 1, kind: FaultKind::CloseAll, slot: EVERYONE });
        for tag in 1..=crashes {
            history.delivered(id, tag);
            history.add(What::Closed { connection: CONSUMING, channel: CHANNEL, code: 320, by_broker: true });
        }
        for tag in crashes + 1..=crashes + returns {
            history.delivered(id, tag).run(id, 1, Outcome::Retryable).settled(tag, Settlement::Requeue);
        }
        let tag = crashes + returns + 1;
        history.delivered(id, tag).written(id, true, 1).confirmed(1).settled(tag, Settlement::Ack);
        broken(&history.add(What::Dead { queue: Queue::Poison, id, intact: true, poison: true }).end())
    };
    let limit = max_deliveries(Queue::Poison);
    assert_eq!(poison(limit, 0), []);
    assert_eq!(poison(limit, 9), []);
    assert_eq!(poison(limit - 1, 9), [Invariant::PoisonCrashed]);
    assert_eq!(poison(0, 20), [Invariant::PoisonCrashed]);
}

#[test]
fn one_worker_that_skips_ahead_is_found() {
    let first = answering(Queue::Ordered);
    let second = (first.count() + 1..).map(|count| Id::message(Queue::Ordered, 8, count));
    let second = second.into_iter().find(|&id| Deed::of(SEED, id) == Deed::Answer).unwrap();
    let swapped = |swap: bool| {
        let mut history = History::of(Queue::Ordered);
        history.published(first).published(second).delivered(first, 1).delivered(second, 2);
        let (one, other) = if swap { (second, first) } else { (first, second) };
        for (tag, id) in [(1, one), (2, other)] {
            history.run(id, 1, Outcome::Done).written(id.answer(), false, tag).confirmed(tag).answer_left(id);
        }
        broken(&history.settled(1, Settlement::Ack).settled(2, Settlement::Ack).end())
    };
    assert_eq!(swapped(false), []);
    assert_eq!(swapped(true), [Invariant::InOrder]);
}

#[test]
fn what_a_drain_leaves_unsettled_is_found() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.published(id).delivered(id, 1).add(What::ToldToStop { process: WORKER });
    history.add(What::Closed { connection: CONSUMING, channel: 0, code: 200, by_broker: false });
    history.add(What::Ended { connection: CONSUMING, by_client: true });
    let verdict = history.add(What::Waiting { queue: Queue::Work, id }).end();
    assert_eq!(broken(&verdict), [Invariant::Drained]);
}

#[test]
fn a_handler_that_starts_after_cancel_ok_is_found() {
    let id = answering(Queue::Work);
    let mut history = History::of(Queue::Work);
    history.published(id).delivered(id, 1).add(What::ToldToStop { process: WORKER });
    history.add(What::CancelOk { connection: CONSUMING, channel: CHANNEL }).run(id, 1, Outcome::Done);
    let verdict = history.written(id.answer(), false, 1).confirmed(1).settled(1, Settlement::Ack).answer_left(id).end();
    assert_eq!(broken(&verdict), [Invariant::Drained]);
}

#[test]
fn a_process_that_does_not_end_well_is_found() {
    let mut history = History::of(Queue::Work);
    history.add(What::ToldToStop { process: 1 }).add(What::Exited { process: 1, code: 101 });
    assert_eq!(broken(&history.end()), [Invariant::Drained]);
}

#[test]
fn a_process_may_end_of_the_signal_only_before_it_listens_and_connects() {
    let ended = |before: &[What]| {
        let mut history = History::of(Queue::Work);
        history.add(What::Started { process: 3, slot: 1, role: Role::Worker, queue: Queue::Work });
        for &what in before {
            history.add(what);
        }
        history.add(What::ToldToStop { process: 3 }).add(What::Exited { process: 3, code: 143 });
        broken(&history.end())
    };
    assert_eq!(ended(&[]), []);
    assert_eq!(ended(&[What::Attentive { process: 3 }]), [Invariant::Drained]);
    assert_eq!(ended(&[What::Opened { connection: 12, process: 3, node: 0 }]), [Invariant::Drained]);
}

#[test]
fn a_queue_that_does_not_become_empty_or_has_no_consumer_is_found() {
    for (ready, unacked, consumers) in [(1, 0, 1), (0, 1, 1), (0, 0, 0)] {
        let mut history = History::of(Queue::Work);
        history.add(What::Settled { queue: Queue::Work, ready, unacked, consumers });
        assert_eq!(broken(&history.end()), [Invariant::Healed]);
    }
    let mut history = History::of(Queue::Work);
    let verdict = std::mem::replace(&mut history.checker, Checker::new(SEED)).finish();
    assert_eq!(broken(&verdict), [Invariant::Healed]);
}

#[test]
fn recovery_is_from_the_healing_to_the_first_delivery_that_came_after_it_and_was_settled() {
    let [first, second] = [1, 2].map(|n| {
        (1..).map(|c| Id::message(Queue::Work, 8, c)).filter(|&id| Deed::of(SEED, id) == Deed::Answer).nth(n).unwrap()
    });
    let mut history = History::of(Queue::Work);
    history.published(first).published(second).delivered(first, 1);
    history.add(What::FaultBegan { fault: 1, kind: FaultKind::SlowLink, slot: 0 }).add(What::FaultHealed { fault: 1 });
    let healed = history.at;
    // Came before.
    history.run(first, 1, Outcome::Done).written(first.answer(), false, 1).confirmed(1).settled(1, Settlement::Ack);
    history.answer_left(first).done(second, 2);
    let settled = history.at - 1_000;
    let verdict = history.end();
    assert_eq!(broken(&verdict), []);
    let recovery = &verdict.faults[&FaultKind::SlowLink];
    assert_eq!((recovery.faults, recovery.measured), (1, 1));
    assert!(
        (recovery.max_ms - std::time::Duration::from_micros(settled - healed).as_secs_f64() * 1_000.0).abs() < 1e-6
    );
}

#[test]
fn a_fault_that_had_nothing_to_act_on_is_not_counted() {
    let mut history = History::of(Queue::Work);
    history.add(What::FaultBegan { fault: 1, kind: FaultKind::LinkCut, slot: 0 }).add(What::FaultVoid { fault: 1 });
    let verdict = history.end();
    assert_eq!((verdict.totals.faults, verdict.faults[&FaultKind::LinkCut].void), (0, 1));
}
