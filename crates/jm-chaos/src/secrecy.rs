//! Whether a secret that was made up for the run stands in anything that came out of it.
//!
//! Searched are the history's folder (what the witnesses recorded, what the processes printed, what the nodes logged)
//! and the reports. The secrets go with the run, so that a history that was kept cannot be searched again.

use std::path::Path;

use anyhow::Result;
use jm_testkit::LeakSearch;
use serde::Serialize;

use crate::{checker::Verdict, plan::Plan, report};

/// Finds that are told.
const EXAMPLES: usize = 5;

/// What the search came to.
#[derive(Debug, Serialize)]
pub struct Secrecy {
    /// How much was searched.
    pub bytes: u64,
    /// How often a secret was found.
    pub found: usize,
    /// Some of that: which secret, in which file and line. Not the line itself.
    pub examples: Vec<String>,
}

impl Secrecy {
    /// Searches a campaign's folder, its report in both forms, and its picture if there is one.
    pub fn look(
        mut search: LeakSearch,
        folder: &Path,
        verdict: &Verdict,
        plan: &Plan,
        picture: Option<&Path>,
    ) -> Result<Self> {
        search.folder(folder)?;
        search.text("the report", report::text(verdict, plan));
        search.text("the report in JSON", serde_json::to_string(verdict)?);
        if let Some(picture) = picture {
            search.file(picture)?;
        }
        let examples = search.leaks().iter().take(EXAMPLES).map(ToString::to_string).collect();
        Ok(Self { bytes: search.bytes(), found: search.found(), examples })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use jm_testkit::Canary;

    use super::*;
    use crate::{checker::Checker, plan::Setting};

    #[test]
    fn a_planted_password_breaks_the_campaign_and_is_told_with_file_and_line() {
        let password = Canary::plain("the broker's password");
        let plan = Plan::draw(1, Duration::from_mins(1), Setting::of(1));
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("slot-3.log");
        fs::write(folder.path().join("campaign.history"), "1 Z\n").unwrap();
        fs::write(&log, "connected\n").unwrap();
        let look = |verdict: &Verdict| {
            Secrecy::look(LeakSearch::of([password.clone()]), folder.path(), verdict, &plan, None).unwrap()
        };
        let mut verdict = Checker::check(1, folder.path()).unwrap();
        verdict.secrecy = Some(look(&verdict));
        assert!(report::text(&verdict, &plan).contains("no secret of the run is in anything that came out ("));
        let held = verdict.held();

        fs::write(&log, format!("connected\nto amqp://me:{}@127.0.0.1\n", password.value())).unwrap();
        verdict.secrecy = Some(look(&verdict));
        let told = report::text(&verdict, &plan);
        let line = format!("the broker's password is in {}, line 2 (plain)", log.display());
        assert!(held && !verdict.held() && told.contains(&line), "{told}");
        assert!(password.found_in(&told).is_none());
        assert!(serde_json::to_string(&verdict).unwrap().contains("line 2 (plain)"));
    }
}
