//! Conversations: `/chat/completions`.

use std::sync::Once;

use bytes::Bytes;
use jm_mq_core::OptionsError;
use jm_tasks::{ChatMessage, Role};
use serde_json::{Map, Value, json};

use super::{
    client::{Body, Client, Failure, Request},
    dialect::{json, profile::Known, refusal::Part},
    tokens,
};
use crate::{
    call::Call,
    engine::{ChatEngine, ChatRequest, Completion, EngineFuture},
    error::EngineError,
    options::EngineOptions,
    reasoning::{Reasoned, looks_like_reasoning, without_reasoning},
};

const PATH: &str = "chat/completions";
/// What a request can do without, or have in another form.
const OPTIONAL: [Part; 5] =
    [Part::MaxTokens, Part::MaxCompletionTokens, Part::Temperature, Part::SystemRole, Part::Thinking];
/// Reasons of a complete answer; none at all is one too.
const COMPLETE: [&str; 7] = ["stop", "eos", "eos_token", "end_turn", "stop_sequence", "completed", "finish"];
/// Reasons of an answer that the server's content rules ended.
const FORBIDDEN: [&str; 8] =
    ["content_filter", "safety", "recitation", "prohibited_content", "blocklist", "spii", "sensitive", "refusal"];
/// Reasons of an answer that the server itself did not finish.
const FAILED: [&str; 7] =
    ["error", "abort", "aborted", "cancelled", "network_error", "insufficient_system_resource", "timeout"];
/// Texts of fewer tokens are not judged by what a server says it read of them.
const LEAST_JUDGED: usize = 256;

/// A chat model behind the `OpenAI` API.
///
/// What reasoning models write before their answers is left out of the text, whatever marks it. A model that is cut off by
/// [`EngineOptions::max_output_tokens`] while it reasons is the operator's fault. A text that is too long for the model is a
/// permanent error with [`EngineError::is_too_long`]; an answer that ends for any reason but its own end is
/// [`truncated`](Completion::truncated), or an error if it was forbidden or the server failed.
pub struct HttpChat {
    client: Client,
    model: String,
    context_tokens: usize,
    max_output_tokens: usize,
    languages: Vec<String>,
    cut_prompt: Once,
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
            cut_prompt: Once::new(),
        })
    }

    /// The most tokens of this request's answer.
    fn limit(&self, request: &ChatRequest) -> u32 {
        let most = u32::try_from(self.max_output_tokens).unwrap_or(u32::MAX);
        request.max_tokens.unwrap_or(most).clamp(1, most)
    }

    fn body(&self, request: &ChatRequest, known: &Known) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("model".into(), self.model.clone().into());
        body.insert("messages".into(), messages(&request.messages, known.takes(Part::SystemRole)));
        // vLLM, Ollama, LocalAI and OpenAI all understand the older name; OpenAI's newer models want the other.
        if known.takes(Part::MaxTokens) {
            body.insert("max_tokens".into(), self.limit(request).into());
        } else if known.takes(Part::MaxCompletionTokens) {
            body.insert("max_completion_tokens".into(), self.limit(request).into());
        }
        if let Some(temperature) = request.temperature.filter(|_| known.takes(Part::Temperature)) {
            // As it is written, not as 32 bits come out in 64.
            let shortest = temperature.to_string().parse::<f64>();
            body.insert("temperature".into(), shortest.unwrap_or_else(|_| temperature.into()).into());
        }
        if !known.takes(Part::Thinking) {
            body.insert("enable_thinking".into(), false.into());
        }
        body
    }

    async fn complete(&self, request: &ChatRequest, call: &Call) -> Result<Completion, EngineError> {
        if request.messages.is_empty() {
            return Err(EngineError::permanent("messages: empty"));
        }
        let texts: Vec<&str> = request.messages.iter().map(|message| message.content.as_str()).collect();
        let sending = Request { path: PATH, optional: &OPTIONAL, texts: &texts, call };
        let build = |known: &Known| Ok(Body::Json(self.body(request, known)));
        Ok(self.client.post(&sending, build, |answer| self.read(request, &sending, &answer.body)).await?)
    }

    fn read(&self, request: &ChatRequest, sent: &Request<'_>, answer: &Bytes) -> Result<Completion, Failure> {
        let answer: Value = self.client.parse(PATH, answer)?;
        let Some(choice) = json::list(answer.get("choices")).first() else {
            let inside = self.client.error_inside(sent, &answer);
            return Err(inside.unwrap_or_else(|| self.client.unusable(PATH, "an answer without choices")));
        };
        let message = choice.get("message").unwrap_or(&Value::Null);
        if json::text(message.get("refusal")).is_some_and(|words| !words.trim().is_empty()) {
            return Err(self.permanent("the model refuses to answer this text"));
        }
        let end = End::of(choice.get("finish_reason"));
        match end {
            End::Forbidden => return Err(self.permanent("the server's content rules ended the answer")),
            End::Failed => return Err(self.client.unusable(PATH, "the server did not finish the answer")),
            End::Complete | End::Truncated => {}
        }
        let content = content(message);
        let reasoning = ["reasoning_content", "reasoning", "thinking"]
            .iter()
            .find_map(|field| message.get(field).filter(|value| !value.is_null()));
        let truncated = end == End::Truncated;
        let text = match without_reasoning(&content) {
            Reasoned::Unfinished if truncated => return Err(self.cut_off_reasoning(request)),
            Reasoned::Unfinished => String::new(),
            Reasoned::Answer { text: "", .. } if truncated && reasoning.is_some() => {
                return Err(self.cut_off_reasoning(request));
            }
            // Some servers take the whole answer for reasoning when the model has closed no tag.
            Reasoned::Answer { text: "", .. } => {
                json::text(reasoning).map(|all| all.trim().to_owned()).unwrap_or_default()
            }
            Reasoned::Answer { text, untagged } => {
                if untagged {
                    self.client.profile().thinks();
                } else if truncated
                    && reasoning.is_none()
                    && (self.client.profile().known().thinks || looks_like_reasoning(text))
                {
                    // The chat template has written the first tag, and the last one was not reached.
                    return Err(self.cut_off_reasoning(request));
                }
                text.to_owned()
            }
        };
        if text.is_empty() {
            return Err(self.client.unusable(PATH, "an answer without content"));
        }
        let usage = answer.get("usage").unwrap_or(&Value::Null);
        let prompt_tokens = json::count(usage.get("prompt_tokens"));
        Ok(Completion {
            text,
            truncated: truncated || self.cut_the_prompt(sent.texts, prompt_tokens),
            model: json::text(answer.get("model")).unwrap_or_else(|| self.model.clone()),
            prompt_tokens,
            completion_tokens: json::count(usage.get("completion_tokens")),
        })
    }

    fn permanent(&self, what: &str) -> Failure {
        let address = self.client.server();
        Failure::before(EngineError::permanent(format!("POST {address}{PATH}: {what}")))
    }

    /// Whether the server read far less than it was sent, as Ollama does beyond its `num_ctx`, without a word.
    fn cut_the_prompt(&self, texts: &[&str], read: Option<u64>) -> bool {
        let sent: usize = texts.iter().map(|text| tokens::at_least(text)).sum();
        // None, or next to none, is no count: some servers leave out what they had cached.
        let Some(read) = read.and_then(|read| usize::try_from(read).ok()).filter(|&read| read > 1) else {
            return false;
        };
        let cut = sent >= LEAST_JUDGED && read < sent;
        if cut {
            self.cut_prompt.call_once(|| {
                tracing::warn!(
                    server = self.client.server(),
                    sent_at_least = sent,
                    read,
                    "the server reads less than it is sent; lower engine.context_tokens, or raise the server's limit \
                     (Ollama: num_ctx)"
                );
            });
        }
        cut
    }

    /// The error for an answer that ends before its reasoning does.
    fn cut_off_reasoning(&self, request: &ChatRequest) -> Failure {
        let limit = self.limit(request);
        if usize::try_from(limit).is_ok_and(|limit| limit < self.max_output_tokens) {
            // The limit was the request's own. Another time the model may think less.
            let what = format_args!("the model was cut off at {limit} tokens while it was thinking");
            return self.client.unusable(PATH, what);
        }
        let text = "the model was cut off while it was thinking; raise engine.max_output_tokens";
        Failure::before(EngineError::operator(text))
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

/// The messages; where the server knows no role `system`, its text stands before the first message of the user.
fn messages(messages: &[ChatMessage], system: bool) -> Value {
    let mut before = String::new();
    let mut sent: Vec<Value> = Vec::with_capacity(messages.len());
    for ChatMessage { role, content } in messages {
        let role = match role {
            Role::System if system => "system",
            Role::System => {
                before.push_str(content);
                before.push_str("\n\n");
                continue;
            }
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        let content = if role == "user" { std::mem::take(&mut before) + content } else { content.clone() };
        sent.push(json!({ "role": role, "content": content }));
    }
    if !before.is_empty() {
        sent.push(json!({ "role": "user", "content": before.trim_end() }));
    }
    Value::Array(sent)
}

/// The text of a message: a string, or a list of parts of which those with reasoning are left out.
fn content(message: &Value) -> String {
    let content = message.get("content");
    let parts = json::list(content).iter().filter(|part| {
        let kind = part.get("type").and_then(Value::as_str);
        kind.is_none_or(|kind| matches!(kind, "text" | "output_text"))
    });
    let parts: String =
        parts.filter_map(|part| part.as_str().map(str::to_owned).or_else(|| json::text(part.get("text")))).collect();
    json::text(content).unwrap_or(parts)
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Complete,
    /// By a limit, or for a reason that is not known: it is no whole answer.
    Truncated,
    Forbidden,
    Failed,
}

impl End {
    fn of(reason: Option<&Value>) -> Self {
        // A number says nothing that is documented.
        let Some(reason) = reason.and_then(Value::as_str).map(str::to_ascii_lowercase) else { return Self::Complete };
        match reason.as_str() {
            "" => Self::Complete,
            reason if COMPLETE.contains(&reason) => Self::Complete,
            reason if FORBIDDEN.contains(&reason) => Self::Forbidden,
            reason if FAILED.contains(&reason) => Self::Failed,
            _ => Self::Truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_ended_by_itself_is_complete() {
        for (reason, end) in [
            (json!("stop"), End::Complete),
            (json!("STOP"), End::Complete),
            (json!("eos_token"), End::Complete),
            (json!(null), End::Complete),
            (json!(1), End::Complete),
            (json!("length"), End::Truncated),
            (json!("MAX_TOKENS"), End::Truncated),
            (json!("tool_calls"), End::Truncated),
            (json!("content_filter"), End::Forbidden),
            (json!("SAFETY"), End::Forbidden),
            (json!("abort"), End::Failed),
            (json!("error"), End::Failed),
        ] {
            assert_eq!(End::of(Some(&reason)), end, "{reason}");
        }
        assert_eq!(End::of(None), End::Complete);
    }

    #[test]
    fn without_a_system_role_its_text_stands_before_the_users() {
        let message = |role, content: &str| ChatMessage { role, content: content.into() };
        let all = [message(Role::System, "be brief"), message(Role::User, "q"), message(Role::Assistant, "a")];
        let sent = json!([{"role": "user", "content": "be brief\n\nq"}, {"role": "assistant", "content": "a"}]);
        assert_eq!(messages(&all, false), sent);
        assert_eq!(messages(&all[..1], false), json!([{"role": "user", "content": "be brief"}]));
    }

    #[test]
    fn a_list_of_parts_is_read_without_its_reasoning() {
        let read = |value: Value| content(&json!({ "content": value }));
        let parts = json!([{"type": "thinking", "thinking": "T"}, {"type": "text", "text": "S"}, {"text": "!"}]);
        assert_eq!(read(parts), "S!");
        assert_eq!(read(json!("S")), "S");
        assert_eq!(read(json!(null)), "");
        assert_eq!(read(json!(["a", "b"])), "ab");
    }
}
