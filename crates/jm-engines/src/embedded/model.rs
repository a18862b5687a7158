//! Which files an engine loads.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use jm_models::{Cache, Catalogue, Role};
use jm_mq_core::OptionsError;

use crate::options::{EngineOptions, refused};

/// A model whose files have been found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelFiles {
    /// What answers call it.
    pub(crate) name: String,
    /// The languages it knows, as primary tags; empty: any.
    pub(crate) languages: Vec<String>,
    /// How it is asked for summaries, where it has to be in words of its own.
    pub(crate) summary_prompt: Option<String>,
    path: PathBuf,
    /// The option that says which they are.
    option: &'static str,
}

impl ModelFiles {
    /// Those of `model_path`, or those that the catalogue has for `model` in the cache folder.
    ///
    /// # Errors
    ///
    /// A name that the catalogue does not have for this kind of engine, or a file that is not there: with its path and
    /// the command that gets it.
    pub(crate) fn find(options: &EngineOptions, role: Role) -> Result<Self, OptionsError> {
        Self::find_in(&Cache::from_environment(), options, role)
    }

    fn find_in(cache: &Cache, options: &EngineOptions, role: Role) -> Result<Self, OptionsError> {
        let catalogue = Catalogue::built_in();
        let name = Some(options.model.as_str()).filter(|name| !name.is_empty());
        if let Some(path) = &options.model_path {
            if let Err(error) = path.metadata() {
                return Err(refused("model_path", path.display(), format!("a file or folder that is there: {error}")));
            }
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = name.map_or_else(|| stem.into_owned(), str::to_owned);
            let languages = options.languages.clone();
            return Ok(Self { name, languages, summary_prompt: None, path: path.clone(), option: "model_path" });
        }
        let of_role = |model: &&jm_models::Model| model.role == role;
        let named = match name {
            Some(name) => catalogue.model(name).filter(of_role),
            None => catalogue.default_of(role),
        };
        let Some(model) = named else {
            let names: Vec<_> = catalogue.models().iter().filter(of_role).map(|model| model.name.as_str()).collect();
            let allowed = format!("{}, or any with `model_path`", names.join(", "));
            return Err(refused("model", &options.model, allowed));
        };
        let folder = cache
            .find(model)
            .map_err(|missing| refused("model", &model.name, format!("a model whose files are there: {missing}")))?;
        // Of a model that is one file, that file.
        let path = if let [file] = model.files.as_slice() { folder.join(&file.name) } else { folder };
        let languages = if options.languages.is_empty() { &model.languages } else { &options.languages };
        let (languages, summary_prompt) = (languages.clone(), model.summary_prompt.clone());
        Ok(Self { name: model.name.clone(), languages, summary_prompt, path, option: "model" })
    }

    /// An error about one of the files, by the option that says which they are.
    pub(crate) fn blamed(&self, error: OptionsError) -> OptionsError {
        OptionsError { option: self.option.into(), ..error }
    }

    /// The model's only file.
    pub(crate) fn only_file(&self) -> &Path {
        &self.path
    }

    /// One of the files in the model's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Whether all of a tensor's numbers are some: one that is none makes all of them none.
pub(crate) fn is_finite(tensor: &Tensor) -> candle_core::Result<bool> {
    Ok(tensor.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite())
}

/// A file that is there, and is not what it should be: see [`ModelFiles::blamed`].
pub(crate) fn unusable(path: &Path, wanted: &str, error: impl fmt::Display) -> OptionsError {
    // The first line: candle adds backtraces.
    let error = error.to_string();
    let error = error.lines().next().unwrap_or_default();
    refused("model", path.display(), format!("{wanted}: {error}"))
}

#[cfg(test)]
mod tests {
    use crate::EngineOptions;

    #[test]
    fn every_engine_refuses_options_that_are_out_of_range() {
        let options = EngineOptions { kind: crate::EngineKind::Embedded, parallelism: 0, ..EngineOptions::default() };
        let refused = [
            options.chat().map(drop),
            options.transcription().map(drop),
            options.diarization().map(drop),
            options.embedding().map(drop),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().option, "parallelism");
        }
    }
}
