//! A record as it is kept.

use console::Style;
use record_event_worker::{DeletedUpTo, RecordView};

use crate::page::Page;

/// All that is stored of a record.
pub fn record(view: &RecordView, coloured: bool) -> String {
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
        let label = page.styled(Style::new().yellow(), "under way");
        let words = format!("{stage} since {}, task {}", task.started_at.strftime("%Y-%m-%d %H:%M:%S"), task.task_id);
        page.wrapped_entry(&label, &words);
    }
    page.into_text()
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

    use std::collections::BTreeMap;

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
        let page = record(&view(), false);
        for line in page.lines() {
            assert!(console::measure_text_width(line) <= 80, "{line}");
        }
        assert!(page.contains("record     r-1, revision 3") && !page.contains('\u{1b}'), "{page}");
    }

    #[test]
    fn what_was_deleted_is_said() {
        let gone = RecordView { content: None, revision: None, deleted: Some(DeletedUpTo::ForGood), ..view() };
        assert!(record(&gone, false).contains("record     r-1, deleted"));
        let older = RecordView { deleted: Some(DeletedUpTo::Revision(2)), ..view() };
        assert!(record(&older, false).contains("revision 3, deleted up to revision 2"));
    }
}
