//! The work of `jm.llm`: one handler for each of its three tasks.

use std::{ops::RangeInclusive, sync::Arc};

use jm_engines::{Call, ChatEngine, ChatRequest, Completion};
use jm_mq_core::{Answers, Context, Handler, HandlerError, Router};
use jm_tasks::{Chat, Completed, LlmTask, Summarize, Title, answer};

use crate::{
    language::Language,
    summary::{MAX_TEXT_BYTES, Summariser},
    title::Titler,
};

/// Messages of one conversation.
const MAX_MESSAGES: usize = 1000;
/// What models take: from always the likeliest word to a wild mixture.
const TEMPERATURES: RangeInclusive<f32> = 0.0..=2.0;

/// Answers with a language model.
#[derive(Clone)]
pub(crate) struct Assistant {
    engine: Arc<dyn ChatEngine>,
}

impl Assistant {
    pub(crate) fn new(engine: Arc<dyn ChatEngine>) -> Self {
        Self { engine }
    }

    pub(crate) fn router(self) -> Router {
        Router::new().on::<Chat, _>(self.clone()).on::<Summarize, _>(self.clone()).on::<Title, _>(self)
    }
}

impl Handler<Chat> for Assistant {
    async fn handle(&self, task: Chat, context: &Context) -> Result<Answers, HandlerError> {
        if !(1..=MAX_MESSAGES).contains(&task.messages.len()) {
            let text = format!("messages: {}; there have to be 1 to {MAX_MESSAGES}", task.messages.len());
            return Err(HandlerError::permanent(text));
        }
        if let Some(temperature) = task.temperature
            && !TEMPERATURES.contains(&temperature)
        {
            let (least, most) = (TEMPERATURES.start(), TEMPERATURES.end());
            let text = format!("temperature: {temperature}; it has to be {least} to {most}");
            return Err(HandlerError::permanent(text));
        }
        if task.max_tokens == Some(0) {
            return Err(HandlerError::permanent("max_tokens: 0; there has to be at least 1"));
        }
        let request =
            ChatRequest { messages: task.messages, max_tokens: task.max_tokens, temperature: task.temperature };
        let completion = self.engine.complete(&request, &Call::from(context)).await?;
        let event = completed(LlmTask::Chat, None, completion);
        answer(
            context,
            task.record_id.as_ref(),
            &Completed { revision: task.revision, record_id: task.record_id.clone(), ..event },
        )
    }
}

impl Handler<Summarize> for Assistant {
    async fn handle(&self, task: Summarize, context: &Context) -> Result<Answers, HandlerError> {
        not_empty(&task.text)?;
        not_too_long(&task.text)?;
        let language = Language::choose(task.language.as_deref(), &task.text);
        let summariser = Summariser { engine: &self.engine, call: Call::from(context), language: &language };
        let completion = summariser.summarise(&task.text).await?;
        let event = completed(LlmTask::Summarize, Some(language), completion);
        answer(
            context,
            task.record_id.as_ref(),
            &Completed { revision: task.revision, record_id: task.record_id.clone(), ..event },
        )
    }
}

impl Handler<Title> for Assistant {
    async fn handle(&self, task: Title, context: &Context) -> Result<Answers, HandlerError> {
        not_empty(&task.text)?;
        let language = Language::choose(task.language.as_deref(), &task.text);
        let titler = Titler { engine: self.engine.as_ref(), call: Call::from(context), language: &language };
        let completion = titler.find(&task.text).await?;
        let event = completed(LlmTask::Title, Some(language), completion);
        answer(
            context,
            task.record_id.as_ref(),
            &Completed { revision: task.revision, record_id: task.record_id.clone(), ..event },
        )
    }
}

fn not_empty(text: &str) -> Result<(), HandlerError> {
    if text.trim().is_empty() { Err(HandlerError::permanent("text: empty")) } else { Ok(()) }
}

fn not_too_long(text: &str) -> Result<(), HandlerError> {
    if text.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    Err(HandlerError::permanent(format!("text: {} bytes; at most {MAX_TEXT_BYTES} are summarised", text.len())))
}

fn completed(task: LlmTask, language: Option<Language>, completion: Completion) -> Completed {
    Completed {
        record_id: None,
        revision: None,
        task,
        text: completion.text,
        language: language.and_then(|language| language.tag),
        truncated: completion.truncated,
        model: completion.model,
        prompt_tokens: completion.prompt_tokens,
        completion_tokens: completion.completion_tokens,
    }
}
