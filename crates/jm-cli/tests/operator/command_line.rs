//! What every command has in common.

use anyhow::Result;

use crate::support::{assert_plain_and_narrow, jm, said};

/// Every command that there is, as its help is asked for.
const COMMANDS: &[&[&str]] = &[
    &[],
    &["status"],
    &["topology"],
    &["topology", "check"],
    &["topology", "diff"],
    &["topology", "apply"],
    &["dead"],
    &["publish"],
    &["record"],
    &["schema"],
    &["doctor"],
    &["completions"],
    &["man"],
];

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_one_line_and_its_own_exit_code() -> Result<()> {
    for arguments in [&["status"][..], &["topology", "check"], &["topology", "diff"], &["topology", "apply"]] {
        let mut command = jm();
        command.env("JM_RABBITMQ__PORT", "1");
        let said = said(command, arguments).await?;
        assert_eq!((said.code, said.out.as_str()), (69, ""), "{arguments:?}: {said:?}");
        assert_eq!(said.err.lines().count(), 1, "{arguments:?}: {said:?}");
        assert!(said.err.starts_with("jm: cannot reach RabbitMQ at 127.0.0.1:1: "), "{arguments:?}: {said:?}");
        assert!(said.err.trim_end().ends_with("are rabbitmq.host and rabbitmq.port right?"), "{arguments:?}: {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_command_line_that_cannot_be_understood_is_one_line_that_names_the_mistake() -> Result<()> {
    for (arguments, expected) in [
        (&["statsu"][..], "unrecognized subcommand 'statsu'"),
        (&["status", "--wach"], "unexpected argument '--wach'"),
        (&["status", "--watch=0"], "invalid value '0' for '--watch[=<SECONDS>]'"),
        (&["status", "--worker", "tts-worker"], "invalid value 'tts-worker' for '--worker <NAME>'"),
        (&["status", "--color", "blue"], "invalid value 'blue' for '--color <WHEN>'"),
        (&["topology", "check", "--dry-run"], "unexpected argument '--dry-run'"),
        (&["topology", "mend"], "unrecognized subcommand 'mend'"),
        (&["doctor", "me"], "unexpected argument 'me'"),
        (&["completions", "csh"], "invalid value 'csh' for '<SHELL>'"),
        (&["completions"], "the following required arguments were not provided"),
    ] {
        let said = said(jm(), arguments).await?;
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{arguments:?}: {said:?}");
        assert_eq!(said.err.lines().count(), 1, "{arguments:?}: {said:?}");
        assert!(said.err.starts_with(&format!("jm: {expected}")), "{arguments:?}: {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_named_and_does_not_exist_is_one_line_and_its_own_exit_code() -> Result<()> {
    for (arguments, expected) in [
        (&["status", "jm.tts"][..], "jm: no worker consumes a queue `jm.tts`; known are jm.coreRecordEvent, jm.sd,"),
        (&["man", "staus"], "jm: there is no command `staus`"),
    ] {
        let said = said(jm(), arguments).await?;
        assert_eq!((said.code, said.err.lines().count()), (66, 1), "{arguments:?}: {said:?}");
        assert!(said.err.starts_with(expected), "{arguments:?}: {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn each_mistake_in_the_configuration_is_a_line_that_names_key_value_and_source() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(
        folder.path().join("jm.yaml"),
        "management: { url: 'rabbit:15672', timeout: 1h }\nrabbitmq: { hots: a }\n",
    )?;
    let mut command = jm();
    command.env("JM_CONFIG", folder.path());
    let said = said(command, ["status"]).await?;
    assert_eq!(said.code, 78, "{said:?}");
    let lines: Vec<&str> = said.err.lines().collect();
    assert_eq!(lines.len(), 3, "{said:?}");
    assert!(lines[0].starts_with("jm: rabbitmq.hots ("), "{said:?}");
    assert!(lines[1].contains("management.url is \"rabbit:15672\"") && lines[1].contains("jm.yaml"), "{said:?}");
    assert!(lines[2].contains("management.timeout is \"1h\""), "{said:?}");
    Ok(())
}

#[tokio::test]
async fn a_workers_own_file_is_read_as_the_worker_reads_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("asr-worker.yaml"), "consumer: { queue: speech.tasks, concurrency: 0 }\n")?;
    let mut command = jm();
    command.env("JM_CONFIG", folder.path());
    let said = said(command, ["status"]).await?;
    assert_eq!((said.code, said.err.lines().count()), (78, 1), "{said:?}");
    assert!(said.err.contains("consumer.concurrency is 0") && said.err.contains("asr-worker.yaml"), "{said:?}");
    Ok(())
}

#[tokio::test]
async fn a_variable_of_one_workers_own_section_is_no_mistake_of_the_others() -> Result<()> {
    let mut command = jm();
    command
        .env("JM_DATABASE__URL", "sqlite://records.db")
        .env("JM_ENGINE__BASE_URL", "http://127.0.0.1:1/v1")
        .env("JM_MANAGEMENT__URL", "http://127.0.0.1:1")
        .env("JM_RABBITMQ__PORT", "1");
    assert_eq!(said(command, ["status"]).await?.code, 69);
    Ok(())
}

#[tokio::test]
async fn every_help_fits_80_columns_has_examples_and_no_colour_in_a_pipe() -> Result<()> {
    for command in COMMANDS {
        for flag in ["-h", "--help"] {
            let said = said(jm(), command.iter().chain(&[flag])).await?;
            assert_eq!(said.code, 0, "{command:?} {flag}: {said:?}");
            assert_plain_and_narrow(&said.out, &format!("{command:?} {flag}"));
        }
    }
    let help = said(jm(), ["--help"]).await?.out;
    for part in ["Examples:", "Exit codes:", "Configuration, each winning"] {
        assert!(help.contains(part), "{part}:\n{help}");
    }
    Ok(())
}
