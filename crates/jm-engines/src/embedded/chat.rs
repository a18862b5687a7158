//! Conversations with a small model in this process.
//!
//! The model is a GGUF file of the llama, qwen2 or qwen3 family with a byte-level vocabulary. It is read once, held in 8
//! bits, and shared by all calls; what a call has read and written is its own.
//!
//! - A conversation becomes a prompt by the file's own chat template. Nothing that a message says can pass for a part of
//!   the template: `<|im_end|>` in a note is text.
//! - The same request has the same answer. Without a temperature, or with 0, each token is the likeliest one; otherwise
//!   chance chooses, from a seed that is always the same.
//! - What was written just now is made a little less likely, and an answer that goes round in circles all the same ends
//!   after the first round.
//! - An answer is never cut shorter than the request's `max_tokens`: a conversation that does not leave room for as many
//!   is too long.

mod generation;
mod gguf;
mod matrix;
mod positions;
mod repetition;
mod split;
mod template;
#[cfg(test)]
mod tests;
mod transformer;
mod vocabulary;

use std::sync::Arc;

use jm_models::Role;
use jm_mq_core::OptionsError;
use jm_tasks::ChatMessage;

use self::{generation::Writer, gguf::Gguf, template::ChatTemplate, transformer::Transformer, vocabulary::Vocabulary};
use super::{
    compute::{Compute, Stop},
    model::ModelFiles,
};
use crate::{
    call::Call,
    engine::{ChatEngine, ChatRequest, Completion, EngineFuture},
    error::EngineError,
    options::EngineOptions,
    reasoning::{Reasoned, without_reasoning},
};

/// What `general.architecture` may be.
const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// As for `context_tokens`: a model of less can do none of the work.
const LEAST_CONTEXT: usize = 512;

/// A chat model in this process.
///
/// The same request has the same answer. A text that is too long for the model is a permanent error with
/// [`EngineError::is_too_long`]. What reasoning models think aloud is left out of the text.
pub struct EmbeddedChat {
    model: Arc<Model>,
    compute: Compute,
    languages: Vec<String>,
    summary_prompt: Option<String>,
}

/// What calls share.
struct Model {
    name: String,
    vocabulary: Vocabulary,
    template: ChatTemplate,
    transformer: Transformer,
    context_tokens: usize,
    max_output_tokens: usize,
}

impl EmbeddedChat {
    /// Reads the model, which takes a second or a few.
    ///
    /// # Errors
    ///
    /// An option that is out of range, or a model's file that is missing, damaged or of another kind.
    pub fn load(options: &EngineOptions) -> Result<Self, OptionsError> {
        options.validate()?;
        let files = ModelFiles::find(options, Role::Chat)?;
        Self::read(options, &files).map_err(|error| files.blamed(error))
    }

    fn read(options: &EngineOptions, files: &ModelFiles) -> Result<Self, OptionsError> {
        let mut gguf = Gguf::open(files.only_file())?;
        let architecture = gguf.needed("general.architecture", gguf.text("general.architecture")?)?.to_owned();
        if !ARCHITECTURES.contains(&architecture.as_str()) {
            return Err(gguf.unusable(format_args!("it is of the family {architecture}")));
        }
        let vocabulary = Vocabulary::load(&gguf)?;
        let template = ChatTemplate::load(&gguf, &vocabulary)?;
        let transformer = Transformer::load(&mut gguf, &architecture, vocabulary.len())?;
        if transformer.context() < LEAST_CONTEXT {
            return Err(gguf.unusable(format_args!("it has a context of {} tokens", transformer.context())));
        }
        let context_tokens = options.context_tokens.min(transformer.context());
        // As the options have it: no more than half of what there is.
        let max_output_tokens = options.max_output_tokens.min(context_tokens / 2).max(1);
        Ok(Self {
            model: Arc::new(Model {
                name: files.name.clone(),
                vocabulary,
                template,
                transformer,
                context_tokens,
                max_output_tokens,
            }),
            compute: Compute::new(options.parallelism, options.timeout),
            languages: files.languages.clone(),
            summary_prompt: files.summary_prompt.clone(),
        })
    }

    async fn complete(&self, request: &ChatRequest, call: &Call) -> Result<Completion, EngineError> {
        if request.messages.is_empty() {
            return Err(EngineError::permanent("messages: empty"));
        }
        let (model, request) = (Arc::clone(&self.model), request.clone());
        self.compute.run(call, move |stop| model.complete(&request, stop)).await
    }
}

impl Model {
    fn complete(&self, request: &ChatRequest, stop: &Stop) -> Result<Completion, EngineError> {
        let limit = usize::try_from(request.max_tokens.unwrap_or(u32::MAX)).unwrap_or(usize::MAX);
        let limit = limit.clamp(1, self.max_output_tokens);
        let prompt = self.prompt(&request.messages, limit)?;
        stop.check()?;
        let Self { transformer, vocabulary, .. } = self;
        let answer =
            Writer { transformer, vocabulary, temperature: request.temperature, limit }.write(&prompt, stop)?;
        let text = match without_reasoning(&answer.text) {
            Reasoned::Unfinished if answer.truncated => return Err(self.cut_off_thinking(limit)),
            // The model has ended its answer while it reasoned.
            Reasoned::Unfinished | Reasoned::Answer { text: "", .. } => {
                return Err(EngineError::permanent("messages: the model has no answer to them"));
            }
            Reasoned::Answer { text, .. } => text.to_owned(),
        };
        Ok(Completion {
            text,
            truncated: answer.truncated,
            model: self.name.clone(),
            prompt_tokens: u64::try_from(prompt.len()).ok(),
            completion_tokens: u64::try_from(answer.tokens).ok(),
        })
    }

    /// The conversation's tokens, which leave room for an answer of `limit` tokens.
    fn prompt(&self, messages: &[ChatMessage], limit: usize) -> Result<Vec<u32>, EngineError> {
        let too_long = |tokens: std::fmt::Arguments<'_>| {
            let context = self.context_tokens;
            let text =
                format!("messages: {tokens} tokens, and an answer of up to {limit}; the model has {context} for both");
            EngineError::too_long(text)
        };
        // A text of megabytes is not looked at any closer.
        let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
        let least = bytes / self.vocabulary.longest();
        if least + limit > self.context_tokens {
            return Err(too_long(format_args!("at least {least}")));
        }
        let guard = guard(messages)?;
        let guarded = |message: &ChatMessage| ChatMessage {
            role: message.role,
            content: self.vocabulary.guarded(&message.content, guard),
        };
        let messages: Vec<ChatMessage> = messages.iter().map(guarded).collect();
        let text = self.template.render(&messages)?;
        let tokens = self.vocabulary.encode_guarded(&text, guard);
        let tokens = tokens.map_err(|error| EngineError::permanent(format!("messages: {error}")))?;
        if tokens.len() + limit > self.context_tokens {
            return Err(too_long(format_args!("{}", tokens.len())));
        }
        Ok(tokens)
    }

    /// The error for an answer that ends before its thoughts do: another time it would do the same.
    fn cut_off_thinking(&self, limit: usize) -> EngineError {
        if limit < self.max_output_tokens {
            return EngineError::permanent(format!("max_tokens: {limit}; the model was cut off while it was thinking"));
        }
        EngineError::operator("the model was cut off while it was thinking; raise engine.max_output_tokens")
    }
}

/// A character that no message has.
fn guard(messages: &[ChatMessage]) -> Result<char, EngineError> {
    let unused = |guard: &char| !messages.iter().any(|message| message.content.contains(*guard));
    // Characters without a meaning of their own.
    ('\u{e000}'..='\u{f8ff}').find(unused).ok_or_else(|| EngineError::permanent("messages: all private characters"))
}

impl ChatEngine for EmbeddedChat {
    fn complete<'a>(&'a self, request: &'a ChatRequest, call: &'a Call) -> EngineFuture<'a, Completion> {
        Box::pin(self.complete(request, call))
    }

    fn model(&self) -> &str {
        &self.model.name
    }

    fn context_tokens(&self) -> usize {
        self.model.context_tokens
    }

    fn max_output_tokens(&self) -> usize {
        self.model.max_output_tokens
    }

    fn count_tokens(&self, text: &str) -> usize {
        // A token is a byte at least.
        self.model.vocabulary.encode(text).map_or(text.len(), |tokens| tokens.len())
    }

    fn languages(&self) -> &[String] {
        &self.languages
    }

    fn summary_prompt(&self) -> Option<&str> {
        self.summary_prompt.as_deref()
    }
}
