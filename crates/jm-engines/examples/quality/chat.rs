//! Chat: whether answers come to an end, and how soon.

use std::time::Instant;

use anyhow::{Result, anyhow};
use jm_engines::{Call, ChatRequest};
use jm_tasks::{ChatMessage, Role};

use crate::{
    embedded, loaded,
    report::{Bound, Report, Row, Unit, whole},
};

/// For the first answer, on a note of two hundred words.
const TIME: Bound = Bound::Below(10.0);

/// About two hundred words, as somebody would write them after a meeting.
const NOTE: &str = "\
Weekly meeting of the mobile team, Tuesday, ten to eleven.

Anna reported that the new recording screen is finished. It has been tested on four phones; on the oldest one the \
waveform is drawn too slowly, so she will draw only every second bar there. The screen goes to the beta users on \
Thursday.

Ben looked into the crash that some users saw after a long call. It happens when the phone runs out of storage while \
a recording is being saved. He has a fix that keeps the first part of the recording and tells the user about it. It \
still needs a review, and Clara offered to do that tomorrow.

The upload of long recordings was discussed for some time. At the moment an interrupted upload starts again from the \
beginning. The server can already take files in pieces, so the app should send them in pieces of five megabytes and \
remember which ones have arrived. David estimates a week for it. We agreed to start after the beta is out.

Finally, the design of the search page: everybody likes the second draft best. Eva will add the empty state and the \
dark colours, and show it again next week. The next meeting is on Tuesday at ten.";

const SUMMARY: &str = "a summary of a note";

struct Prompt {
    name: &'static str,
    task: &'static str,
    note: bool,
    max_tokens: u32,
}

const PROMPTS: [Prompt; 4] = [
    // As llm-worker asks for it, if the model has no prompt of its own.
    Prompt { name: SUMMARY, task: "Summarise this note in at most three sentences.", note: true, max_tokens: 256 },
    Prompt {
        name: "a title for a note",
        task: "Write a title of at most eight words for this note. Answer with the title alone.",
        note: true,
        max_tokens: 256,
    },
    Prompt {
        name: "a question about a note",
        task: "Answer in one sentence: what happens when the phone runs out of storage?",
        note: true,
        max_tokens: 128,
    },
    Prompt {
        name: "a question",
        task: "What is the capital of France? Answer in one sentence.",
        note: false,
        max_tokens: 64,
    },
];

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let engine = loaded(embedded().chat())?;
    let mut first = None;
    let mut ended = 0;
    for prompt in &PROMPTS {
        let message = |role, content: &str| ChatMessage { role, content: content.to_owned() };
        let messages = match engine.summary_prompt().filter(|_| prompt.name == SUMMARY) {
            Some(own) => vec![message(Role::System, own), message(Role::User, NOTE)],
            None if prompt.note => vec![message(Role::User, &format!("{}\n\n{NOTE}", prompt.task))],
            None => vec![message(Role::User, prompt.task)],
        };
        // As llm-worker has it for notes; the same request has the same answer every time.
        let request = ChatRequest { messages, max_tokens: Some(prompt.max_tokens), temperature: Some(0.3) };
        let begun = Instant::now();
        let answer = engine.complete(&request, &Call::default()).await.map_err(|error| anyhow!("{error}"))?;
        first.get_or_insert(begun.elapsed());
        ended += usize::from(!answer.truncated && !answer.text.trim().is_empty());
        report.add(Row {
            measure: "tokens of an answer",
            input: prompt.name.into(),
            figure: whole(engine.count_tokens(&answer.text)),
            unit: Unit::Count,
            bound: Bound::AtMost(prompt.max_tokens.into()),
        });
    }
    report.add(Row {
        measure: "answers that come to an end of their own",
        input: format!("{} questions", PROMPTS.len()),
        figure: whole(ended),
        unit: Unit::Count,
        bound: Bound::AtLeast(whole(PROMPTS.len())),
    });
    report.add(Row {
        measure: "time of the first answer",
        input: "a summary of a note of 200 words".into(),
        figure: first.unwrap_or_default().as_secs_f64(),
        unit: Unit::Seconds,
        bound: TIME,
    });
    Ok(())
}
