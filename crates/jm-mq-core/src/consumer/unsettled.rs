//! Which deliveries of a channel the broker still waits for, and what one `ack` with `multiple` may therefore say.
//!
//! `multiple` settles everything up to a tag, whatever its worker thinks of it. So the rule stands here, by itself: acks
//! become one only if they are the oldest unsettled deliveries of their channel, without a gap.

use std::collections::VecDeque;

/// The tags that came by a channel and were not handed to the connection again, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unsettled(VecDeque<u64>);

impl Unsettled {
    /// A delivery has come by the channel.
    pub(super) fn arrived(&mut self, tag: u64) {
        self.0.push_back(tag);
    }

    /// How many of these acks, from the first on, may be written as one; zero if the first must go alone.
    pub(super) fn settled_in_a_row(&self, acks: impl Iterator<Item = u64>) -> usize {
        acks.zip(&self.0).take_while(|(ack, oldest)| ack == *oldest).count()
    }

    /// The oldest deliveries are settled.
    pub(super) fn remove_oldest(&mut self, count: usize) {
        self.0.drain(..count);
    }

    /// One delivery is settled. `false` if the broker does not wait for it: such a tag would cost the channel.
    #[must_use]
    pub(super) fn remove(&mut self, tag: u64) -> bool {
        let place = self.0.iter().position(|unsettled| *unsettled == tag);
        place.and_then(|place| self.0.remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tags: impl IntoIterator<Item = u64>) -> Unsettled {
        let mut unsettled = Unsettled::default();
        for tag in tags {
            unsettled.arrived(tag);
        }
        unsettled
    }

    #[test]
    fn acks_become_one_only_as_far_as_all_earlier_deliveries_are_among_them() {
        let unsettled = of(1..=6);
        for (acks, together) in [
            (vec![1], 1),
            (vec![1, 2, 3], 3),
            // The second one is still worked on.
            (vec![1, 3, 4], 1),
            // The first one is.
            (vec![2, 3, 4], 0),
            (vec![1, 2, 3, 4, 5, 6], 6),
            (vec![2, 1], 0),
            (vec![], 0),
        ] {
            assert_eq!(unsettled.settled_in_a_row(acks.iter().copied()), together, "{acks:?}");
        }
    }

    #[test]
    fn what_was_given_back_leaves_no_gap_and_what_is_still_held_does() {
        let mut unsettled = of(1..=5);
        assert!(unsettled.remove(2), "a nack");
        assert_eq!(unsettled.settled_in_a_row([1, 3, 4].into_iter()), 3);
        unsettled.remove_oldest(3);
        assert_eq!(unsettled.settled_in_a_row([5].into_iter()), 1);
    }

    #[test]
    fn a_tag_is_settled_once_and_only_on_its_own_channel() {
        let mut unsettled = of([7]);
        assert!(!unsettled.remove(6));
        assert!(unsettled.remove(7));
        assert!(!unsettled.remove(7));
    }
}
