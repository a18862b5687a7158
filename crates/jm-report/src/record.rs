//! A record as it is kept.

use std::collections::BTreeMap;

use console::Style;
use jm_tasks::Stage;
use record_event_worker::{DeletedUpTo, RecordView};
use serde::Serialize;

use crate::page::Page;

/// What has become of a task whose result has not arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Fate {
    /// It is no dead letter: it waits, or a worker has it.
    NotDead,
    /// It is a dead letter.
    Dead {
        /// In this queue.
        queue: String,
        /// The kind of failure, as the worker or the broker noted it.
        error_kind: Option<String>,
        /// The error's text.
        error: Option<String>,
        /// When it was given up.
        failed_at: Option<String>,
    },
    /// Nobody looked, or it could not be found out.
    Unknown {
        /// For this reason.
        why: String,
    },
}

/// What has become of a record's tasks.
pub type Fates = BTreeMap<Stage, Fate>;

/// All that is stored of a record, and the fates of its tasks.
pub fn record(view: &RecordView, fates: &Fates, coloured: bool) -> Page {
    let mut page = Page::new(coloured);
    let content = view.content.as_ref();
    let title = content.and_then(|content| content.title.as_deref());
    page.heading(title.unwrap_or(view.record_id.as_str()));
    page.wrapped_entry("record", &format!("{}{}", view.record_id, revision(view)));
    if let Some(text) = content.and_then(|content| content.text.as_deref()) {
        page.wrapped_entry("text", text);
    }
    page.transcript(view);
    page.results(view);
    for (stage, task) in &view.tasks {
        let words = format!("{stage} since {}, task {}", task.started_at.strftime("%Y-%m-%d %H:%M:%S"), task.task_id);
        let (style, label, more) = match fates.get(stage) {
            Some(Fate::NotDead) => (Style::new().yellow(), "under way", String::new()),
            Some(Fate::Dead { queue, error_kind, error, failed_at }) => {
                let [kind, error, at] = [error_kind, error, failed_at].map(|text| text.as_deref().unwrap_or("unknown"));
                let look = format!("`jm dead show {queue} --exact --id {}`", task.task_id);
                (
                    Style::new().red().bold(),
                    "dead",
                    format!("; dead letter in {queue} since {at}, {kind}: {error}; {look}"),
                )
            }
            Some(Fate::Unknown { why }) => {
                (Style::new().yellow(), "no result", format!("; whether it is a dead letter is not known: {why}"))
            }
            None => (Style::new().yellow(), "no result", String::new()),
        };
        let label = page.styled(style, label);
        page.wrapped_entry(&label, &format!("{words}{more}"));
    }
    page
}

fn revision(view: &RecordView) -> String {
    let revision = view.revision.map(|revision| format!(", revision {revision}")).unwrap_or_default();
    let deleted = match view.deleted {
        None => String::new(),
        Some(DeletedUpTo::Revision(up_to)) => format!(", deleted up to revision {up_to}"),
        Some(DeletedUpTo::ForGood) => ", deleted".to_owned(),
    };
    format!("{revision}{deleted}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

    use jm_tasks::{RecordContent, RecordId};

    use super::*;

    fn view() -> RecordView {
        RecordView {
            record_id: RecordId::new("r-1").unwrap(),
            revision: Some(3),
            deleted: None,
            content: Some(RecordContent {
                title: Some("五月\u{1b}[2J去杭州".into()),
                text: Some("第一天上午到。".repeat(30)),
                ..RecordContent::default()
            }),
            diarization: None,
            transcription: None,
            embedding: None,
            summary: None,
            title: None,
            tasks: BTreeMap::new(),
        }
    }

    #[test]
    fn a_record_fits_eighty_columns_and_obeys_nobody() {
        let page = record(&view(), &Fates::new(), false).into_text();
        for line in page.lines() {
            assert!(console::measure_text_width(line) <= 80, "{line}");
        }
        assert!(page.contains("record     r-1, revision 3") && !page.contains('\u{1b}'), "{page}");
    }

    #[test]
    fn what_was_deleted_is_said() {
        let gone = RecordView { content: None, revision: None, deleted: Some(DeletedUpTo::ForGood), ..view() };
        assert!(record(&gone, &Fates::new(), false).into_text().contains("record     r-1, deleted"));
        let older = RecordView { deleted: Some(DeletedUpTo::Revision(2)), ..view() };
        assert!(record(&older, &Fates::new(), false).into_text().contains("revision 3, deleted up to revision 2"));
    }
}
