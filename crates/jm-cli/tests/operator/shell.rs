//! Completions and man pages.

use anyhow::Result;

use crate::support::{jm, said};

#[tokio::test]
async fn each_shell_has_completions_that_know_the_commands() -> Result<()> {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let said = said(jm(), ["completions", shell]).await?;
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{shell}");
        for word in ["topology", "doctor", "record-event-worker"] {
            assert!(said.out.contains(word) || shell != "bash" && word.contains('-'), "{shell}: {word}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn bash_takes_its_completions() -> Result<()> {
    let script = said(jm(), ["completions", "bash"]).await?.out;
    let checked = tokio::process::Command::new("bash").args(["-n", "-c", &script]).output().await?;
    assert!(checked.status.success(), "{checked:?}");
    Ok(())
}

#[tokio::test]
async fn there_is_a_man_page_for_jm_and_for_each_command() -> Result<()> {
    let page = said(jm(), ["man"]).await?.out;
    for part in [".TH jm 1", "jm\\-topology(1)", "Exit codes:", "JM_RABBITMQ__PASSWORD_FILE"] {
        assert!(page.contains(part), "{part}:\n{page}");
    }
    let page = said(jm(), ["man", "topology", "apply"]).await?.out;
    assert!(page.contains("dry\\-run"), "{page}");
    Ok(())
}

#[tokio::test]
async fn a_reader_that_has_gone_away_is_no_failure() -> Result<()> {
    let jm = env!("CARGO_BIN_EXE_jm");
    let script = format!("set -o pipefail; {jm} man | true && {jm} completions zsh | true && {jm} --help | true");
    let done = tokio::process::Command::new("bash").args(["-c", &script]).output().await?;
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    Ok(())
}
