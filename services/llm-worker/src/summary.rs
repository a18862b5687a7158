//! Summaries of texts of any length: a text longer than the model can read is summarised in parts, and the parts'
//! summaries are summarised again.

use futures_util::{StreamExt, TryStreamExt, stream};
use jm_engines::{Call, ChatEngine, ChatRequest, Completion, EngineError};
use jm_tasks::{ChatMessage, Role};
use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};

use crate::language::{Asked, Language};

/// What a chat template adds to prompt and text, with something to spare.
const TEMPLATE_TOKENS: usize = 64;
/// Below this a part says nothing worth summarising.
const LEAST_TOKENS: usize = 128;
/// Rounds of summaries of summaries. Each makes a text many times shorter.
const MAX_ROUNDS: usize = 6;
/// The longest text: some 400,000 English words. More is no note.
pub(crate) const MAX_TEXT_BYTES: usize = 2 * 1024 * 1024;
/// Parts summarised at the same time: one task must not take the engine for itself.
const PARTS_AT_A_TIME: usize = 2;
/// Close to the text, without being stiff.
const TEMPERATURE: f32 = 0.3;

/// Summarises with one engine, in one language.
pub(crate) struct Summariser<'a> {
    pub(crate) engine: &'a dyn ChatEngine,
    pub(crate) call: Call,
    pub(crate) language: &'a Language,
}

impl Summariser<'_> {
    /// The summary. Its tokens are those of all calls that went into it.
    pub(crate) async fn summarise(&self, text: &str) -> Result<Completion, EngineError> {
        let mut budget = self.budget();
        loop {
            // Our count is an estimate. An engine that counts more than we do says so, and gets smaller parts.
            match self.within(text, budget).await {
                Err(error) if error.is_too_long() && budget / 2 >= LEAST_TOKENS => {
                    budget = (budget.min(self.engine.count_tokens(text)) / 2).max(LEAST_TOKENS);
                }
                result => return result,
            }
        }
    }

    /// The tokens of text that fit into one call.
    fn budget(&self) -> usize {
        let prompt = self.engine.count_tokens(&self.language.prompt(Asked::Summary));
        let taken = prompt + self.engine.max_output_tokens() + TEMPLATE_TOKENS;
        self.engine.context_tokens().saturating_sub(taken).max(LEAST_TOKENS)
    }

    async fn within(&self, text: &str, budget: usize) -> Result<Completion, EngineError> {
        let mut text = text.to_owned();
        let mut total = Completion { prompt_tokens: Some(0), completion_tokens: Some(0), ..Completion::default() };
        for round in 0..=MAX_ROUNDS {
            if self.engine.count_tokens(&text) <= budget {
                let last = self.call_engine(&text).await?;
                add_usage(&mut total, &last);
                return Ok(Completion { text: last.text, truncated: last.truncated, model: last.model, ..total });
            }
            if round == MAX_ROUNDS {
                break;
            }
            let parts = split(&text, budget, self.engine);
            tracing::debug!(round, parts = parts.len(), budget, "summarising in parts");
            let parts: Vec<Completion> = stream::iter(parts)
                .map(|part| async move { self.call_engine(&part).await })
                .buffered(PARTS_AT_A_TIME)
                .try_collect()
                .await?;
            for part in &parts {
                add_usage(&mut total, part);
            }
            text = parts.into_iter().map(|part| part.text).collect::<Vec<_>>().join("\n\n");
        }
        let text = format!("text: still too long for the model after {MAX_ROUNDS} rounds of summaries");
        Err(EngineError::permanent(text))
    }

    async fn call_engine(&self, text: &str) -> Result<Completion, EngineError> {
        let messages = vec![
            ChatMessage { role: Role::System, content: self.language.prompt(Asked::Summary) },
            ChatMessage { role: Role::User, content: text.to_owned() },
        ];
        let request = ChatRequest { messages, max_tokens: None, temperature: Some(TEMPERATURE) };
        self.engine.complete(&request, &self.call).await
    }
}

fn add_usage(total: &mut Completion, part: &Completion) {
    let add = |total: Option<u64>, part: Option<u64>| Some(total? + part?);
    total.prompt_tokens = add(total.prompt_tokens, part.prompt_tokens);
    total.completion_tokens = add(total.completion_tokens, part.completion_tokens);
}

/// The text in parts of at most `budget` tokens each, cut between paragraphs, sentences or words, as well as may be.
fn split(text: &str, budget: usize, engine: &dyn ChatEngine) -> Vec<String> {
    let splitter = TextSplitter::new(ChunkConfig::new(budget).with_sizer(Tokens(engine)));
    splitter.chunks(text).map(str::to_owned).collect()
}

/// The beginning of a text, of at most `budget` tokens.
pub(crate) fn beginning<'a>(text: &'a str, budget: usize, engine: &dyn ChatEngine) -> &'a str {
    // No token is longer than this, or it is none of a note's.
    let page = text.floor_char_boundary(budget.saturating_mul(32));
    let splitter = TextSplitter::new(ChunkConfig::new(budget).with_sizer(Tokens(engine)));
    splitter.chunks(&text[..page]).next().unwrap_or(text)
}

struct Tokens<'a>(&'a dyn ChatEngine);

impl ChunkSizer for Tokens<'_> {
    fn size(&self, chunk: &str) -> usize {
        self.0.count_tokens(chunk)
    }
}
