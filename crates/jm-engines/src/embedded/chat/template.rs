//! How a conversation becomes one text: the model's own template, which its GGUF file carries.

use jm_mq_core::OptionsError;
use jm_tasks::{ChatMessage, Role};
use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig, value::Serde};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::{gguf::Gguf, vocabulary::Vocabulary};
use crate::error::EngineError;

/// The template's name in errors.
const NAME: &str = "tokenizer.chat_template";
/// For models without one: most are trained with this.
const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}\
    {% endfor %}{{ '<|im_start|>assistant\n' }}";
/// Steps (and, for each of them, 64 bytes). A thousand messages take fifty thousand; these take a second.
const FUEL: u64 = 10_000_000;
/// Templates call a macro or two.
const MAX_RECURSION: usize = 100;

/// A model's chat template.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    beginning: String,
    end: String,
}

impl ChatTemplate {
    pub(crate) fn load(gguf: &Gguf<'_>, vocabulary: &Vocabulary) -> Result<Self, OptionsError> {
        let own = gguf.text("tokenizer.chat_template")?;
        if own.is_none() && ["<|im_start|>", "<|im_end|>"].iter().any(|token| vocabulary.special(token).is_none()) {
            return Err(gguf.unusable("it has no chat template, and no tokens for the usual one: it is no chat model"));
        }
        let token = |key: &str| -> Result<String, OptionsError> {
            let (id, tokens) =
                (gguf.count(&format!("tokenizer.ggml.{key}_token_id"))?, gguf.texts("tokenizer.ggml.tokens")?);
            Ok(id.zip(tokens).and_then(|(id, tokens)| tokens.get(id).copied()).unwrap_or_default().to_owned())
        };
        let template = Self::new(own.unwrap_or(CHATML), token("bos")?, token("eos")?).and_then(|template| {
            template.try_render(&[ChatMessage { role: Role::User, content: "text".into() }]).map(|_| template)
        });
        template.map_err(|error| gguf.unusable(format_args!("its chat template cannot be used: {}", Shown(&error))))
    }

    fn new(source: &str, beginning: String, end: String) -> Result<Self, Error> {
        let mut environment = Environment::new();
        // As the library does that these templates are written for.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", |text: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_RECURSION);
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Self { environment, beginning, end })
    }

    /// The conversation's text, up to where the answer begins.
    pub(crate) fn render(&self, messages: &[ChatMessage]) -> Result<String, EngineError> {
        self.try_render(messages).map_err(|error| {
            let text = format!("messages: the model's chat template does not take them: {}", Shown(&error));
            EngineError::permanent(text)
        })
    }

    fn try_render(&self, messages: &[ChatMessage]) -> Result<String, Error> {
        self.environment.get_template(NAME)?.render(context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt => true,
            bos_token => self.beginning.as_str(),
            eos_token => self.end.as_str(),
            // Thoughts are left out of answers: a model that can do without should.
            enable_thinking => false,
        })
    }
}

/// An error in one line.
struct Shown<'a>(&'a Error);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.lines().next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str, messages: &[(Role, &str)]) -> Result<String, EngineError> {
        let said = |&(role, content): &(Role, &str)| ChatMessage { role, content: content.into() };
        let template = ChatTemplate::new(source, "<s>".into(), "</s>".into()).unwrap();
        template.render(&messages.iter().map(said).collect::<Vec<_>>())
    }

    #[test]
    fn a_model_without_a_template_gets_the_usual_one() {
        let messages = [(Role::System, "Be kind."), (Role::User, "Hi {{ 1 + 1 }}")];
        let expected = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi {{ 1 + 1 }}<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(rendered(CHATML, &messages).unwrap(), expected);
    }

    #[test]
    fn templates_may_use_what_python_has() {
        let source = "{{ bos_token }}{% for m in messages[::-1] %}\n    {% if m['content'].strip().startswith('a') %}\n\
                      {{ m.role.upper() }}:{{ m.content.split('b')[-1] }}{{ eos_token }}\n    {% endif %}\n{% endfor %}\n\
                      {% if enable_thinking is defined and enable_thinking is false %}!{% endif %}{{ strftime_now is defined }}";
        let messages = [(Role::User, " abc "), (Role::Assistant, "no")];
        assert_eq!(rendered(source, &messages).unwrap(), "<s>USER:c </s>\n!False");
    }

    #[test]
    fn what_a_template_refuses_is_the_messages_fault_in_its_own_words() {
        let source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system\nrole') }}{% endif %}";
        let error = rendered(source, &[(Role::System, "Be kind.")]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("messages: the model's chat template does not take them: "), "{text}");
        assert!(text.contains("no system") && !text.contains('\n'), "{text}");
        assert!(rendered(source, &[(Role::User, "Hi")]).is_ok());
    }

    #[test]
    fn a_template_that_never_ends_or_takes_all_memory_is_stopped() {
        for source in [
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% set ns = namespace(a='aaaaaaaa') %}{% for _ in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        ] {
            assert!(rendered(source, &[(Role::User, "Hi")]).is_err(), "{source}");
        }
    }
}
