//! How much of a text one call has room for.

use jm_engines::{ChatEngine, EngineError};

/// What a chat template adds to prompt and text, with something to spare.
const TEMPLATE_TOKENS: usize = 64;
/// Below this a text says nothing worth summarising.
const LEAST_TOKENS: usize = 128;
/// How often a task begins again with half the text in each call, after the engine counted more tokens than we did.
/// Our count is rather too high, so once is seldom needed; with a 128th of the room something else is wrong.
const MAX_RESTARTS: usize = 7;

/// The tokens that one call has beside its prompt. With the prompt they are never more than the model's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// For the text.
    pub(crate) text: usize,
    /// For the answer: the engine's limit, or half of what there is.
    pub(crate) output: usize,
}

impl Room {
    /// What is left beside that prompt.
    ///
    /// # Errors
    ///
    /// When that is too little to be of use: the configuration is at fault.
    pub(crate) fn beside(prompt: &str, engine: &dyn ChatEngine) -> Result<Self, EngineError> {
        let context = engine.context_tokens();
        let free = context.saturating_sub(engine.count_tokens(prompt) + TEMPLATE_TOKENS);
        let output = engine.max_output_tokens().min(free / 2);
        let text = free - output;
        if text < LEAST_TOKENS {
            let error =
                format!("engine.context_tokens: {context} leave no room for a text beside the prompt; raise it");
            return Err(EngineError::operator(error));
        }
        Ok(Self { text, output })
    }
}

/// Whether half the text in each call is worth a try after this error and so many tries: a refusal without a word that is
/// known is worth one.
pub(crate) fn worth_half(error: &EngineError, restarts: usize) -> bool {
    let most = if error.is_too_long() { MAX_RESTARTS } else { usize::from(error.may_be_too_long()) };
    restarts < most
}

/// What to try after a text of so many tokens was too long for the engine, where `budget` was the most: half of it, or
/// `None` if that would be too little. Never more than half the budget.
pub(crate) fn halved(budget: usize, tokens: usize) -> Option<usize> {
    (budget / 2 >= LEAST_TOKENS).then(|| (budget.min(tokens) / 2).max(LEAST_TOKENS))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use jm_engines::EngineOptions;

    use super::*;
    use crate::language::{Asked, Language};

    /// An engine with these limits that is never called.
    pub(crate) fn engine(context_tokens: usize, max_output_tokens: usize) -> Arc<dyn ChatEngine> {
        let options = EngineOptions {
            base_url: "http://127.0.0.1:1".into(),
            model: "m".into(),
            context_tokens,
            max_output_tokens,
            ..EngineOptions::default()
        };
        options.chat().unwrap()
    }

    #[test]
    fn every_prompt_leaves_room_in_the_smallest_model_there_may_be_and_fits_with_text_and_answer() {
        let engine = engine(512, 256);
        for tag in ["en", "zh", "zh-TW", "az", "id"] {
            for asked in [Asked::Summary, Asked::Title] {
                let prompt = Language::choose(Some(tag), "text").prompt(asked);
                let room = Room::beside(&prompt, engine.as_ref()).unwrap();
                let all = engine.count_tokens(&prompt) + TEMPLATE_TOKENS + room.text + room.output;
                assert!(all <= 512 && room.text >= room.output && room.text >= LEAST_TOKENS, "{tag}: {room:?}");
            }
        }
        let prompt = "word ".repeat(200);
        let error = Room::beside(&prompt, engine.as_ref()).unwrap_err();
        assert!(error.to_string().starts_with("engine.context_tokens: 512 "), "{error}");
    }

    #[test]
    fn a_large_model_writes_as_much_as_it_may() {
        let room = Room::beside("", engine(8192, 1024).as_ref()).unwrap();
        assert_eq!(room, Room { text: 8192 - 1024 - TEMPLATE_TOKENS, output: 1024 });
    }

    #[test]
    fn a_budget_is_halved_until_it_would_say_nothing() {
        assert_eq!(halved(7000, 100_000), Some(3500));
        assert_eq!(halved(7000, 1000), Some(500));
        assert_eq!(halved(7000, 140), Some(LEAST_TOKENS));
        assert_eq!(halved(256, 1000), Some(128));
        assert_eq!(halved(255, 1000), None);
    }
}
