//! What an event changes: the newest revision wins, in whatever order and however often events arrive.
//!
//! A state grows in one direction only. Its numbers are maxima (of the revisions of contents, of deletions, of each
//! stage's results), and whatever else it holds belongs to one of them; so it is a join-semilattice, and events commute
//! and repeat without effect. Two different contents, or two different results of one stage, under one revision are the
//! exception that producers must not make: there, the first one stays.
//!
//! | event | changes the state | otherwise |
//! |---|---|---|
//! | content at `r` | `r` is newer than all content and all deletions | `repeated` (`r` is the record's), `late`, `deleted` |
//! | deletion up to `d` | `d` is newer than all deletions; erases content and results up to `d` | `repeated`, `late` |
//! | result of a stage at `r` | `r` is newer than the stage's result and all deletions | `repeated`, `late`, `deleted` |
//!
//! A result may be older than the record (it is shown until its successor arrives) or newer (its content is still on
//! the way). It may even come before anything else: then the record is a placeholder of revision 0.

use std::collections::BTreeMap;

use jm_tasks::{RecordContent, Stage};

use crate::event::{Change, Finding, Revision};

/// `deleted_revision` of a record that is deleted for good: greater than any revision.
pub const FOR_GOOD: i64 = i64::MAX;

/// What is known of a record, as far as events and the pipeline need it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordState {
    /// The newest revision heard of, by content or by deletion; 0 if none.
    pub revision: i64,
    /// Everything up to this is deleted; 0 is nothing, [`FOR_GOOD`] is all there will ever be.
    pub deleted_revision: i64,
    /// The record at `revision`; `None` when that is deleted or unknown.
    pub content: Option<RecordContent>,
    /// The newest result of each stage.
    pub results: BTreeMap<Stage, StageResult>,
}

/// A stage's newest result.
#[derive(Clone, Debug, PartialEq)]
pub struct StageResult {
    /// The record's revision it is about.
    pub revision: i64,
    /// What the next tasks need of it.
    pub finding: Finding,
}

/// What became of an event; a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It changed something.
    Applied,
    /// It is known already.
    Repeated,
    /// Something newer is known.
    Late,
    /// What it is about has been deleted.
    Deleted,
    /// It is about no record.
    NoRecord,
    /// It is about a record, and no part of it.
    NotKept,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Applied, Self::Repeated, Self::Late, Self::Deleted, Self::NoRecord, Self::NotKept];

    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Repeated => "repeated",
            Self::Late => "late",
            Self::Deleted => "deleted",
            Self::NoRecord => "no_record",
            Self::NotKept => "not_kept",
        }
    }
}

/// The state after an event. Unless the outcome is [`Outcome::Applied`], it is the state before.
#[must_use]
pub fn apply(state: RecordState, change: &Change) -> (RecordState, Outcome) {
    match change {
        Change::Content { revision, content } => apply_content(state, *revision, content),
        Change::Deletion { revision } => apply_deletion(state, revision.map_or(FOR_GOOD, Revision::get)),
        Change::Finding { stage, revision, finding, .. } => apply_finding(state, *stage, revision.get(), finding),
    }
}

fn apply_content(mut state: RecordState, revision: Revision, content: &RecordContent) -> (RecordState, Outcome) {
    let revision = revision.get();
    if revision <= state.deleted_revision {
        return (state, Outcome::Deleted);
    }
    if revision <= state.revision {
        let outcome = if revision == state.revision { Outcome::Repeated } else { Outcome::Late };
        return (state, outcome);
    }
    state.revision = revision;
    state.content = Some(content.clone());
    (state, Outcome::Applied)
}

fn apply_deletion(mut state: RecordState, up_to: i64) -> (RecordState, Outcome) {
    if up_to <= state.deleted_revision {
        let outcome = if up_to == state.deleted_revision { Outcome::Repeated } else { Outcome::Late };
        return (state, outcome);
    }
    state.deleted_revision = up_to;
    if up_to >= state.revision {
        state.revision = up_to;
        state.content = None;
    }
    state.results.retain(|_, result| result.revision > up_to);
    (state, Outcome::Applied)
}

fn apply_finding(mut state: RecordState, stage: Stage, revision: i64, finding: &Finding) -> (RecordState, Outcome) {
    if revision <= state.deleted_revision {
        return (state, Outcome::Deleted);
    }
    let known = state.reached(stage);
    if revision <= known {
        let outcome = if revision == known { Outcome::Repeated } else { Outcome::Late };
        return (state, outcome);
    }
    state.results.insert(stage, StageResult { revision, finding: finding.clone() });
    (state, Outcome::Applied)
}

impl RecordState {
    /// The revision of the stage's newest result; 0 without one.
    pub fn reached(&self, stage: Stage) -> i64 {
        self.results.get(&stage).map_or(0, |result| result.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Outcome::{Applied, Deleted, Late, Repeated},
        *,
    };
    use proptest::prelude::*;

    fn content(revision: u64) -> Change {
        let text = Some(format!("text {revision}"));
        Change::Content {
            revision: revision.try_into().unwrap(),
            content: RecordContent { text, ..RecordContent::default() },
        }
    }

    fn deletion(revision: Option<u64>) -> Change {
        Change::Deletion { revision: revision.map(|revision| revision.try_into().unwrap()) }
    }

    fn finding(stage: Stage, revision: u64) -> Change {
        let finding = Finding::Transcript(format!("{stage} {revision}"));
        Change::Finding { stage, revision: revision.try_into().unwrap(), finding, body: String::new() }
    }

    fn after(changes: &[Change]) -> (RecordState, Vec<Outcome>) {
        let mut outcomes = Vec::new();
        let state = changes.iter().fold(RecordState::default(), |state, change| {
            let (state, outcome) = apply(state, change);
            outcomes.push(outcome);
            state
        });
        (state, outcomes)
    }

    #[test]
    fn the_newest_content_wins_and_the_outcome_says_why_another_did_not() {
        let (state, outcomes) = after(&[content(2), content(2), content(1), content(3)]);
        assert_eq!(outcomes, [Applied, Repeated, Late, Applied]);
        assert_eq!((state.revision, state.content.unwrap().text.unwrap().as_str()), (3, "text 3"));
    }

    #[test]
    fn a_deletion_erases_what_is_not_newer_and_refuses_what_arrives_late() {
        let (state, outcomes) = after(&[
            content(4),
            finding(Stage::Summary, 2),
            finding(Stage::Embedding, 4),
            deletion(Some(3)),
            content(3),
            finding(Stage::Title, 3),
            deletion(Some(3)),
            deletion(Some(2)),
        ]);
        assert_eq!(outcomes, [Applied, Applied, Applied, Applied, Deleted, Deleted, Repeated, Late]);
        assert_eq!((state.revision, state.deleted_revision, state.content.is_some()), (4, 3, true));
        assert_eq!(state.results.keys().copied().collect::<Vec<_>>(), [Stage::Embedding]);

        let (state, _) = after(&[content(4), finding(Stage::Summary, 4), deletion(Some(4))]);
        assert_eq!(state, RecordState { revision: 4, deleted_revision: 4, ..RecordState::default() });
    }

    #[test]
    fn a_greater_revision_restores_a_record_unless_it_was_deleted_for_good() {
        let (state, outcomes) = after(&[content(1), deletion(Some(1)), content(2)]);
        assert_eq!(outcomes, [Applied; 3]);
        assert!(state.content.is_some());
        let (state, outcomes) = after(&[content(1), deletion(None), content(9_223_372_036_854_775_806)]);
        assert_eq!(outcomes[2], Deleted);
        assert_eq!((state.revision, state.content), (FOR_GOOD, None));
    }

    #[test]
    fn a_result_may_come_before_its_record_and_may_be_older_or_newer_than_it() {
        let (state, outcomes) = after(&[
            finding(Stage::Summary, 2),
            finding(Stage::Summary, 1),
            finding(Stage::Summary, 2),
            content(1),
            content(3),
        ]);
        assert_eq!(outcomes, [Applied, Late, Repeated, Applied, Applied]);
        assert_eq!((state.revision, state.reached(Stage::Summary)), (3, 2));
    }

    fn any_change() -> impl Strategy<Value = Change> {
        // Few revisions, so that they meet.
        prop_oneof![
            4 => (1..8_u64).prop_map(content),
            2 => prop_oneof![4 => (1..8_u64).prop_map(Some), 1 => Just(None)].prop_map(deletion),
            6 => (prop::sample::select(Stage::ALL.to_vec()), 1..8_u64).prop_map(|(stage, r)| finding(stage, r)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_final_state_does_not_depend_on_order_or_repetition(
            (changes, shuffled) in prop::collection::vec(any_change(), 0..14).prop_flat_map(|changes| {
                let thrice: Vec<Change> = changes.iter().cycle().take(3 * changes.len()).cloned().collect();
                (Just(changes), Just(thrice).prop_shuffle())
            })
        ) {
            prop_assert_eq!(after(&changes).0, after(&shuffled).0);
        }

        #[test]
        fn an_event_changes_the_state_exactly_when_it_says_so(changes in prop::collection::vec(any_change(), 1..14)) {
            let mut state = RecordState::default();
            for change in &changes {
                let (next, outcome) = apply(state.clone(), change);
                prop_assert_eq!(next != state, outcome == Applied);
                let (again, repeated) = apply(next.clone(), change);
                prop_assert_eq!(&again, &next);
                prop_assert_ne!(repeated, Applied);
                state = next;
            }
        }
    }
}
