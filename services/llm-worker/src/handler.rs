//! The work of `jm.llm`: one handler for each of its three tasks.

use std::sync::Arc;

use jm_engines::{Call, ChatEngine, ChatRequest, Completion};
use jm_mq_core::{Answers, Context, Handler, HandlerError, Router};
use jm_tasks::{Chat, ChatMessage, Completed, LlmTask, Role, Summarize, Title, answer};

use crate::{
    language::{Asked, Language},
    summary::{MAX_TEXT_BYTES, Summariser, beginning},
};

/// A title is found in the beginning of a text.
const TITLE_TOKENS: usize = 2000;
/// A longer title is none.
const MAX_TITLE_CHARS: usize = 120;
/// Messages of one conversation.
const MAX_MESSAGES: usize = 1000;

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
        let summariser = Summariser { engine: self.engine.as_ref(), call: Call::from(context), language: &language };
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
        let messages = vec![
            ChatMessage { role: Role::System, content: language.prompt(Asked::Title) },
            ChatMessage {
                role: Role::User,
                content: beginning(&task.text, TITLE_TOKENS, self.engine.as_ref()).to_owned(),
            },
        ];
        let request = ChatRequest { messages, max_tokens: Some(100), temperature: Some(0.3) };
        let mut completion = self.engine.complete(&request, &Call::from(context)).await?;
        completion.text = title(&completion.text).ok_or("the model found no title")?;
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
        language: language.map(|language| language.tag),
        truncated: completion.truncated,
        model: completion.model,
        prompt_tokens: completion.prompt_tokens,
        completion_tokens: completion.completion_tokens,
    }
}

/// The first line, without the decoration that models add in spite of being told.
fn title(answer: &str) -> Option<String> {
    let decoration: &[char] = &['"', '\'', '“', '”', '「', '」', '《', '》', '#', '*', ' ', '\t'];
    let line = answer.lines().map(|line| line.trim_matches(decoration)).find(|line| !line.is_empty())?;
    Some(line.chars().take(MAX_TITLE_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_the_first_line_without_decoration() {
        assert_eq!(title("\n\n# \"Monday meeting\"\nbecause").as_deref(), Some("Monday meeting"));
        assert_eq!(title("《周会》").as_deref(), Some("周会"));
        assert_eq!(title(" \n "), None);
    }
}
