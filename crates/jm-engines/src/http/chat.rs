//! Conversations: `/chat/completions`.

use async_openai::types::chat::{
    ChatCompletionRequestAssistantMessage, ChatCompletionRequestMessage, ChatCompletionRequestSystemMessage,
    ChatCompletionRequestUserMessage, CreateChatCompletionRequest,
};
use jm_mq_core::OptionsError;
use jm_tasks::{ChatMessage, Role};
use serde::{Deserialize, de::IgnoredAny};

use super::{client::Client, tokens};
use crate::{
    call::Call,
    engine::{ChatEngine, ChatRequest, Completion, EngineFuture},
    error::EngineError,
    options::EngineOptions,
    thoughts::without_thoughts,
};

const PATH: &str = "chat/completions";

/// A chat model behind the `OpenAI` API.
///
/// What reasoning models think aloud (`<think>…</think>` before the answer, also without its first tag) is left out of
/// the text. A model that is cut off by [`EngineOptions::max_output_tokens`] while it thinks is the operator's to mend.
/// A text that is too long for the model is a permanent error with [`EngineError::is_too_long`].
pub struct HttpChat {
    client: Client,
    model: String,
    context_tokens: usize,
    max_output_tokens: usize,
    languages: Vec<String>,
}

impl HttpChat {
    /// Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// An option that is out of range.
    pub fn new(options: &EngineOptions) -> Result<Self, OptionsError> {
        Ok(Self {
            client: Client::new(options)?,
            model: options.model.clone(),
            context_tokens: options.context_tokens,
            max_output_tokens: options.max_output_tokens,
            languages: options.languages.clone(),
        })
    }

    /// The most tokens of this request's answer.
    fn limit(&self, request: &ChatRequest) -> u32 {
        let most = u32::try_from(self.max_output_tokens).unwrap_or(u32::MAX);
        request.max_tokens.unwrap_or(most).clamp(1, most)
    }

    fn request(&self, request: &ChatRequest) -> CreateChatCompletionRequest {
        #[expect(deprecated, reason = "`max_tokens` is the one that vLLM, Ollama, LocalAI and OpenAI all understand")]
        CreateChatCompletionRequest {
            model: self.model.clone(),
            messages: request.messages.iter().map(message).collect(),
            max_tokens: Some(self.limit(request)),
            temperature: request.temperature,
            ..CreateChatCompletionRequest::default()
        }
    }

    async fn complete(&self, request: &ChatRequest, call: &Call) -> Result<Completion, EngineError> {
        if request.messages.is_empty() {
            return Err(EngineError::permanent("messages: empty"));
        }
        let texts: Vec<&str> = request.messages.iter().map(|message| message.content.as_str()).collect();
        let answer: Answer = self.client.post_json(PATH, &self.request(request), &texts, call).await?;
        let choice = answer.choices.into_iter().next();
        let choice = choice.ok_or_else(|| self.client.unusable(PATH, "an answer without choices"))?;
        let truncated = choice.finish_reason.as_deref() == Some("length");
        let content = choice.message.content.unwrap_or_default();
        let (text, thinking) = match without_thoughts(&content) {
            Some("") => ("", choice.message.reasoning_content.or(choice.message.reasoning).is_some()),
            Some(text) => (text, false),
            None => ("", true),
        };
        if thinking && truncated {
            return Err(self.cut_off_thinking(request));
        }
        if text.is_empty() {
            return Err(self.client.unusable(PATH, "an answer without content"));
        }
        let usage = answer.usage.unwrap_or_default();
        Ok(Completion {
            text: text.to_owned(),
            truncated,
            model: answer.model.filter(|model| !model.is_empty()).unwrap_or_else(|| self.model.clone()),
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
        })
    }

    /// The error for an answer that ends before its thoughts do.
    fn cut_off_thinking(&self, request: &ChatRequest) -> EngineError {
        let limit = self.limit(request);
        if usize::try_from(limit).is_ok_and(|limit| limit < self.max_output_tokens) {
            // The limit was the request's own. Another time the model may think less.
            let what = format_args!("the model was cut off at {limit} tokens while it was thinking");
            return self.client.unusable(PATH, what);
        }
        EngineError::operator("the model was cut off while it was thinking; raise engine.max_output_tokens")
    }
}

impl ChatEngine for HttpChat {
    fn complete<'a>(&'a self, request: &'a ChatRequest, call: &'a Call) -> EngineFuture<'a, Completion> {
        Box::pin(self.complete(request, call))
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    fn max_output_tokens(&self) -> usize {
        self.max_output_tokens
    }

    fn count_tokens(&self, text: &str) -> usize {
        tokens::estimate(text)
    }

    fn languages(&self) -> &[String] {
        &self.languages
    }
}

fn message(message: &ChatMessage) -> ChatCompletionRequestMessage {
    let content = message.content.as_str();
    match message.role {
        Role::System => ChatCompletionRequestSystemMessage::from(content).into(),
        Role::User => ChatCompletionRequestUserMessage::from(content).into(),
        Role::Assistant => ChatCompletionRequestAssistantMessage::from(content).into(),
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Reply,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    content: Option<String>,
    /// Where servers that part the thoughts from the answer have put them: vLLM, llama.cpp.
    #[serde(default)]
    reasoning_content: Option<IgnoredAny>,
    /// The same: Ollama, newer vLLM.
    #[serde(default)]
    reasoning: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}
