//! What is left of what was started in a folder.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses what it needs, and says at once when it cannot go on"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What a watchdog may take to clean up after a kill.
const LIMIT: Duration = Duration::from_secs(20);

/// The processes that work in this folder or below it: broker, port mapper, watchdog and workers all do.
pub(crate) fn processes_in(folder: &Path) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // Not by components: the kernel adds a word to the name of a folder that was removed.
    let folder = folder.to_string_lossy();
    let works_here = |cwd: PathBuf| cwd.to_string_lossy().starts_with(&*folder);
    let here = pids.filter(|pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(works_here));
    here.map(|pid| (pid, fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default())).collect()
}

/// Returns once no process works there any more.
pub(crate) fn wait_until_nothing_runs_in(folder: &Path) {
    let begun = Instant::now();
    while !processes_in(folder).is_empty() {
        assert!(begun.elapsed() < LIMIT, "still running in {}: {:?}", folder.display(), processes_in(folder));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns once the folder has nothing in it any more.
pub(crate) fn wait_until_empty(folder: &Path) {
    let left = || fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<PathBuf>>();
    let begun = Instant::now();
    while !left().is_empty() {
        assert!(begun.elapsed() < LIMIT, "left behind: {:?}", left());
        std::thread::sleep(Duration::from_millis(20));
    }
}
