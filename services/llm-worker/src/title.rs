//! Titles of texts: found in their beginning.

use std::sync::Arc;

use jm_engines::{Call, ChatEngine, ChatRequest, Completion, EngineError};
use jm_tasks::{ChatMessage, Role};

use crate::{
    cut, headline,
    language::{Asked, Language},
    room::{Room, halved, worth_half},
    summary::beside_the_runtime,
};

/// A title is found in the beginning of a text.
const TITLE_TOKENS: usize = 2000;
/// Close to the text, without being stiff.
const TEMPERATURE: f32 = 0.3;

/// Finds titles with one engine, in one language.
pub(crate) struct Titler<'a> {
    pub(crate) engine: &'a Arc<dyn ChatEngine>,
    pub(crate) call: Call,
    pub(crate) language: &'a Language,
}

impl Titler<'_> {
    /// The title.
    pub(crate) async fn find(&self, text: &str) -> Result<Completion, EngineError> {
        let room = Room::beside(&self.language.prompt(Asked::Title), self.engine.as_ref())?;
        let mut budget = room.text.min(TITLE_TOKENS);
        let mut restarts = 0;
        loop {
            let (beginning, tokens) = self.beginning(text, budget).await?;
            // An engine that counts more tokens than we do gets less, as with summaries.
            match self.call_engine(&beginning, room.output).await {
                Err(error) if worth_half(&error, restarts) => {
                    let Some(half) = halved(budget, tokens) else { return Err(error) };
                    restarts += 1;
                    budget = half;
                }
                result => return result,
            }
        }
    }

    /// The beginning of the text, and how many tokens it has.
    async fn beginning(&self, text: &str, budget: usize) -> Result<(String, usize), EngineError> {
        let page = cut::page(text, budget).to_owned();
        let engine = Arc::clone(self.engine);
        beside_the_runtime(move || {
            let beginning = cut::beginning(&page, budget, engine.as_ref());
            (beginning.to_owned(), engine.count_tokens(beginning))
        })
        .await
    }

    /// A title is short, but a model may think long about it: so it has all the tokens there are.
    async fn call_engine(&self, text: &str, max_tokens: usize) -> Result<Completion, EngineError> {
        let messages = vec![
            ChatMessage { role: Role::System, content: self.language.prompt(Asked::Title) },
            ChatMessage { role: Role::User, content: text.to_owned() },
        ];
        let max_tokens = Some(u32::try_from(max_tokens).unwrap_or(u32::MAX));
        let request = ChatRequest { messages, max_tokens, temperature: Some(TEMPERATURE) };
        let completion = self.engine.complete(&request, &self.call).await?;
        // Another time it may find one.
        let text =
            headline::title(&completion.text).ok_or_else(|| EngineError::retryable("the model found no title"))?;
        Ok(Completion { text, ..completion })
    }
}
