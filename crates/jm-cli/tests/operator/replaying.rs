//! `jm dead replay`: nothing is lost, and nothing but what was in hand is there twice.

use std::time::Duration;

use jm_testkit::{RabbitNode, TcpProxy};
use lapin::types::AMQPValue;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    dead_letters::{DEAD, Dead, QUEUE, arrived, dead, everywhere, ids, leave, on, original, said, vhost},
    support::{jm_at, signal, started},
};

const LIMIT: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_dead_letters_survive_five_cuts_and_two_kills() {
    const COUNT: u64 = 10_000;
    let node = RabbitNode::start().await.unwrap();
    let vhost = on(&node).await;
    leave(&vhost, (0..COUNT).map(|number| dead(&format!("m-{number}")))).await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], vhost.port).into()).await.unwrap();
    let start = || {
        let mut command = jm_at(&vhost);
        command.env("JM_RABBITMQ__PORT", proxy.port().to_string());
        started(command, &["dead", "replay", QUEUE])
    };
    let mut jm = start();
    for (step, reached) in [900, 2100, 3300, 4700, 5900, 7100, 8300].into_iter().enumerate() {
        arrived(&vhost, reached).await;
        match step {
            2 | 5 => {
                signal(&jm, Signal::SIGKILL);
                jm.wait().await.unwrap();
                jm = start();
            }
            1 | 4 => proxy.cut(),
            _ => proxy.reset(),
        }
    }
    let end = tokio::time::timeout(LIMIT, jm.wait_with_output()).await.unwrap().unwrap();
    assert!(end.status.success(), "{}", String::from_utf8_lossy(&end.stderr));
    assert_eq!(vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.unacked == 0).await.unwrap().ready, 0);
    let found = everywhere(&vhost).await;
    assert_eq!(found.len() as u64, COUNT, "none is lost");
    let twice = found.values().filter(|count| **count == 2).count();
    let total: usize = found.values().sum();
    assert_eq!(total as u64, COUNT + twice as u64, "none is there more than twice");
    assert!(twice <= 7, "{twice} are there twice, and only 7 were in hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_back_as_it_was() {
    let vhost = vhost().await;
    let more = || {
        vec![
            ("tenant", AMQPValue::ShortInt(7)),
            ("CC", AMQPValue::FieldArray(vec![AMQPValue::LongString("elsewhere".into())].into())),
        ]
    };
    let sent = Dead { more: more(), body: b"\xff\x00 body".to_vec(), ..dead("m-1") };
    let (properties, body) = Dead { more: more()[..1].to_vec(), body: sent.body.clone(), ..dead("m-1") }.message();
    leave(&vhost, [sent]).await;
    let said = said(jm_at(&vhost), ["dead", "replay", QUEUE]).await;
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "1 put back\n", ""));
    let back = vhost.take_all(QUEUE).await.unwrap().remove(0);
    assert_eq!((back.exchange.as_str(), back.routing_key.as_str(), back.redelivered), (QUEUE, QUEUE, false));
    assert_eq!(original(&back), (properties, body));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_chosen_goes_back_and_the_others_keep_their_order() {
    let vhost = vhost().await;
    let letters = (0..6).map(|number| {
        let error_kind = if number % 2 == 0 { "timeout" } else { "permanent" };
        Dead { error_kind, ..dead(&number.to_string()) }
    });
    leave(&vhost, letters).await;
    let plan = said(jm_at(&vhost), ["dead", "replay", QUEUE, "--kind", "timeout", "--dry-run"]).await;
    assert_eq!(
        plan.out,
        "      3  timeout       llm.chat            to exchange `jm.llm` with key `jm.llm`\n\
         3 would be put back; nothing was\n"
    );
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == 6).await.unwrap();
    let done = said(jm_at(&vhost), ["dead", "replay", QUEUE, "--kind", "timeout", "--limit", "2", "--json"]).await;
    let answer: Value = serde_json::from_str(&done.out).unwrap();
    let wanted = r#"{"queue":"jm.llm.dead","replayed":2,"perhaps_twice":0,"came_back":0,"left":[],"end":"done"}"#;
    assert_eq!((done.code, answer), (0, serde_json::from_str(wanted).unwrap()));
    assert_eq!(ids(&vhost, QUEUE).await, ["0", "2"]);
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == 4).await.unwrap();
    assert_eq!(ids(&vhost, DEAD).await, ["1", "3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reaches_no_queue_stays_dead_and_the_rest_goes_on() {
    let vhost = vhost().await;
    let to = |exchange: &str, key: &str| {
        let text = |text: &str| AMQPValue::LongString(text.into());
        vec![("x-original-exchange", text(exchange)), ("x-original-routingKey", text(key))]
    };
    leave(
        &vhost,
        [
            Dead { more: to(QUEUE, "nobody"), ..dead("unbound") },
            Dead { more: to("gone", "x"), ..dead("gone") },
            dead("well"),
        ],
    )
    .await;
    let done = said(jm_at(&vhost), ["dead", "replay", QUEUE]).await;
    assert_eq!((done.code, done.err.as_str()), (1, ""), "{done:?}");
    assert!(done.out.starts_with("1 put back\n"), "{}", done.out);
    assert!(
        done.out.contains("left in jm.llm.dead 1: exchange `jm.llm` with key `nobody` leads to no queue"),
        "{}",
        done.out
    );
    assert!(done.out.contains("left in jm.llm.dead 1: exchange `gone` with key `x` does not exist"), "{}", done.out);
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == 2).await.unwrap();
    let done = said(jm_at(&vhost), ["dead", "replay", QUEUE, "--to", QUEUE]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(ids(&vhost, QUEUE).await, ["well", "unbound", "gone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_the_middle_leaves_nothing_unacked_and_loses_nothing() {
    let vhost = vhost().await;
    leave(&vhost, (0..300).map(|number| dead(&number.to_string()))).await;
    let mut jm = started(jm_at(&vhost), &["dead", "replay", QUEUE, "--rate", "200"]);
    arrived(&vhost, 20).await;
    signal(&jm, Signal::SIGINT);
    let status = tokio::time::timeout(LIMIT, jm.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    let counts = vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.unacked == 0).await.unwrap();
    assert!(counts.ready > 0 && counts.consumers == 0, "{counts:?}");
    let found = everywhere(&vhost).await;
    assert_eq!(found.len(), 300);
    assert!(found.values().all(|count| *count == 1), "in the middle of nothing, nothing is twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept() {
    let vhost = vhost().await;
    leave(&vhost, (0..10).map(|number| dead(&number.to_string()))).await;
    let begun = std::time::Instant::now();
    let done = said(jm_at(&vhost), ["dead", "replay", QUEUE, "--rate", "10"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    // The first goes at once.
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}
