//! The folder into which the scripts install what is not the system's.

use std::path::PathBuf;

use anyhow::{Result, anyhow};

/// As the scripts find it: `JM_MQ_CACHE`, or `jm-mq` in the user's cache folder.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    folder("JM_MQ_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("jm-mq")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/jm-mq")))
        .ok_or_else(|| anyhow!("there is no cache folder: none of JM_MQ_CACHE, XDG_CACHE_HOME and HOME is set"))
}
