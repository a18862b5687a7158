//! `jm-models list` and `path`.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use jm_models::{Cache, Catalogue, Model, State};

use crate::{failure::Failure, size::Size};

const TITLE: Style = Style::new().bold();

/// Two lines for each model, within 80 columns.
pub(crate) fn models(cache: &Cache, catalogue: &Catalogue) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let title = format!("  {:<28} {:<13} {:>7}  {:<10} {}", "NAME", "ENGINE", "SIZE", "STATE", "LANGUAGES");
    writeln!(out, "{TITLE}{title}{TITLE:#}")?;
    for model in catalogue.models() {
        let Model { name, role, about, languages, licence, default, .. } = model;
        let mark = if *default { '*' } else { ' ' };
        let state = cache.state(model);
        let style = style(state);
        let languages = if languages.is_empty() { "many".to_owned() } else { languages.join(", ") };
        write!(out, "{mark} {TITLE}{name:<28}{TITLE:#} {role:<13} {:>7}  ", Size(model.size()))?;
        writeln!(out, "{style}{state:<10}{style:#} {languages}")?;
        writeln!(out, "    {about} ({licence})")?;
    }
    writeln!(out, "\n* fetched by `jm-models fetch` without a name.\n  Folder: {}", cache.folder().display())?;
    Ok(())
}

/// Everything about each file.
pub(crate) fn files(catalogue: &Catalogue) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    for model in catalogue.models() {
        for file in &model.files {
            writeln!(out, "{TITLE}{}/{}{TITLE:#}", model.name, file.name)?;
            writeln!(out, "  size        {}", file.size)?;
            writeln!(out, "  sha256      {}", file.sha256)?;
            for part in &file.parts {
                writeln!(out, "  package     {}, {}", part.package, part.path)?;
            }
            writeln!(out, "  licence     {}", file.licence)?;
            writeln!(out, "  provenance  {}", file.provenance)?;
        }
    }
    Ok(())
}

/// Of a model that is one file, that file; else its folder.
pub(crate) fn path(cache: &Cache, model: &Model) -> Result<(), Failure> {
    let folder = cache.find(model)?;
    let path = if let [file] = model.files.as_slice() { cache.path(model, file) } else { folder };
    writeln!(anstream::stdout(), "{}", path.display())?;
    Ok(())
}

fn style(state: State) -> Style {
    match state {
        State::There => AnsiColor::Green.on_default(),
        State::Incomplete => AnsiColor::Yellow.on_default(),
        State::Missing => Style::new().dimmed(),
    }
}
