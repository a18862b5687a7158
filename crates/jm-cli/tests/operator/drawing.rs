//! What `jm` draws on a terminal, and what it does not where there is none.

use std::time::Duration;

use jm_testkit::TcpProxy;
use lapin::BasicProperties;
use tokio::process::Command;
use vt100::Color;

use crate::{
    dead_letters::{DEAD, QUEUE, dead, ids, leave, said, vhost},
    support::{jm, jm_at},
    terminal::{CTRL_C, Piped, Terminal, cell_of, is_styled, lines},
};

const LIMIT: Duration = Duration::from_secs(30);
const SIZE: (u16, u16) = (24, 80);

fn with(mut command: Command, name: &str, value: &str) -> Command {
    command.env(name, value);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_colours_for_what_is_bad_and_for_headings() {
    let vhost = vhost().await;
    let seen = Terminal::start(jm_at(&vhost), &["status"], SIZE).unwrap().end().await.unwrap();
    assert_eq!(seen.code, 1, "{:?}", seen.lines());
    let missing = cell_of(&seen.screen, "missing").unwrap();
    assert!(missing.fgcolor() == Color::Idx(9) || missing.fgcolor() == Color::Idx(1), "{:?}", missing.fgcolor());
    assert!(missing.bold());
    assert!(cell_of(&seen.screen, "queue").unwrap().bold());
    let complaint = Terminal::start(jm(), &["schema", "x"], SIZE).unwrap().end().await.unwrap();
    assert_eq!(cell_of(&complaint.screen, "jm:").unwrap().fgcolor(), Color::Idx(1), "{:?}", complaint.written);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_drawn_is_what_a_pipe_gets_without_the_colours() {
    let vhost = vhost().await;
    leave(&vhost, [dead("a")]).await;
    for arguments in [
        &["status"][..],
        &["topology", "check", "--worker", "llm-worker"],
        &["topology", "diff"],
        &["dead", "list", QUEUE],
        &["dead", "show", QUEUE],
        &["--help"],
        &["dead", "replay", "--help"],
    ] {
        let piped = said(jm_at(&vhost), arguments).await;
        let seen = Terminal::start(jm_at(&vhost), arguments, (200, 80)).unwrap().end().await.unwrap();
        assert_eq!(seen.code, piped.code, "{arguments:?}");
        assert!(seen.is_styled(), "{arguments:?}");
        let plain: Vec<&str> = piped.out.trim_end().lines().map(str::trim_end).collect();
        assert_eq!(age_left_out(&seen.lines()), age_left_out(&plain), "{arguments:?}");
        let is_help = arguments.contains(&"--help");
        assert!(is_help || piped.out.lines().all(|line| line == line.trim_end()), "{arguments:?}: {:?}", piped.out);
    }
}

/// How long ago something was grows between two looks.
fn age_left_out(lines: &[impl AsRef<str>]) -> Vec<String> {
    let without = |line: &str| if line.starts_with("jm.llm ") { "jm.llm".to_owned() } else { line.to_owned() };
    lines.iter().map(|line| without(line.as_ref())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_coloured_where_colours_are_not_wanted() {
    let vhost = vhost().await;
    leave(&vhost, [dead("a")]).await;
    for arguments in [
        &["status"][..],
        &["doctor"],
        &["topology", "check"],
        &["dead", "list", QUEUE],
        &["dead", "replay", "nobodys"],
        &["--help"],
        &["statsu"],
    ] {
        let never: Vec<&str> = ["--color", "never"].iter().chain(arguments).copied().collect();
        for (what, command, arguments) in [
            ("NO_COLOR", with(jm_at(&vhost), "NO_COLOR", "1"), arguments),
            ("a dumb terminal", with(jm_at(&vhost), "TERM", "dumb"), arguments),
            ("--color never", jm_at(&vhost), never.as_slice()),
        ] {
            let seen = Terminal::start(command, arguments, SIZE).unwrap().end().await.unwrap();
            assert!(!seen.is_styled(), "{what}, {arguments:?}: {:?}", seen.written);
        }
        // A pipe has none, whatever else is a terminal.
        let piped = Terminal::start_with(jm_at(&vhost), arguments, SIZE, Piped::Out).unwrap().end().await.unwrap();
        assert!(!is_styled(&piped.piped), "{arguments:?}: {:?}", piped.piped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_draws_over_itself_and_leaves_no_remnants() {
    let vhost = vhost().await;
    let arguments = ["status", "--watch=1"];
    let mut terminal = Terminal::start(jm_at(&vhost), &arguments, SIZE).unwrap();
    // No queue but one is there: the table has long words in it.
    terminal.until_text("missing").await.unwrap();
    assert!(lines(&terminal.screen())[0].ends_with(", every 1 s"), "{:?}", lines(&terminal.screen()));
    said(jm_at(&vhost), ["topology", "apply"]).await;
    vhost.publish("jm.asr", BasicProperties::default(), b"{}").await.unwrap();
    terminal.until("all queues", |screen| !screen.contents().contains("missing")).await.unwrap();
    let wanted = said(jm_at(&vhost), ["status"]).await.out;
    let is_as_wanted =
        |screen: &vt100::Screen| lines(screen).get(2..).is_some_and(|lines| lines.join("\n") == wanted.trim_end());
    terminal.until(&wanted, is_as_wanted).await.unwrap();
    assert_eq!(terminal.screen().scrollback_len(), 0, "nothing has scrolled away");
    terminal.types(CTRL_C).await.unwrap();
    let seen = terminal.end().await.unwrap();
    assert_eq!((seen.code, seen.written.matches("\u{1b}[2J").count()), (0, 1), "cleared once");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_draws_what_is_shorter_over_what_was_longer_and_the_table_again() {
    let vhost = vhost().await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await.unwrap();
    let command = with(jm_at(&vhost), "JM_RABBITMQ__PORT", &proxy.port().to_string());
    let mut terminal = Terminal::start(command, &["status", "--watch=1"], SIZE).unwrap();
    // The table's last line: what is above it is drawn.
    terminal.until_text("http://host:15672)").await.unwrap();
    let table = lines(&terminal.screen())[2..].to_vec();
    proxy.refuse(true);
    terminal.until_text("cannot reach RabbitMQ").await.unwrap();
    // The next look has drawn the whole of it.
    let first = lines(&terminal.screen())[0].clone();
    terminal.until("the next look", |screen| lines(screen).first().is_some_and(|line| *line != first)).await.unwrap();
    let shown = lines(&terminal.screen())[2..].join(" ");
    assert!(shown.starts_with("cannot reach RabbitMQ at 127.0.0.1:") && !shown.contains("queue "), "{shown}");
    assert!(shown.ends_with("are rabbitmq.host and rabbitmq.port right?"), "nothing is cut off: {shown}");
    proxy.refuse(false);
    terminal
        .until("the table again", |screen| lines(screen).get(2..).is_some_and(|lines| lines == table))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_keeps_to_a_small_terminal_and_goes_without_colours_or_a_terminal() {
    let vhost = vhost().await;
    let mut small = Terminal::start(jm_at(&vhost), &["status", "--watch=1"], (6, 40)).unwrap();
    small.until_text("more lines").await.unwrap();
    let first = lines(&small.screen())[0].clone();
    small.until("the next look", |screen| lines(screen).first().is_some_and(|line| *line != first)).await.unwrap();
    assert_eq!(small.screen().scrollback_len(), 0);
    assert!(lines(&small.screen())[2].starts_with("queue "), "{:?}", lines(&small.screen()));
    let mut plain = Terminal::start(jm_at(&vhost), &["status", "--watch=1", "--color", "never"], SIZE).unwrap();
    plain.until_text("missing").await.unwrap();
    plain.types(CTRL_C).await.unwrap();
    let seen = plain.end().await.unwrap();
    assert!(seen.code == 0 && !seen.is_styled() && seen.written.contains("\u{1b}[H"), "{:?}", seen.written);
    let dumb = with(jm_at(&vhost), "TERM", "dumb");
    let mut dumb = Terminal::start(dumb, &["status", "--watch=1"], SIZE).unwrap();
    dumb.until("a second look", |screen| screen.contents().matches("every 1 s").count() == 2).await.unwrap();
    dumb.types(CTRL_C).await.unwrap();
    let seen = dumb.end().await.unwrap();
    assert!(seen.code == 0 && !seen.written.contains('\u{1b}'), "{:?}", seen.written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_has_a_bar_on_a_terminal_which_goes_in_the_end() {
    for piped in [Piped::Nothing, Piped::Out] {
        let vhost = vhost().await;
        leave(&vhost, (0..60).map(|number| dead(&number.to_string()))).await;
        let arguments = ["dead", "replay", QUEUE, "--rate", "60"];
        let mut terminal = Terminal::start_with(jm_at(&vhost), &arguments, SIZE, piped).unwrap();
        let is_bar = |screen: &vt100::Screen| {
            let line = lines(screen).first().cloned().unwrap_or_default();
            line.starts_with("replay █") && line.contains("/60 ")
        };
        terminal.until("the bar", is_bar).await.unwrap();
        let seen = terminal.end().await.unwrap();
        assert_eq!(seen.code, 0);
        if piped == Piped::Out {
            assert_eq!((seen.piped.as_str(), seen.lines()), ("60 put back\n", vec![]));
        } else {
            assert_eq!(seen.lines(), ["60 put back"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_a_terminal_gets_a_bar() {
    let vhost = vhost().await;
    let dumb = |command| with(command, "TERM", "dumb");
    for (what, command, piped) in
        [("a pipe", jm_at(&vhost), Piped::Err), ("a dumb terminal", dumb(jm_at(&vhost)), Piped::Nothing)]
    {
        leave(&vhost, (0..30).map(|number| dead(&number.to_string()))).await;
        let arguments = ["dead", "replay", QUEUE, "--rate", "60"];
        let seen = Terminal::start_with(command, &arguments, SIZE, piped).unwrap().end().await.unwrap();
        assert_eq!((seen.lines(), seen.piped.as_str()), (vec!["30 put back".to_owned()], ""), "{what}");
        assert!(!seen.written.contains("replay"), "{what}: {:?}", seen.written);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_of_on_a_line_of_its_own_above_the_bar() {
    let vhost = vhost().await;
    leave(&vhost, (0..200).map(|number| dead(&number.to_string()))).await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await.unwrap();
    let command = with(jm_at(&vhost), "JM_RABBITMQ__PORT", &proxy.port().to_string());
    let mut terminal = Terminal::start(command, &["dead", "replay", QUEUE, "--rate", "100"], (24, 200)).unwrap();
    terminal.until("the bar", |screen| screen.contents().contains("/200 ")).await.unwrap();
    // The first connection is not waited for, and the bar is there before it.
    vhost.wait_for_counts(QUEUE, LIMIT, |counts| counts.ready >= 20).await.unwrap();
    proxy.cut();
    let seen = terminal.end().await.unwrap();
    assert_eq!(seen.code, 0, "{:?}", seen.lines());
    let shown = seen.lines();
    let notes = shown.iter().filter(|line| line.ends_with("; connecting again")).count();
    assert!(notes >= 1 && !shown.iter().any(|line| line.contains('█') || line.contains('░')), "{shown:?}");
    // The one in hand was put back, and perhaps is there twice.
    assert!(shown.iter().any(|line| line == "200 put back" || line == "199 put back"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_on_the_terminal_ends_a_replay_between_two_messages() {
    let vhost = vhost().await;
    leave(&vhost, (0..300).map(|number| dead(&number.to_string()))).await;
    let mut terminal = Terminal::start(jm_at(&vhost), &["dead", "replay", QUEUE, "--rate", "200"], SIZE).unwrap();
    vhost.wait_for_counts(QUEUE, LIMIT, |counts| counts.ready >= 20).await.unwrap();
    terminal.types(CTRL_C).await.unwrap();
    let seen = terminal.end().await.unwrap();
    assert_eq!(seen.code, 130);
    assert!(!seen.screen.contents().contains('█'), "{:?}", seen.lines());
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.unacked == 0).await.unwrap();
    let (mut back, left) = (ids(&vhost, QUEUE).await, ids(&vhost, DEAD).await);
    assert!(seen.lines().iter().any(|line| *line == format!("{} put back", back.len())), "{:?}", seen.lines());
    back.extend(left);
    let wanted: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(back, wanted, "each once, in its order");
}

#[tokio::test]
async fn help_is_as_wide_as_the_terminal_and_never_over_80_columns() {
    for command in [&[][..], &["status"], &["topology"], &["dead", "list"], &["dead", "replay"], &["dead", "drop"]] {
        for (columns, widest) in [(60, 60), (72, 72), (300, 80)] {
            let arguments: Vec<&str> = command.iter().chain(&["--help"]).copied().collect();
            let seen = Terminal::start(jm(), &arguments, (400, columns)).unwrap().end().await.unwrap();
            assert_eq!(seen.code, 0, "{command:?}");
            let plain = console::strip_ansi_codes(&seen.written);
            for line in plain.lines() {
                assert!(console::measure_text_width(line) <= widest, "{command:?} at {columns}: {line}");
            }
        }
    }
}
