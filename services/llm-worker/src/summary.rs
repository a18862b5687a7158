//! Summaries of texts of any length: a text longer than the model can read is summarised in parts, and the parts'
//! summaries are summarised again.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use jm_engines::{Call, ChatEngine, ChatRequest, Completion, EngineError, Finished};
use jm_tasks::{ChatMessage, Role};

use crate::{
    cut,
    language::{Asked, Language},
    room::{Room, halved, worth_half},
};

/// Rounds of summaries of summaries. Each makes a text many times shorter.
const MAX_ROUNDS: usize = 6;
/// The longest text: some 400,000 English words. More is no note.
pub(crate) const MAX_TEXT_BYTES: usize = 2 * 1024 * 1024;
/// Parts summarised at the same time: one task must not take the engine for itself.
const PARTS_AT_A_TIME: usize = 2;
/// The summary of a part is at most this share of it, so that a few rounds are enough for any text.
const PART_SHARE: usize = 4;
/// A part's summary may have this many tokens however small the part, if the engine may write as many: less is no
/// sentence.
const LEAST_PART_TOKENS: usize = 64;
/// A text this short is its own summary: there is nothing to leave out, and models make something up.
const SHORTEST_TOKENS: usize = 16;
/// A text longer than this is not looked at for that. Counting the tokens of a long one takes a while.
const SHORTEST_BYTES: usize = 256;
/// Close to the text, without being stiff.
const TEMPERATURE: f32 = 0.3;

/// Summarises with one engine, in one language.
pub(crate) struct Summariser<'a> {
    pub(crate) engine: &'a Arc<dyn ChatEngine>,
    /// Summaries that earlier attempts have paid for.
    pub(crate) finished: &'a Finished<Completion>,
    pub(crate) call: Call,
    pub(crate) language: &'a Language,
}

impl Summariser<'_> {
    /// The summary. Its tokens are those of all calls that went into it.
    pub(crate) async fn summarise(&self, text: &str) -> Result<Completion, EngineError> {
        let mut room = Room::beside(&self.prompt(), self.engine.as_ref())?;
        let mut restarts = 0;
        loop {
            // Our count is an estimate. An engine that counts more than we do says so, and gets smaller parts. All of
            // them: parts that succeeded before are summarised once more, since they are cut elsewhere. That is seldom.
            match self.within(text, room).await {
                Err(error) if worth_half(&error, restarts) => {
                    let (_, tokens) = self.counted(text.to_owned()).await?;
                    let Some(half) = halved(room.text, tokens) else { return Err(error) };
                    restarts += 1;
                    room.text = half;
                }
                result => return result,
            }
        }
    }

    fn prompt(&self) -> String {
        self.engine.summary_prompt().map_or_else(|| self.language.prompt(Asked::Summary), str::to_owned)
    }

    async fn within(&self, text: &str, room: Room) -> Result<Completion, EngineError> {
        let (mut text, mut tokens) = self.counted(text.to_owned()).await?;
        let mut total = Completion { prompt_tokens: Some(0), completion_tokens: Some(0), ..Completion::default() };
        // A summary of parts of which one was cut off is not of the whole text.
        let mut truncated = false;
        for round in 0..=MAX_ROUNDS {
            if tokens <= room.text {
                let last = self.call_engine(text, room.output).await?;
                add_usage(&mut total, &last);
                return Ok(Completion {
                    text: last.text,
                    truncated: truncated || last.truncated,
                    model: last.model,
                    ..total
                });
            }
            if round == MAX_ROUNDS {
                break;
            }
            let parts = self.parts(text, room.text).await?;
            tracing::debug!(round, parts = parts.len(), budget = room.text, "summarising in parts");
            let output = part_tokens(room);
            let parts: Vec<Completion> =
                stream::iter(parts).map(|part| self.part(part, output)).buffered(PARTS_AT_A_TIME).try_collect().await?;
            for part in &parts {
                add_usage(&mut total, part);
                truncated |= part.truncated;
            }
            let before = tokens;
            (text, tokens) =
                self.counted(parts.into_iter().map(|part| part.text).collect::<Vec<_>>().join("\n\n")).await?;
            if tokens >= before {
                // The next round would have as many parts, or more.
                let error =
                    format!("text: of {before} tokens the model made a summary of {tokens}, which is no shorter");
                return Err(EngineError::permanent(error));
            }
        }
        let text = format!("text: still too long for the model after {MAX_ROUNDS} rounds of summaries");
        Err(EngineError::permanent(text))
    }

    /// The text with the number of its tokens. Where the engine really counts, megabytes take it a second.
    async fn counted(&self, text: String) -> Result<(String, usize), EngineError> {
        let engine = Arc::clone(self.engine);
        beside_the_runtime(move || {
            let tokens = engine.count_tokens(&text);
            (text, tokens)
        })
        .await
    }

    /// The text in parts.
    async fn parts(&self, text: String, budget: usize) -> Result<Vec<String>, EngineError> {
        let (engine, cancellation) = (Arc::clone(self.engine), self.call.cancellation.clone());
        let parts = beside_the_runtime(move || cut::parts(&text, budget, engine.as_ref(), &cancellation)).await?;
        parts.ok_or_else(|| EngineError::retryable("nobody waits for the summary any more"))
    }

    /// A part's summary, which an earlier attempt at the same task may have paid for.
    async fn part(&self, text: String, max_tokens: usize) -> Result<Completion, EngineError> {
        let key = self.finished.key(&(self.prompt(), &text, max_tokens));
        if let Some(finished) = self.finished.get(key) {
            return Ok(finished);
        }
        let completion = self.call_engine(text, max_tokens).await?;
        self.finished.keep(key, completion.clone());
        Ok(completion)
    }

    async fn call_engine(&self, text: String, max_tokens: usize) -> Result<Completion, EngineError> {
        let messages = vec![
            ChatMessage { role: Role::System, content: self.prompt() },
            ChatMessage { role: Role::User, content: text },
        ];
        let max_tokens = Some(u32::try_from(max_tokens).unwrap_or(u32::MAX));
        let request = ChatRequest { messages, max_tokens, temperature: Some(TEMPERATURE) };
        self.engine.complete(&request, &self.call).await
    }
}

/// The text itself, if it is short and need not be translated.
pub(crate) fn as_it_is(text: &str, engine: &dyn ChatEngine) -> Option<Completion> {
    let text = text.trim();
    let short = text.len() <= SHORTEST_BYTES && engine.count_tokens(text) <= SHORTEST_TOKENS;
    short.then(|| Completion {
        text: text.to_owned(),
        truncated: false,
        model: engine.model().to_owned(),
        prompt_tokens: Some(0),
        completion_tokens: Some(0),
    })
}

/// Work on a text, on a thread that may take its time.
pub(crate) async fn beside_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| EngineError::retryable("the work on the text was cut short"))
}

/// The most tokens of a part's summary.
fn part_tokens(room: Room) -> usize {
    room.output.min((room.text / PART_SHARE).max(LEAST_PART_TOKENS))
}

pub(crate) fn add_usage(total: &mut Completion, part: &Completion) {
    let add = |total: Option<u64>, part: Option<u64>| Some(total? + part?);
    total.prompt_tokens = add(total.prompt_tokens, part.prompt_tokens);
    total.completion_tokens = add(total.completion_tokens, part.completion_tokens);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::room::tests::engine;

    #[tokio::test]
    async fn a_long_text_is_cut_beside_the_runtime_and_only_as_long_as_somebody_waits() {
        let language = Language::choose(Some("en"), "");
        let (engine, finished) = (engine(512, 256), Finished::new(1, Duration::ZERO));
        let summariser =
            Summariser { engine: &engine, finished: &finished, call: Call::default(), language: &language };
        let text = "字".repeat(MAX_TEXT_BYTES / 3);
        // The runtime has one thread: a cut on it would be done before anybody could give up.
        let giving_up = async { summariser.call.cancellation.cancel() };
        let (parts, ()) = tokio::join!(summariser.parts(text, 128), giving_up);
        assert_eq!(parts.unwrap_err().to_string(), "nobody waits for the summary any more");
    }

    #[test]
    fn a_parts_summary_is_a_quarter_of_it_at_most() {
        for (room, most) in [((7000, 1024), 1024), ((600, 400), 150), ((128, 128), 64), ((128, 10), 10)] {
            assert_eq!(part_tokens(Room { text: room.0, output: room.1 }), most);
        }
    }
}
