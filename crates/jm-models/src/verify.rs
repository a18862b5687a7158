//! `jm-models verify`: what is there, read to its last byte.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use jm_models::{Cache, Catalogue, File, Model, State};

use crate::{assembly::digest_of, failure::Failure, interrupt::Interrupt};

const RIGHT: Style = AnsiColor::Green.on_default();
const WRONG: Style = AnsiColor::Red.on_default().bold();

/// A line for each file of these models, or of all that are there.
pub(crate) fn run(cache: &Cache, catalogue: &Catalogue, named: &[&Model]) -> Result<(), Failure> {
    let interrupt = Interrupt::watch()?;
    let there = |model: &&Model| cache.state(model) != State::Missing;
    let models = if named.is_empty() { catalogue.models().iter().filter(there).collect() } else { named.to_vec() };
    if models.is_empty() {
        return Err(Failure::NothingThere);
    }
    let (mut files, mut wrong) = (0, 0);
    let mut out = anstream::stdout().lock();
    for model in models {
        for file in &model.files {
            files += 1;
            match mistake(cache, model, file, &interrupt)? {
                None => writeln!(out, "{RIGHT}right{RIGHT:#}  {}/{}", model.name, file.name)?,
                Some(mistake) => {
                    wrong += 1;
                    writeln!(out, "{WRONG}wrong{WRONG:#}  {mistake}")?;
                }
            }
        }
    }
    if wrong == 0 { Ok(()) } else { Err(Failure::Unverified { wrong, files }) }
}

fn mistake(cache: &Cache, model: &Model, file: &File, interrupt: &Interrupt) -> Result<Option<String>, Failure> {
    let path = match cache.find_file(model, file) {
        Ok(path) => path,
        Err(missing) => return Ok(Some(missing.to_string())),
    };
    let found = digest_of(&path, interrupt)?;
    let (path, name) = (path.display(), &model.name);
    Ok((found != file.sha256).then(|| {
        let expected = &file.sha256;
        format!("{path}: SHA-256 {found} instead of {expected}; remove it, then `jm-models fetch {name}` gets it")
    }))
}
