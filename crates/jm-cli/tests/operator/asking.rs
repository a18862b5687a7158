//! `jm dead drop` asks whoever sits at the terminal, and takes nothing but a yes for one.

use std::{process::Stdio, time::Duration};

use jm_testkit::Vhost;

use crate::{
    dead_letters::{DEAD, QUEUE, dead, ids, leave, vhost},
    support::jm_at,
    terminal::{CTRL_C, CTRL_D, ENTER, Piped, Seen, Terminal},
};

const LIMIT: Duration = Duration::from_secs(30);
const SIZE: (u16, u16) = (24, 80);
const QUESTION: &str = "Drop 3 dead letters of jm.llm.dead for good? [y/N]";

async fn with_three() -> Vhost {
    let vhost = vhost().await;
    leave(&vhost, ["a", "b", "c"].map(dead)).await;
    vhost
}

/// Asks, answers, and waits for the end.
async fn answered(vhost: &Vhost, keys: &str) -> Seen {
    let mut terminal = Terminal::start(jm_at(vhost), &["dead", "drop", QUEUE], SIZE).unwrap();
    terminal.until_text(QUESTION).await.unwrap();
    terminal.types(keys).await.unwrap();
    terminal.end().await.unwrap()
}

async fn assert_untouched(vhost: &Vhost) {
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == 3 && counts.unacked == 0).await.unwrap();
    let letters = vhost.take_all(DEAD).await.unwrap();
    let ids: Vec<String> = letters.iter().map(crate::dead_letters::id).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert!(letters.iter().all(|letter| !letter.redelivered), "nobody has had them in hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_yes_drops() {
    for no in ["n", "no", "", "yess", "j", " n o "] {
        let vhost = with_three().await;
        let seen = answered(&vhost, &format!("{no}{ENTER}")).await;
        assert_eq!(seen.code, 1, "{no:?}: {:?}", seen.lines());
        assert_eq!(seen.lines(), [format!("{QUESTION} {no}").trim_end(), "jm: nothing was dropped"], "{no:?}");
        assert_untouched(&vhost).await;
    }
    for yes in ["y", "Y", "yes", " YES "] {
        let vhost = with_three().await;
        let seen = answered(&vhost, &format!("{yes}{ENTER}")).await;
        assert_eq!(seen.code, 0, "{yes:?}: {:?}", seen.lines());
        assert_eq!(seen.lines()[1..], ["3 dropped from jm.llm.dead"], "{yes:?}");
        assert!(ids(&vhost, DEAD).await.is_empty(), "{yes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_held_while_the_question_waits() {
    let vhost = with_three().await;
    let mut terminal = Terminal::start(jm_at(&vhost), &["dead", "drop", QUEUE, "--kind", "exhausted"], SIZE).unwrap();
    terminal.until_text(QUESTION).await.unwrap();
    let counts = vhost.queue_counts(DEAD).await.unwrap();
    assert_eq!((counts.ready, counts.unacked), (3, 0));
    // Whoever takes one meanwhile has it: no more is dropped than was asked about.
    leave(&vhost, [dead("d")]).await;
    terminal.types(&format!("y{ENTER}")).await.unwrap();
    let seen = terminal.end().await.unwrap();
    assert_eq!((seen.code, seen.lines().last().map(String::as_str)), (0, Some("3 dropped from jm.llm.dead")));
    assert_eq!(ids(&vhost, DEAD).await, ["d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_at_the_question_and_the_end_of_input_leave_all_as_it_was() {
    for (key, code, after) in [(CTRL_C, 130, &[][..]), (CTRL_D, 1, &["jm: nothing was dropped"])] {
        let vhost = with_three().await;
        let seen = answered(&vhost, key).await;
        assert_eq!(seen.code, code, "{:?}", seen.lines());
        assert!(seen.lines()[0].starts_with(QUESTION), "{:?}", seen.lines());
        assert_eq!(seen.lines()[1..], *after, "what follows has a line of its own");
        assert_eq!(seen.screen.cursor_position().1, 0, "and so has the shell's prompt");
        assert_untouched(&vhost).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_closed_at_the_question_drops_nothing() {
    let vhost = with_three().await;
    let mut terminal = Terminal::start(jm_at(&vhost), &["dead", "drop", QUEUE], SIZE).unwrap();
    terminal.until_text(QUESTION).await.unwrap();
    let mut child = terminal.hang_up();
    tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert_untouched(&vhost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nobody_would_see_or_answer_is_not_asked() {
    let vhost = with_three().await;
    let hidden = Terminal::start_with(jm_at(&vhost), &["dead", "drop", QUEUE], SIZE, Piped::Err).unwrap();
    let seen = hidden.end().await.unwrap();
    assert_eq!((seen.code, seen.written.as_str()), (2, ""), "{}", seen.piped);
    assert!(seen.piped.contains("--yes"), "{}", seen.piped);
    let mut command = jm_at(&vhost);
    command.stdin(Stdio::null());
    let said = crate::dead_letters::said(command, ["dead", "drop", QUEUE]).await;
    assert_eq!(said.code, 2, "{said:?}");
    assert_untouched(&vhost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_question_names_the_file_and_makes_it_only_after_a_yes() {
    let vhost = with_three().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.jsonl");
    let arguments = ["dead", "drop", QUEUE, "--limit", "2", "--save", file.to_str().unwrap()];
    for (answer, is_there) in [("n", false), ("y", true)] {
        let mut terminal = Terminal::start(jm_at(&vhost), &arguments, (24, 200)).unwrap();
        let question = format!("Drop 2 dead letters of jm.llm.dead, saved to {}? [y/N]", file.display());
        terminal.until_text(&question).await.unwrap();
        assert!(!file.exists());
        terminal.types(&format!("{answer}{ENTER}")).await.unwrap();
        terminal.end().await.unwrap();
        assert_eq!(file.exists(), is_there);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2);
    assert_eq!(ids(&vhost, DEAD).await, ["c"]);
}
