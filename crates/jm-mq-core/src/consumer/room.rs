//! Room for the bodies that are worked on at a time.
//!
//! While a message is worked on its body is in memory several times: as it came, decoded, read, and copied into the
//! frames of a dead letter. What waits in a channel is there once, and only the prefetch limits it.

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{envelope::Work, options::ConsumerOptions};

/// One consumer's room, in bytes. Those who wait for it get it in turn.
pub(super) struct WorkRoom {
    bytes: Semaphore,
    all: usize,
    max_body_bytes: usize,
}

/// Some of the room, given back when dropped.
pub(super) struct Reserved<'a>(SemaphorePermit<'a>);

impl WorkRoom {
    pub(super) fn new(options: &ConsumerOptions) -> Self {
        let all = options.max_bytes_in_work;
        Self { bytes: Semaphore::new(all), all, max_body_bytes: options.max_body_bytes }
    }

    /// Waits until there is room for the body. One that is larger than all of the room has all of it.
    pub(super) async fn reserve(&self, work: &Work) -> Reserved<'_> {
        let compressed = work.envelope.properties().content_encoding().is_some();
        // How large it will be decoded is known afterwards.
        let bytes = if compressed { work.body.len().max(self.max_body_bytes) } else { work.body.len() };
        let bytes = u32::try_from(bytes.min(self.all)).unwrap_or(u32::MAX);
        match self.bytes.acquire_many(bytes).await {
            Ok(permit) => Reserved(permit),
            Err(_) => unreachable!("nobody closes it"),
        }
    }
}

impl Reserved<'_> {
    /// Gives back what the body, as it came and decoded, does not need.
    pub(super) fn shrink(&mut self, came: &Bytes, decoded: &Bytes) {
        let excess = self.0.num_permits().saturating_sub(came.len() + decoded.len());
        drop(self.0.split(excess));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use lapin::BasicProperties;

    use super::*;
    use crate::envelope::{Envelope, Past};

    fn work(bytes: usize, encoding: Option<&str>) -> Work {
        let mut properties = BasicProperties::default();
        if let Some(encoding) = encoding {
            properties = properties.with_content_encoding(encoding.into());
        }
        let (exchange, routing_key) = ("".into(), "q".into());
        let envelope = Envelope {
            queue: "q".into(),
            exchange,
            routing_key,
            redelivered: false,
            properties,
            past: Past::default(),
        };
        Work { envelope: Arc::new(envelope), body: vec![0; bytes].into(), nacks_count: false }
    }

    fn room() -> WorkRoom {
        WorkRoom::new(&ConsumerOptions { max_bytes_in_work: 100, max_body_bytes: 80, ..ConsumerOptions::default() })
    }

    #[test]
    fn bodies_have_room_together_and_one_that_is_too_large_has_all_of_it() {
        let room = room();
        let reserve = |bytes| room.reserve(&work(bytes, None)).now_or_never();
        let (first, second) = (reserve(60).unwrap(), reserve(40).unwrap());
        assert!(reserve(0).is_some() && reserve(1).is_none());
        drop(second);
        assert!(reserve(41).is_none() && reserve(40).is_some());
        drop(first);
        let whole = reserve(1000).unwrap();
        assert!(reserve(1).is_none());
        drop(whole);
        assert!(reserve(100).is_some());
    }

    #[tokio::test]
    async fn small_ones_do_not_pass_a_large_one_that_waits() {
        let room = room();
        let (first, large, small) = (work(60, None), work(80, None), work(1, None));
        let first = room.reserve(&first).await;
        let mut waiting = Box::pin(room.reserve(&large));
        assert!((&mut waiting).now_or_never().is_none() && room.reserve(&small).now_or_never().is_none());
        drop(first);
        assert!((&mut waiting).now_or_never().is_some());
    }

    #[test]
    fn a_compressed_body_has_room_for_what_it_may_become_until_that_is_known() {
        let room = room();
        let gzip = work(5, Some("gzip"));
        let mut reserved = room.reserve(&gzip).now_or_never().unwrap();
        assert!(room.reserve(&work(21, None)).now_or_never().is_none());
        reserved.shrink(&gzip.body, &vec![0; 30].into());
        assert!(room.reserve(&work(66, None)).now_or_never().is_none());
        assert!(room.reserve(&work(65, None)).now_or_never().is_some());
        drop(reserved);
        assert!(room.reserve(&work(100, None)).now_or_never().is_some());
    }
}
