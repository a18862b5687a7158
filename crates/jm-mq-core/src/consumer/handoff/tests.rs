//! The handoff with deliveries that no broker knows.

use super::*;
use crate::consumer::{
    kept::{KeptResult, KeptResults},
    queue::Queue,
};
use crate::{handler::Answers, settlement::Failure, settlement::FailureKind};
use metrics::Counter;
use std::{
    task::{Context, Waker},
    time::Duration,
};

/// A delivery that no broker knows.
fn delivery(body: &str, redelivered: bool) -> Delivery {
    let delivery = lapin::message::Delivery::mock(1, "".into(), "q".into(), redelivered, body.as_bytes().to_vec());
    Delivery::new(&"q".into(), &Queue::unknown("q"), delivery, Instant::now())
}

fn bench() -> (Handoff, KeptResults) {
    (Handoff::default(), KeptResults::new(Counter::noop(), Counter::noop()))
}

/// What no channel has written.
fn take_settled(handoff: &Handoff) -> Vec<Settled> {
    std::mem::take(&mut handoff.state().settled)
}

fn verdicts(handoff: &Handoff) -> Vec<Verdict> {
    take_settled(handoff).into_iter().map(|settled| settled.verdict).collect()
}

#[tokio::test]
async fn deliveries_go_one_way_in_order_and_settlements_the_other() {
    let (handoff, _) = bench();
    for body in ["1", "2"] {
        handoff.push(&mut vec![delivery(body, false)]);
    }
    for body in ["1", "2"] {
        assert_eq!(handoff.next().await.unwrap().body, body);
        assert!(!handoff.is_idle());
        assert_eq!(handoff.finish(Verdict::Ack, None), Finished::Settled);
    }
    assert!(!handoff.is_idle(), "not written yet");
    assert_eq!(verdicts(&handoff), [Verdict::Ack, Verdict::Ack]);
    assert!(handoff.is_idle());
}

#[tokio::test]
async fn a_result_of_a_message_that_was_taken_back_is_kept_and_not_settled() {
    let (handoff, kept) = bench();
    handoff.push(&mut vec![delivery("1", false)]);
    handoff.next().await.unwrap();
    assert!(handoff.take_running(None, &kept).is_some());
    assert!(handoff.take_running(None, &kept).is_none(), "only once");
    assert!(handoff.is_taken_back() && handoff.is_idle() && handoff.oldest().is_none());
    let answers = KeptResult::Answers(Answers::none());
    assert_eq!(handoff.finish(Verdict::Ack, Some(answers)), Finished::TakenBack);
    assert!(take_settled(&handoff).is_empty());
    let mut claim = kept.claim(&delivery("1", true).work).unwrap();
    assert!(matches!(claim.result().await, Some(KeptResult::Answers(_))));
}

#[tokio::test]
async fn a_message_that_is_handed_back_finds_its_result_before_the_broker_has_it() {
    let (handoff, kept) = bench();
    handoff.push(&mut vec![delivery("1", false)]);
    handoff.next().await.unwrap();
    let failed = KeptResult::Failed(Failure::unrun(FailureKind::Permanent, "no"));
    assert_eq!(handoff.hand_back(failed, &kept), Finished::Settled);
    assert!(kept.claim(&delivery("1", true).work).is_some());
    assert_eq!(verdicts(&handoff), [Verdict::Requeue]);
}

#[tokio::test]
async fn a_lost_channel_takes_everything_back_but_the_workers_result() {
    let (handoff, kept) = bench();
    for body in ["settled", "running", "buffered"] {
        handoff.push(&mut vec![delivery(body, false)]);
    }
    handoff.next().await.unwrap();
    handoff.finish(Verdict::Ack, None);
    handoff.next().await.unwrap();
    let unwritten = handoff.detach(&kept).on_channel;
    assert_eq!(unwritten.len(), 1);
    assert_eq!(unwritten[0].delivery.work.body, "settled");
    tokio::time::timeout(Duration::from_secs(5), handoff.interrupted()).await.unwrap();
    assert!(handoff.take_unstarted(None).is_empty());
    assert!(kept.claim(&delivery("buffered", true).work).is_none(), "it was never run");
    let mut claim = kept.claim(&delivery("running", true).work).unwrap();
    handoff.finish(Verdict::Requeue, None);
    assert!(claim.result().await.is_none(), "it has to run again");
}

#[tokio::test]
async fn a_worker_that_waits_for_another_run_can_leave_the_wait_to_its_message() {
    let (first, kept) = bench();
    first.push(&mut vec![delivery("1", false)]);
    first.next().await.unwrap();
    first.take_running(None, &kept);
    let second = Handoff::default();
    second.push(&mut vec![delivery("1", true)]);
    let work = second.next().await.unwrap();
    let claim = kept.claim(&work).unwrap();
    assert!(second.leave().is_none(), "it is ours");
    second.take_running(None, &kept);
    let promise = second.leave().unwrap();
    assert!(second.is_idle());
    let relay = tokio::spawn(promise.fulfil_from(claim));
    first.finish(Verdict::Ack, Some(KeptResult::Settled));
    relay.await.unwrap();
    let mut third = kept.claim(&delivery("1", true).work).unwrap();
    assert!(matches!(third.result().await, Some(KeptResult::Settled)));
}

#[tokio::test]
async fn what_a_failed_worker_had_in_hand_goes_back_and_nobody_waits_for_it() {
    let (handoff, kept) = bench();
    handoff.push(&mut vec![delivery("1", false)]);
    handoff.next().await.unwrap();
    handoff.abandon();
    assert_eq!(verdicts(&handoff), [Verdict::Requeue]);
    handoff.push(&mut vec![delivery("2", false)]);
    handoff.next().await.unwrap();
    handoff.take_running(None, &kept);
    handoff.abandon();
    assert!(take_settled(&handoff).is_empty());
    assert!(kept.claim(&delivery("2", true).work).is_none(), "there is no run to wait for");
}

#[tokio::test]
async fn only_what_has_waited_too_long_is_taken() {
    let (handoff, kept) = bench();
    handoff.push(&mut vec![delivery("1", false)]);
    handoff.push(&mut vec![delivery("2", false)]);
    let between = handoff.oldest().unwrap();
    handoff.next().await.unwrap();
    assert!(handoff.take_running(between.checked_sub(Duration::from_secs(1)), &kept).is_none());
    assert!(handoff.take_unstarted(between.checked_sub(Duration::from_secs(1))).is_empty());
    assert_eq!(handoff.take_unstarted(Some(Instant::now())).len(), 1);
    assert!(handoff.take_running(Some(Instant::now()), &kept).is_some());
}

#[tokio::test]
async fn a_stopped_worker_starts_nothing_and_waits_for_nothing() {
    let (handoff, _) = bench();
    handoff.push(&mut vec![delivery("1", false)]);
    handoff.stop();
    assert!(handoff.next().await.is_none());
    handoff.interrupted().await;
}

/// Whether the settlements were handed on. Without a channel to write them, its task is told.
fn written(handoff: &Handoff) -> bool {
    futures_util::FutureExt::now_or_never(handoff.changed()).is_some()
}

/// Of a worker with a prefetch of six.
fn ahead() -> (Handoff, Arc<Flusher>) {
    with_prefetch(6)
}

fn with_prefetch(prefetch: u16) -> (Handoff, Arc<Flusher>) {
    let flusher = Arc::<Flusher>::default();
    (Handoff::new(prefetch, Arc::clone(&flusher)), flusher)
}

#[tokio::test]
async fn acks_wait_for_each_other_until_half_of_the_prefetch_is_done() {
    let (handoff, _) = ahead();
    handoff.push(&mut ["1", "2", "3", "4"].map(|body| delivery(body, false)).into());
    for last in [false, false, true] {
        handoff.next().await.unwrap();
        handoff.finish(Verdict::Ack, None);
        assert_eq!(written(&handoff), last);
    }
}

#[tokio::test]
async fn a_worker_that_has_nothing_more_to_do_writes_its_ack_at_once() {
    let (handoff, _) = ahead();
    handoff.push(&mut ["1", "2"].map(|body| delivery(body, false)).into());
    handoff.next().await.unwrap();
    handoff.finish(Verdict::Ack, None);
    assert!(!written(&handoff), "there is another");
    handoff.next().await.unwrap();
    handoff.finish(Verdict::Ack, None);
    assert!(written(&handoff), "that was the last");
}

/// Whether an idle worker has what is settled written, having looked once more for something to do.
fn written_when_idle(handoff: &Handoff) -> bool {
    let mut next = std::pin::pin!(handoff.next());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(next.as_mut().poll(&mut cx).is_pending() && next.as_mut().poll(&mut cx).is_pending());
    written(handoff)
}

#[tokio::test]
async fn an_idle_worker_keeps_no_ack_whatever_its_prefetch_and_however_close_deliveries_come() {
    for prefetch in [1, 5, 50, 500] {
        let (handoff, _) = with_prefetch(prefetch);
        handoff.push(&mut vec![delivery("0", false)]);
        let mut arrived = handoff.oldest().unwrap();
        handoff.take_unstarted(None);
        for number in 1..=3 {
            arrived += flusher::PERIOD / 2;
            handoff.push(&mut vec![Delivery { arrived, ..delivery("1", false) }]);
            handoff.next().await.unwrap();
            handoff.finish(Verdict::Ack, None);
            assert!(written_when_idle(&handoff), "{number} of prefetch {prefetch}");
            take_settled(&handoff);
        }
    }
}

#[tokio::test]
async fn a_delivery_that_comes_while_the_worker_looks_again_is_done_first() {
    let (handoff, _) = ahead();
    handoff.push(&mut ["0", "1"].map(|body| delivery(body, false)).into());
    handoff.next().await.unwrap();
    handoff.finish(Verdict::Ack, None);
    handoff.take_unstarted(None);
    let mut next = std::pin::pin!(handoff.next());
    assert!(futures_util::poll!(&mut next).is_pending());
    handoff.push(&mut vec![delivery("2", false)]);
    assert!(futures_util::poll!(&mut next).is_ready());
    assert!(!written(&handoff));
}

#[tokio::test(start_paused = true)]
async fn no_ack_waits_for_a_worker_that_does_not_go_on() {
    let (handoff, flusher) = ahead();
    let handoff = Arc::new(handoff);
    let flushing = tokio::spawn(flusher.run(vec![Arc::clone(&handoff)]));
    // Again and again: what was held once is not forgotten the next time.
    for _ in 0..3 {
        handoff.push(&mut ["1", "2"].map(|body| delivery(body, false)).into());
        handoff.next().await.unwrap();
        handoff.finish(Verdict::Ack, None);
        assert!(!written(&handoff));
        tokio::time::timeout(flusher::PERIOD * 2, handoff.changed()).await.unwrap();
        handoff.take_unstarted(None);
        take_settled(&handoff);
    }
    flushing.abort();
}

#[tokio::test]
async fn only_acks_wait_and_none_does_in_a_drain() {
    let (handoff, _) = ahead();
    handoff.push(&mut ["1", "2", "3"].map(|body| delivery(body, false)).into());
    handoff.next().await.unwrap();
    handoff.finish(Verdict::Requeue, None);
    assert!(written(&handoff));
    take_settled(&handoff);
    handoff.next().await.unwrap();
    handoff.stop();
    handoff.finish(Verdict::Ack, None);
    assert!(written(&handoff));
}

#[tokio::test]
async fn an_order_reaches_the_channel_and_a_drain_outranks_the_groups_end() {
    let handoff = Handoff::default();
    handoff.give_order(Order::End);
    handoff.changed().await;
    assert_eq!(handoff.order(), Some(Order::End));
    handoff.give_order(Order::Drain);
    handoff.give_order(Order::End);
    assert_eq!(handoff.order(), Some(Order::Drain));
}
