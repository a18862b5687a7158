//! `jm dead list` and `jm dead show`.

use jm_testkit::QueueCounts;
use lapin::types::AMQPValue;
use serde_json::Value;

use crate::{
    dead_letters::{DEAD, Dead, QUEUE, dead, ids, leave, said, vhost},
    support::jm_at,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_list_fits_eighty_columns_tells_why_and_takes_nothing() {
    let vhost = vhost().await;
    let long = Dead { error: "模型没有回答。\u{1b}[31m".repeat(40), error_kind: "timeout", ..dead("m-2") };
    let nameless = Dead { kind: "a.type.that.somebody.made.very.long.indeed", ..dead(&"i".repeat(200)) };
    leave(&vhost, [dead("m-1"), long, nameless]).await;
    for name in [QUEUE, DEAD, "llm-worker"] {
        let said = said(jm_at(&vhost), ["dead", "list", name]).await;
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
        for line in said.out.lines() {
            assert!(console::measure_text_width(line) <= 80, "{line}");
        }
        assert!(!said.out.contains('\u{1b}'), "{said:?}");
        let mut lines = said.out.lines();
        assert_eq!(lines.next(), Some("2026-11-23 12:00:00  exhausted     llm.chat                  4 runs"));
        assert_eq!(lines.next(), Some("  m-1"));
        assert_eq!(lines.next(), Some("  503 Service Unavailable"));
        assert_eq!(said.out.lines().last(), Some("3 of 3 dead letters in jm.llm.dead"));
    }
    let counts = vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == 3).await.unwrap();
    assert_eq!(counts, QueueCounts { ready: 3, unacked: 0, consumers: 0 });
    assert_eq!(ids(&vhost, DEAD).await[..2], ["m-1", "m-2"], "the order stays");
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_by_type_kind_text_time_and_id() {
    let vhost = vhost().await;
    leave(
        &vhost,
        [
            dead("a"),
            Dead { kind: "llm.title", ..dead("b") },
            Dead { error_kind: "timeout", ..dead("c") },
            Dead { failed_at: "2026-11-22T12:00:00Z".into(), ..dead("d") },
            Dead { error: "text: in zh, which the model does not write".into(), ..dead("e") },
            Dead { body: b"\xff no text".to_vec(), ..dead("f") },
        ],
    )
    .await;
    for (filter, wanted) in [
        (&["--type", "llm.title"][..], &["b"][..]),
        (&["--type", "llm.title", "--type", "llm.chat", "--kind", "timeout"], &["c"]),
        (&["--until", "2026-11-23"], &["d"]),
        (&["--since", "2026-11-23T12:00:00Z", "--text", "SECRET OF", "--limit", "2"], &["a", "b"]),
        (&["--text", "In ZH, which"], &["e"]),
        (&["--text", "no text"], &["f"]),
        (&["--id", "d", "--id", "a"], &["a", "d"]),
        (&["--id", "nobody"], &[]),
    ] {
        let said = said(jm_at(&vhost), ["dead", "list", QUEUE, "--json"].iter().chain(filter)).await;
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{filter:?}: {said:?}");
        let listed: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found: Vec<&str> = listed.iter().map(|letter| letter["message_id"].as_str().unwrap()).collect();
        assert_eq!(found, wanted, "{filter:?}");
    }
    let said = said(jm_at(&vhost), ["dead", "list", QUEUE, "--id", "nobody"]).await;
    assert_eq!(said.out, "none of the 6 dead letters in jm.llm.dead is like that\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_listed_letter_stay_as_they_are() {
    let vhost = vhost().await;
    leave(&vhost, [dead("m-1")]).await;
    let said = said(jm_at(&vhost), ["dead", "list", QUEUE, "--json"]).await;
    assert_eq!(
        said.out.trim_end(),
        r#"{"queue":"jm.llm.dead","message_id":"m-1","correlation_id":null,"type":"llm.chat","error_kind":"exhausted","error":"503 Service Unavailable","attempts":4,"failed_at":"2026-11-23T12:00:00.5Z","worker":"host/1#0","original_queue":"jm.llm","exchange":"jm.llm","routing_key":"jm.llm","bytes":56}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_shown_with_its_body_masked_unless_asked_for() {
    let vhost = vhost().await;
    let hostile = Dead {
        more: vec![("tenant", AMQPValue::LongString("\u{1b}]0;owned\u{7}".into()))],
        body: "{\"text\":\"geheim \u{202e}\u{9b}2J\",\"n\":[1,2]}".into(),
        ..dead("m-1")
    };
    leave(&vhost, [hostile]).await;
    let masked = said(jm_at(&vhost), ["dead", "show", QUEUE]).await;
    assert_eq!((masked.code, masked.err.as_str()), (0, ""), "{masked:?}");
    assert!(masked.out.contains("goes back to            exchange `jm.llm` with key `jm.llm`"), "{}", masked.out);
    assert!(masked.out.contains("jm-attempts             4"), "{}", masked.out);
    assert!(masked.out.contains(r"tenant                  \u001b]0;owned\u0007"), "{}", masked.out);
    assert!(masked.out.contains(r#""text": "text of 11 characters""#), "{}", masked.out);
    assert!(!masked.out.contains("geheim"), "{}", masked.out);
    let shown = said(jm_at(&vhost), ["dead", "show", QUEUE, "--bodies", "--id", "m-1"]).await;
    assert!(shown.out.contains(r#""text": "geheim \u202e\u009b2J""#), "{}", shown.out);
    let json = said(jm_at(&vhost), ["dead", "show", QUEUE, "--json", "--bodies"]).await;
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["body"]["n"][1], &json["headers"]["jm-attempts"]), (&2.into(), &4.into()));
    assert_eq!(json["properties"]["priority"], 3);
    let masked = said(jm_at(&vhost), ["dead", "show", QUEUE, "--json"]).await;
    assert!(!masked.out.contains("geheim") && masked.out.contains(r#""type":"llm.chat""#), "{}", masked.out);
    let none = said(jm_at(&vhost), ["dead", "show", QUEUE, "--id", "x"]).await;
    assert_eq!((none.code, none.err.lines().count()), (66, 1), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_command_is_one_line() {
    let vhost = vhost().await;
    for (arguments, code, words) in [
        (&["dead", "list", "no.such.queue"][..], 66, "no queue `no.such.queue.dead`"),
        (&["dead", "list", "no.such.queue", "--exact"], 66, "no queue `no.such.queue`"),
        (&["dead", "list"], 2, "<QUEUE>"),
        (&["dead", "list", QUEUE, "--since", "yesterday"], 2, "neither a span such as 2h"),
        (&["dead", "list", QUEUE, "--limit", "0"], 2, "--limit"),
        (&["dead", "show", QUEUE], 66, "jm.llm.dead is empty"),
        (&["dead", "replay"], 2, "QUEUE"),
        (&["dead", "replay", QUEUE, "--rate", "0"], 2, "messages a second"),
        (&["dead", "replay", QUEUE, "--canary-wait", "1ms"], 2, "from 1s to 24h"),
        (&["dead", "replay", "--from", "/no/such/file"], 66, "/no/such/file"),
        (&["dead", "drop", QUEUE], 2, "--yes"),
    ] {
        let said = said(jm_at(&vhost), arguments).await;
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        assert!(said.err.contains(words) && said.err.lines().count() == 1, "{arguments:?}: {said:?}");
    }
    for arguments in [&["list", QUEUE][..], &["show", QUEUE], &["replay", QUEUE], &["drop", QUEUE, "--yes"]] {
        let mut command = jm_at(&vhost);
        command.env("JM_RABBITMQ__PORT", "1");
        let said = said(command, ["dead"].iter().chain(arguments)).await;
        assert_eq!((said.code, said.err.lines().count()), (69, 1), "{arguments:?}: {said:?}");
        assert!(said.err.starts_with("jm: cannot reach RabbitMQ at 127.0.0.1:1: "), "{arguments:?}: {said:?}");
    }
}
