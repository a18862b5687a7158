//! `jm dead replay --canary`, and `jm publish --wait`: against a worker made of the core, in this process.

use std::{sync::Arc, time::Duration};

use jm_mq_core::{
    Answers, Broker, BrokerOptions, Consumer, ConsumerOptions, Context, HandlerError, Message, Port, Publisher,
    PublisherOptions, Router, RunningConsumer, Topology,
};
use jm_testkit::{QueueCounts, TcpProxy, Vhost};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    dead_letters::{DEAD, QUEUE, dead, ids, leave, said, vhost},
    support::{jm_at, started},
};

const LIMIT: Duration = Duration::from_mins(1);

/// A worker whose handler answers, or fails for good where the predicate says so.
pub(crate) async fn worker(vhost: &Vhost, fails: impl Fn(&str) -> bool + Send + Sync + 'static) -> RunningConsumer {
    let options = BrokerOptions {
        port: Some(Port(vhost.port)),
        name: vhost.user.clone(),
        password: vhost.password.as_str().into(),
        vhost: vhost.name.clone(),
        ..BrokerOptions::default()
    };
    let broker = Broker::new(options).unwrap();
    let publisher = Publisher::new(&broker, PublisherOptions::default()).unwrap();
    let fails = Arc::new(fails);
    let router = Router::new().on_type("llm.chat", move |task: Value, cx: Context| {
        let fails = Arc::clone(&fails);
        async move {
            if fails(cx.message_id().unwrap_or_default()) {
                return Err(HandlerError::permanent("it is still wrong"));
            }
            Ok(Answers::none().and_reply(&cx, Message::new("llm.completed", task.to_string())))
        }
    });
    let topology = Topology::work_queue(QUEUE);
    let consumer = Consumer::new(&broker, &publisher, topology, ConsumerOptions::default(), router).unwrap();
    let running = consumer.start();
    tokio::time::timeout(LIMIT, running.ready()).await.unwrap();
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_with_good_canaries_goes_through_and_each_message_is_worked_on_as_new() {
    let vhost = vhost().await;
    let worker = worker(&vhost, |_| false).await;
    leave(&vhost, (0..40).map(|number| dead(&number.to_string()))).await;
    let done = said(jm_at(&vhost), ["dead", "replay", QUEUE, "--canary", "3"]).await;
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "40 put back\n", ""));
    vhost.wait_for_counts(QUEUE, LIMIT, QueueCounts::is_empty).await.unwrap();
    assert!(ids(&vhost, DEAD).await.is_empty(), "none was taken for poison, or for one known already");
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_again_ends_the_replay_with_the_rest_untouched() {
    let vhost = vhost().await;
    let worker = worker(&vhost, |id| id == "2").await;
    leave(&vhost, (0..40).map(|number| dead(&number.to_string()))).await;
    let done = said(jm_at(&vhost), ["dead", "replay", QUEUE, "--canary", "5"]).await;
    assert_eq!((done.code, done.out.as_str()), (1, "3 put back\n"), "{done:?}");
    assert_eq!(done.err, "jm: canary `2` has failed again, permanent: it is still wrong; the rest is untouched\n");
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == 38).await.unwrap();
    let left = ids(&vhost, DEAD).await;
    let wanted: Vec<String> = (3..40).chain([2]).map(|number: i32| number.to_string()).collect();
    assert_eq!(left, wanted, "in their order, and the canary behind them");
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_not_sent_where_nobody_works_and_silence_is_no_success_unless_told() {
    let vhost = vhost().await;
    leave(&vhost, [dead("1"), dead("2")]).await;
    let nobody = said(jm_at(&vhost), ["dead", "replay", QUEUE, "--canary", "1"]).await;
    assert_eq!((nobody.code, nobody.out.as_str()), (1, "0 put back\n"), "{nobody:?}");
    assert!(nobody.err.starts_with("jm: nobody consumes `jm.llm`"), "{nobody:?}");
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == 2).await.unwrap();

    // A program that is none of ours: it takes, and tells nothing.
    let channel = vhost.channel().await.unwrap();
    let options = lapin::options::BasicConsumeOptions { no_ack: true, ..Default::default() };
    let _other = channel
        .basic_consume(QUEUE.into(), "other".into(), options, lapin::types::FieldTable::default())
        .await
        .unwrap();
    let replay = ["dead", "replay", QUEUE, "--canary", "1", "--canary-wait", "1s"];
    let silent = said(jm_at(&vhost), replay).await;
    assert_eq!((silent.code, silent.out.as_str()), (1, "1 put back\n"), "{silent:?}");
    assert!(silent.err.starts_with("jm: nothing was heard of canary `1` within 1s"), "{silent:?}");
    let trusted = said(jm_at(&vhost), replay.iter().chain(&["--silence-is-success"])).await;
    assert_eq!((trusted.code, trusted.out.as_str()), (0, "1 put back\n"), "{trusted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_again_during_a_replay_is_left_alone() {
    let vhost = vhost().await;
    let worker = worker(&vhost, |_| true).await;
    leave(&vhost, (0..30).map(|number| dead(&number.to_string()))).await;
    let done = said(jm_at(&vhost), ["dead", "replay", QUEUE, "--rate", "100"]).await;
    assert!(done.out.starts_with("30 put back\n"), "{done:?}");
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == 30).await.unwrap();
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_failed_again_is_left_alone_after_a_lost_connection_too() {
    let vhost = vhost().await;
    let (failed, mut failures) = watch::channel(0);
    let worker = worker(&vhost, move |_| {
        failed.send_modify(|count| *count += 1);
        true
    })
    .await;
    leave(&vhost, (0..60).map(|number| dead(&number.to_string()))).await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await.unwrap();
    let mut command = jm_at(&vhost);
    command.env("JM_RABBITMQ__PORT", proxy.port().to_string());
    let jm = started(command, &["dead", "replay", QUEUE, "--rate", "60", "--json"]);
    tokio::time::timeout(LIMIT, failures.wait_for(|count| *count >= 15)).await.unwrap().unwrap();
    proxy.cut();
    let done = tokio::time::timeout(LIMIT, jm.wait_with_output()).await.unwrap().unwrap();
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    let number = |key: &str| answer[key].as_u64().unwrap();
    // The one in hand may be put back twice; those before it have failed again, and are seen by the second pass.
    assert!((60..=61).contains(&(number("replayed") + number("perhaps_twice"))), "{answer}");
    assert!(number("came_back") >= 14, "{answer}");
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_task_is_checked_and_its_answer_printed() {
    let vhost = vhost().await;
    let worker = worker(&vhost, |id| id == "bad").await;
    let body = r#"{"messages":[{"role":"user","content":"Hi"}]}"#;
    let answered = said(jm_at(&vhost), ["publish", "llm.chat", "--json", body, "--wait", "--id", "m-1"]).await;
    assert_eq!((answered.code, answered.err.as_str()), (0, "sent as m-1\n"), "{answered:?}");
    let answer: Value = serde_json::from_str(&answered.out).unwrap();
    assert_eq!(answer["messages"][0]["content"], "Hi");
    let unanswered =
        said(jm_at(&vhost), ["publish", "llm.chat", "--json", body, "--wait", "--id", "bad", "--timeout", "1s"]).await;
    assert_eq!((unanswered.code, unanswered.out.as_str()), (1, ""), "{unanswered:?}");
    assert!(unanswered.err.contains("jm dead show jm.llm --id bad"), "{unanswered:?}");
    let sent = said(jm_at(&vhost), ["publish", "llm.chat", "--json", body]).await;
    assert_eq!((sent.code, sent.out.trim().len()), (0, 36), "{sent:?}");
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_published_is_refused_before_anything_is_sent() {
    let vhost = vhost().await;
    for (arguments, code, words) in [
        (&["llm.chat", "--json", "{}"][..], 1, r#""messages" is a required property"#),
        (&["llm.chat", "--json", "{"], 1, "the body is no JSON"),
        (&["llm.chat"], 2, "--json"),
        (&["llm.chat", "--json", "{}", "-"], 2, "cannot be used with"),
        (&["llm.chat", "--file", "/no/such/file"], 66, "/no/such/file"),
        (&["llm.shout", "--json", "{}"], 66, "`jm schema` lists them"),
        (&["record.deleted", "--json", r#"{"record_id":"r","revision":1}"#, "--wait"], 2, "nobody answers events"),
        (
            &["llm.chat", "--json", r#"{"messages":[{"role":"user","content":"x"}]}"#, "--queue", "nowhere"],
            69,
            "reached no queue",
        ),
    ] {
        let said = said(jm_at(&vhost), ["publish"].iter().chain(arguments)).await;
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        assert!(said.err.contains(words) && said.err.lines().count() == 1, "{arguments:?}: {said:?}");
    }
    assert!(ids(&vhost, QUEUE).await.is_empty());
}

#[tokio::test]
async fn schemas_are_listed_and_printed_without_a_broker() {
    let listed = said(crate::support::jm(), ["schema"]).await;
    assert!(listed.out.starts_with("llm.chat            jm.llm\n"), "{listed:?}");
    let schema = said(crate::support::jm(), ["schema", "asr.transcribe"]).await;
    let schema: Value = serde_json::from_str(&schema.out).unwrap();
    assert_eq!(schema["title"], "asr.transcribe");
    let none = said(crate::support::jm(), ["schema", "x"]).await;
    assert_eq!((none.code, none.err.as_str()), (66, "jm: no message type `x`; `jm schema` lists them\n"));
}
