//! The writer on a channel of a real broker: what the broker holds as unsettled is what counts.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicBool, Ordering},
    task::Wake,
};

use futures_util::StreamExt;
use jm_testkit::{QueueCounts, RabbitNode, Vhost};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};

use super::*;
use crate::{
    consumer::{flusher::Flusher, handoff::Handoff, queue::Queue},
    envelope::Delivery,
};

const LIMIT: Duration = Duration::from_secs(30);

/// A channel with so many deliveries, and a writer for it.
struct Bench {
    vhost: Vhost,
    _connection: Connection,
    channel: Arc<Channel>,
    deliveries: Vec<Delivery>,
    writer: Writer,
}

impl Bench {
    async fn with(count: u16) -> Self {
        let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
        vhost.declare_queue("q").await.unwrap();
        let messages = (0..count).map(|n| (BasicProperties::default(), n.to_string()));
        vhost.publish_many("q", messages).await.unwrap();
        let connection = Connection::connect(&vhost.uri(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.basic_qos(count, BasicQosOptions::default()).await.unwrap();
        let consumed =
            channel.basic_consume("q".into(), "c".into(), BasicConsumeOptions::default(), FieldTable::default()).await;
        let deliveries = consumed.unwrap().take(count.into()).map(|delivery| delivery.unwrap());
        let deliveries =
            deliveries.map(|delivery| Delivery::new(&"q".into(), &Queue::unknown("q"), delivery, Instant::now()));
        let deliveries: Vec<Delivery> = deliveries.collect().await;
        let channel = Arc::new(channel);
        let mut writer = Writer::new(
            Arc::clone(&channel),
            Arc::new(Doorbell::new().unwrap()),
            LIMIT,
            LIMIT,
            &QueueMetrics::new("q", [].into_iter()),
        );
        for delivery in &deliveries {
            writer.arrived(delivery.tag);
        }
        Self { vhost, _connection: connection, channel, deliveries, writer }
    }

    fn ack(&mut self, tags: impl IntoIterator<Item = u64>) {
        for tag in tags {
            self.settle(tag, Verdict::Ack);
        }
    }

    /// Settles the delivery with this tag.
    fn settle(&mut self, tag: u64, verdict: Verdict) {
        let place = self.deliveries.iter().position(|delivery| delivery.tag == tag).unwrap();
        let delivery = self.deliveries.remove(place);
        self.writer.add([Settled { delivery, verdict }]);
    }

    async fn flush(&mut self) {
        poll_fn(|cx| self.writer.poll_flush(cx)).await.unwrap();
    }

    async fn counts_become(&self, wanted: impl Fn(&QueueCounts) -> bool) {
        self.vhost.wait_for_counts("q", LIMIT, wanted).await.unwrap();
    }
}

fn look(writer: &mut Writer) -> Poll<Result<(), String>> {
    writer.poll_begin(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_in_a_row_are_written_as_one() {
    let mut bench = Bench::with(5).await;
    bench.ack(1..=5);
    bench.writer.begin().unwrap();
    assert_eq!(bench.writer.in_flight.as_ref().map(|in_flight| in_flight.count), Some(5));
    bench.flush().await;
    assert!(bench.writer.is_done());
    bench.counts_become(QueueCounts::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_takes_nothing_along_that_is_still_worked_on() {
    let mut bench = Bench::with(5).await;
    // The second one is still in somebody's hands.
    bench.ack([1, 3, 4, 5]);
    bench.flush().await;
    bench.counts_become(|counts| counts.unacked == 1).await;
    bench.settle(2, Verdict::Ack);
    bench.flush().await;
    bench.counts_become(QueueCounts::is_empty).await;
    assert!(bench.channel.status().connected(), "no ack named a tag that the broker did not know");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_between_acks_is_not_acked_with_them() {
    let mut bench = Bench::with(4).await;
    bench.settle(1, Verdict::Ack);
    bench.settle(2, Verdict::Requeue);
    bench.settle(3, Verdict::Ack);
    bench.settle(4, Verdict::Reject);
    bench.flush().await;
    // It comes back to this channel's consumer at once.
    bench.counts_become(|counts| counts.ready + counts.unacked == 1).await;
    assert!(bench.channel.status().connected());
}

#[tokio::test(flavor = "multi_thread")]
async fn settlements_never_overlap() {
    let mut bench = Bench::with(3).await;
    bench.settle(1, Verdict::Ack);
    bench.flush().await;
    // As if the connection took its time for another one.
    bench.settle(2, Verdict::Ack);
    bench.writer.begin().unwrap();
    let real =
        std::mem::replace(&mut bench.writer.in_flight.as_mut().unwrap().written, Box::pin(std::future::pending()));
    bench.settle(3, Verdict::Ack);
    assert!(look(&mut bench.writer).is_pending());
    assert!(bench.writer.has_waiting());
    bench.writer.in_flight.as_mut().unwrap().written = real;
    bench.flush().await;
    bench.counts_become(QueueCounts::is_empty).await;
}

/// Whether it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_does_not_take_the_place_of_the_one_who_waits() {
    let mut bench = Bench::with(2).await;
    bench.settle(1, Verdict::Ack);
    bench.writer.begin().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel();
    bench.writer.in_flight.as_mut().unwrap().written = Box::pin(async {
        ended.await.unwrap();
        Ok(())
    });
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(Arc::clone(&woken));
    assert!(bench.writer.poll_flush(&mut Context::from_waker(&waker)).is_pending());
    bench.settle(2, Verdict::Ack);
    assert!(bench.writer.begin_what_can_be().is_pending());
    end.send(()).unwrap();
    assert!(woken.0.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_an_error_for_good_and_stays_unwritten() {
    let mut bench = Bench::with(3).await;
    bench.channel.close(200, "OK".into()).await.unwrap();
    bench.ack([1, 2]);
    assert!(matches!(look(&mut bench.writer), Poll::Ready(Err(_))));
    bench.settle(3, Verdict::Ack);
    assert!(matches!(look(&mut bench.writer), Poll::Ready(Err(_))), "said again to whoever asks next");
    assert_eq!(bench.writer.into_unwritten().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_or_never_ends_leaves_its_settlements_unwritten() {
    let failed: lapin::Error = lapin::ErrorKind::InvalidChannelState(lapin::ChannelState::Closed, "closed").into();
    for (written, limit) in [(Err(failed), LIMIT), (Ok(()), Duration::ZERO)] {
        let mut bench = Bench::with(2).await;
        bench.writer.limit = limit;
        bench.ack(1..=2);
        bench.writer.begin().unwrap();
        let in_flight = bench.writer.in_flight.as_mut().unwrap();
        assert_eq!(in_flight.count, 2);
        in_flight.written = match written {
            Ok(()) => Box::pin(std::future::pending()),
            failed @ Err(_) => Box::pin(std::future::ready(failed)),
        };
        assert!(matches!(look(&mut bench.writer), Poll::Ready(Err(_))));
        assert_eq!(bench.writer.into_unwritten().count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_another_channel_is_never_written() {
    let mut bench = Bench::with(1).await;
    let mut other = Bench::with(3).await;
    bench.writer.add([Settled { delivery: other.deliveries.remove(2), verdict: Verdict::Ack }]);
    assert!(matches!(look(&mut bench.writer), Poll::Ready(Err(_))));
    assert!(bench.channel.status().connected());
    other.counts_become(|counts| counts.unacked == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_behind_one_that_is_written_late_needs_neither_its_worker_nor_its_channels_task() {
    let Bench { vhost, mut writer, mut deliveries, _connection: connection, .. } = Bench::with(3).await;
    writer.add([Settled { delivery: deliveries.remove(0), verdict: Verdict::Ack }]);
    writer.begin().unwrap();
    // The connection's thread has not come to it yet.
    let (come, coming) = tokio::sync::oneshot::channel();
    let in_flight = writer.in_flight.as_mut().unwrap();
    let written = std::mem::replace(&mut in_flight.written, Box::pin(std::future::pending()));
    in_flight.written = Box::pin(async move {
        coming.await.unwrap();
        written.await
    });

    let flusher = Arc::<Flusher>::default();
    let handoff = Arc::new(Handoff::new(3, Arc::clone(&flusher)));
    handoff.push(&mut deliveries);
    handoff.attach(writer);
    let flushing = tokio::spawn(flusher.run(vec![Arc::clone(&handoff)]));
    handoff.next().await.unwrap();
    handoff.finish(Verdict::Ack, None);
    // Its worker has the next message in hand. Tried, it could not be written; the channel's task does nothing about it.
    handoff.changed().await;
    come.send(()).unwrap();
    vhost.wait_for_counts("q", LIMIT, |counts| counts.unacked == 1).await.unwrap();
    flushing.abort();
    drop(connection);
}
