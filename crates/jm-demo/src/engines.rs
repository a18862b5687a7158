//! The engines that the workers are started with.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use jm_models::{Cache, Catalogue, Model, Role};
use serde::{Deserialize, Serialize};

use crate::workers::Kind;

/// Which engines there are.
#[derive(Clone, Debug)]
pub enum Engines {
    /// Inside the workers' processes, with models from the cache.
    Embedded {
        /// The language model.
        chat: Chat,
        /// Where the models' files are.
        models: Cache,
    },
    /// A server that speaks the OpenAI API.
    Server {
        /// Its address.
        base_url: String,
    },
}

/// A language model of `config/models.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chat {
    /// Small and quick, English.
    #[default]
    Smollm2,
    /// Larger and slower, Chinese and English.
    Qwen,
}

/// What the embedded engines are given instead of the limits of `config/*.yaml`, which are for servers with better
/// hardware: an hour's recording takes as long as it takes on the processor of a laptop. Two runs, with the wait between
/// them, stay below [`CONSUMER_TIMEOUT`].
const PATIENCE: [(&str, &str); 4] = [
    ("JM_ENGINE__TIMEOUT", "2h"),
    ("JM_CONSUMER__HANDLER_TIMEOUT", "2h"),
    ("JM_CONSUMER__MAX_RETRY_ATTEMPTS", "1"),
    ("JM_CONSUMER__CONSUMER_TIMEOUT", "5h"),
];

/// How long the broker waits for the end of a task.
pub(crate) const CONSUMER_TIMEOUT: Duration = Duration::from_hours(5);

impl Chat {
    /// Its name in the catalogue.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smollm2 => "smollm2-135m-instruct",
            Self::Qwen => "qwen2.5-coder-0.5b-instruct",
        }
    }

    /// What the catalogue says of it.
    pub fn model(self) -> Result<&'static Model> {
        let model = Catalogue::built_in().model(self.name());
        model.with_context(|| format!("config/models.toml has no model {}", self.name()))
    }
}

impl Engines {
    /// Whether all that they need is there.
    ///
    /// # Errors
    ///
    /// The first model that is missing, with the command that gets it.
    pub fn check(&self) -> Result<()> {
        let Self::Embedded { chat, models } = self else { return Ok(()) };
        models.find(chat.model()?)?;
        for role in [Role::Transcription, Role::Embedding, Role::Diarization] {
            let model = Catalogue::built_in().default_of(role);
            models.find(model.with_context(|| format!("config/models.toml has no default for {role:?}"))?)?;
        }
        Ok(())
    }

    /// The language model, where it is one of ours.
    pub fn chat(&self) -> Option<Chat> {
        match self {
            Self::Embedded { chat, .. } => Some(*chat),
            Self::Server { .. } => None,
        }
    }

    /// Whether the language model writes a language. Nobody knows of a server.
    pub fn writes(&self, language: &str) -> bool {
        match self {
            Self::Embedded { chat, .. } => chat.model().is_ok_and(|model| {
                model.languages.is_empty() || model.languages.iter().any(|written| written == language)
            }),
            Self::Server { .. } => true,
        }
    }

    /// The variables that tell a worker of its engine.
    pub(crate) fn environment(&self, worker: Kind) -> Vec<(&'static str, String)> {
        if !worker.has_engine() {
            return Vec::new();
        }
        let mut variables = Vec::new();
        match self {
            Self::Embedded { chat, models } => {
                variables.push(("JM_ENGINE__KIND", "embedded".to_owned()));
                variables.extend(PATIENCE.map(|(name, value)| (name, value.to_owned())));
                if worker == Kind::Llm {
                    variables.push(("JM_ENGINE__MODEL", chat.name().to_owned()));
                }
                // Workers look in `models` below it.
                let folder = models.folder().parent().unwrap_or(models.folder());
                // They run in another folder than this process.
                let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
                variables.push(("JM_MQ_CACHE", folder.to_string_lossy().into_owned()));
            }
            Self::Server { base_url } => {
                variables.push(("JM_ENGINE__BASE_URL", base_url.clone()));
                variables.push(("JM_ENGINE__MODEL", "default".to_owned()));
            }
        }
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedded(chat: Chat) -> Engines {
        Engines::Embedded { chat, models: Cache::new("/nowhere/models") }
    }

    #[test]
    fn both_language_models_are_in_the_catalogue_with_their_languages() {
        let (small, large) = (embedded(Chat::Smollm2), embedded(Chat::Qwen));
        assert!(small.writes("en") && !small.writes("zh"));
        assert!(large.writes("en") && large.writes("zh"));
    }

    #[test]
    fn a_missing_model_is_named_with_the_command_that_gets_it() {
        let error = embedded(Chat::Qwen).check().unwrap_err().to_string();
        assert!(error.contains("jm-models fetch qwen2.5-coder-0.5b-instruct"), "{error}");
    }

    #[test]
    fn only_the_language_model_is_chosen_and_records_need_none() {
        let engines = embedded(Chat::Qwen);
        assert!(engines.environment(Kind::RecordEvent).is_empty());
        let names = |worker| engines.environment(worker).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert!(names(Kind::Llm).contains(&"JM_ENGINE__MODEL") && !names(Kind::Asr).contains(&"JM_ENGINE__MODEL"));
        assert!(names(Kind::Asr).contains(&"JM_MQ_CACHE"));
    }
}
