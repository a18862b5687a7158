//! Any text survives.

use jm_tasks::LlmTask;
use record_event_worker::PipelineOptions;

use crate::support::{Database, completed, created, cx, id, text_content, transcribed};

on_both!(any_character_survives, a_megabyte_survives);

async fn any_character_survives(database: Database) {
    let worker = database.worker().await;
    let texts = [
        "\u{0}between\u{0}",
        "笔记 📝 e\u{301} \u{202e}right to left\u{2028}",
        "'; DROP TABLE records; -- $1 ? %s \\u0000 \\",
        "\u{1}\u{7f}\u{ffff}\u{10ffff}\"quoted\"\r\n\t",
    ];
    for (number, text) in texts.into_iter().enumerate() {
        let record = format!("记录-{number} '\"\\ 📝");
        let mut content = text_content(text);
        content.title = Some(text.into());
        let answers = worker.tries(&created(&record, 1, content.clone()), &cx()).await.unwrap();
        let summarize = &answers.messages()[1];
        let task: serde_json::Value = serde_json::from_slice(summarize.message().body()).unwrap();
        assert_eq!(task["text"], text);
        let (said, summary) = (transcribed(&record, 1, text), completed(&record, 1, LlmTask::Summarize, text));
        worker.takes(&said).await;
        worker.takes(&summary).await;
        let view = worker.store.record(&id(&record)).await.unwrap().unwrap();
        assert_eq!(view.content, Some(content));
        assert_eq!((view.transcription, view.summary), (Some(said), Some(summary)));
    }
}

async fn a_megabyte_survives(database: Database) {
    let worker = database.worker_with(PipelineOptions { passage_chars: 5000, ..PipelineOptions::default() }).await;
    let text = "All of it, 一句也不少。 ".repeat(40_000);
    assert!(text.len() > 1_000_000);
    let answers = worker.tries(&created("r", 1, text_content(&text)), &cx()).await.unwrap();
    let embed: serde_json::Value = serde_json::from_slice(answers.messages()[0].message().body()).unwrap();
    let passages = embed["texts"].as_array().unwrap();
    assert!(passages.iter().all(|passage| (1..=5000).contains(&passage.as_str().unwrap().chars().count())));
    let without_blanks = |text: &str| text.chars().filter(|letter| !letter.is_whitespace()).collect::<String>();
    let together: String = passages.iter().map(|passage| without_blanks(passage.as_str().unwrap())).collect();
    assert!(together == without_blanks(&text), "the passages are the text, in order");
    let view = worker.store.record(&id("r")).await.unwrap().unwrap();
    assert!(view.content == Some(text_content(&text)));
}
