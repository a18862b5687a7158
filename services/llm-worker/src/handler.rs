//! The work of `jm.llm`: one handler for each of its three tasks.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use jm_engines::{Call, ChatEngine, ChatRequest, Completion, EngineError, Finished};
use jm_mq_core::{Answers, Context, Handler, HandlerError, Router};
use jm_tasks::{Chat, Completed, LlmTask, Role, Summarize, Title, answer};

use crate::{
    language::Language,
    summary::{self, MAX_TEXT_BYTES, Summariser, add_usage},
    title::Titler,
};

/// What models take: from always the likeliest word to a wild mixture.
const TEMPERATURES: RangeInclusive<f32> = 0.0..=2.0;

/// Summaries of parts that are kept for the next attempt at a task: those of some long texts.
const KEPT_SUMMARIES: usize = 256;
/// How long they are kept: longer than the retries of a task take.
const KEPT_FOR: Duration = Duration::from_mins(10);

/// Answers with a language model.
#[derive(Clone)]
pub(crate) struct Assistant {
    engine: Arc<dyn ChatEngine>,
    finished: Arc<Finished<Completion>>,
}

impl Assistant {
    pub(crate) fn new(engine: Arc<dyn ChatEngine>) -> Self {
        Self { engine, finished: Arc::new(Finished::new(KEPT_SUMMARIES, KEPT_FOR)) }
    }

    /// A summary in that language. One that is certainly in another is asked for once more, more firmly: small models answer
    /// in English whatever they are told.
    async fn summary(&self, text: &str, language: &Language, call: Call) -> Result<Completion, EngineError> {
        let Self { engine, finished } = self;
        let summariser = Summariser { engine, finished, call: call.clone(), language };
        let first = summariser.summarise(text).await?;
        if language.missed_by(&first.text).is_none() {
            return Ok(first);
        }
        // Of a text in many parts the summary is what is left to be said in another language.
        let again = if engine.count_tokens(text) * 2 <= engine.context_tokens() { text } else { &first.text };
        let language = language.firmly();
        let mut second = Summariser { engine, finished, call, language: &language }.summarise(again).await?;
        add_usage(&mut second, &first);
        second.truncated |= first.truncated && again != text;
        Ok(second)
    }

    pub(crate) fn router(self) -> Router {
        Router::new().on::<Chat, _>(self.clone()).on::<Summarize, _>(self.clone()).on::<Title, _>(self)
    }

    /// Refuses a text, and an answer to it, in a language that the model does not write: it would make something up.
    fn writes_both(&self, text: &str, asked_for: Option<&str>) -> Result<(), HandlerError> {
        self.writes("text", Language::certain(text).as_ref())?;
        self.writes("language", asked_for.and_then(Language::asked_for).as_ref())
    }

    fn writes(&self, what: &str, language: Option<&Language>) -> Result<(), HandlerError> {
        let written = self.engine.languages();
        let Some(language) = language.filter(|language| !language.is_among(written)) else { return Ok(()) };
        let (tag, model) = (language.tag.as_deref().unwrap_or_default(), self.engine.model());
        let text = format!(
            "{what}: in {tag}, which the model {model} does not write (it writes {}): configure one that does",
            written.join(", ")
        );
        Err(HandlerError::permanent(text))
    }
}

impl Handler<Chat> for Assistant {
    async fn handle(&self, task: Chat, context: &Context) -> Result<Answers, HandlerError> {
        if task.messages.is_empty() {
            let text = format!("messages: 0; there have to be 1 to {}", Chat::MAX_MESSAGES);
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
        // The model answers what was said last. What was said before may well be in other languages.
        if let Some(last) = task.messages.iter().rfind(|message| message.role == Role::User) {
            self.writes("messages", Language::certain(&last.content).as_ref())?;
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
        self.writes_both(&task.text, task.language.as_deref())?;
        let language = Language::choose(task.language.as_deref(), &task.text);
        let own = Language::choose(None, &task.text);
        // Asked for another language, or for one that the text may not be in, it has to be translated.
        let as_it_is = if language == own { summary::as_it_is(&task.text, self.engine.as_ref()) } else { None };
        let completion = match as_it_is {
            Some(completion) => completion,
            None => self.summary(&task.text, &language, Call::from(context)).await?,
        };
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
        self.writes_both(&task.text, task.language.as_deref())?;
        let language = Language::choose(task.language.as_deref(), &task.text);
        let titler = Titler { engine: &self.engine, call: Call::from(context), language: &language };
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
    let written_in = language.as_ref().and_then(|language| language.missed_by(&completion.text));
    Completed {
        record_id: None,
        revision: None,
        task,
        text: completion.text,
        language: language.and_then(|language| language.tag),
        written_in: written_in.and_then(|language| language.tag),
        truncated: completion.truncated,
        model: completion.model,
        prompt_tokens: completion.prompt_tokens,
        completion_tokens: completion.completion_tokens,
    }
}

#[cfg(test)]
mod tests {
    use jm_engines::EngineOptions;

    use super::*;

    const ENGLISH: &str =
        "We met on Monday, talked about the release and moved it to Thursday. Ada tells the customers.";

    /// An assistant whose model writes these languages; it is never asked.
    fn assistant(languages: &[&str]) -> Assistant {
        let options = EngineOptions {
            base_url: "http://127.0.0.1:1".into(),
            model: "smollm2-135m-instruct".into(),
            languages: languages.iter().map(|&tag| tag.to_owned()).collect(),
            ..EngineOptions::default()
        };
        Assistant::new(options.chat().unwrap())
    }

    #[test]
    fn a_text_in_a_language_that_the_model_does_not_write_is_refused_with_its_name() {
        let error = assistant(&["en"]).writes_both("周一我们开会讨论了发布计划。", None).unwrap_err();
        assert!(error.is_permanent());
        assert_eq!(
            error.to_string(),
            "text: in zh, which the model smollm2-135m-instruct does not write (it writes en): configure one that does"
        );
        let error = assistant(&["en", "zh"]).writes_both(ENGLISH, Some("de-AT")).unwrap_err();
        assert!(error.is_permanent() && error.to_string().starts_with("language: in de-AT, which "), "{error}");
        assert!(error.to_string().contains("(it writes en, zh)"), "{error}");
        // Asking for another language does not make the text readable.
        let error = assistant(&["en"]).writes_both("周一我们开会讨论了发布计划。", Some("en")).unwrap_err();
        assert!(error.to_string().starts_with("text: in zh, "), "{error}");
    }

    #[test]
    fn a_text_goes_on_where_the_model_writes_its_language_or_any_or_where_it_cannot_be_told() {
        for (languages, text, asked_for) in [
            (&["en"][..], ENGLISH, None),
            (&["zh"], "周一我们开会", Some("zh-TW")),
            (&[], "周一我们开会", Some("de")),
            (&["zh"], "Buy milk", None),
            (&["zh"], "2026-01-05 10:00 😀", None),
            (&["en"], ENGLISH, Some("no tag at all")),
        ] {
            assert!(assistant(languages).writes_both(text, asked_for).is_ok(), "{languages:?} {text}");
        }
    }
}
