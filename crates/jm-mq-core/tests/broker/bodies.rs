//! Bodies that are compressed, marked, or in another charset.

use std::io::Write;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use jm_mq_core::{BasicProperties, ConsumerOptions, Context, HandlerError, RawMessage, Router};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::Value;

use crate::support::{Bench, Gate, LIMIT, Record, held, one_worker, quick, text_header, within};

const MOST: usize = 1024 * 1024;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    compress_to_vec(body, CompressionLevel::Fastest)
}

fn task(encoding: &str) -> BasicProperties {
    BasicProperties::default().with_type("task".into()).with_content_encoding(encoding.into())
}

fn options() -> ConsumerOptions {
    ConsumerOptions { max_body_bytes: MOST, ..one_worker() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_sees_bodies_decoded_and_without_their_byte_order_mark() {
    let bench = Bench::shared().await;
    let seen = Record::new();
    let router = Router::new().on_type("task", {
        let seen = seen.clone();
        move |task: Value, _: Context| {
            seen.add(task["text"].as_str().unwrap().to_owned());
            async { Ok::<_, HandlerError>(()) }
        }
    });
    let _running = bench.consume("b.encoded", options(), router).await;
    let body = |n: usize| format!(r#"{{"text":"你好 {n}"}}"#).into_bytes();
    let marked = |n: usize| [&b"\xEF\xBB\xBF"[..], &body(n)].concat();
    let messages = [
        (task("gzip"), gzip(&body(0))),
        (task("Deflate"), zlib(&body(1))),
        (task("deflate"), raw_deflate(&body(2))),
        (task("ZSTD"), zstd(&body(3))),
        (task(""), marked(4)),
        (task("gzip"), gzip(&marked(5))),
        (task("identity").with_content_type("application/json; charset=UTF-8".into()), body(6)),
        // Spring AMQP and kombu write the charset there.
        (task("utf-8"), body(7)),
    ];
    let count = messages.len();
    for (properties, body) in messages {
        bench.vhost.publish("b.encoded", properties, &body).await.unwrap();
    }
    let expected: Vec<String> = (0..count).map(|n| format!("你好 {n}")).collect();
    assert_eq!(seen.reaches(count).await, expected);
    bench.settled("b.encoded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_dead_lettered_by_name_and_as_it_came() {
    let bench = Bench::shared().await;
    let runs = Record::new();
    let router = Router::new().on_type("task", {
        let runs = runs.clone();
        move |_: Value, _: Context| {
            runs.add(());
            async { Ok::<_, HandlerError>(()) }
        }
    });
    let _running = bench.consume("b.refused", options(), router).await;
    let bomb = vec![b' '; 40 * MOST];
    let charset = |content_type: &str| task("").with_content_type(content_type.into());
    let too_large = |encoding: &str| format!("decoded from {encoding} more than max_body_bytes (1048576)");
    let refused = [
        (task("gzip"), gzip(&bomb), "too_large", too_large("gzip")),
        (task("deflate"), zlib(&bomb), "too_large", too_large("deflate")),
        (task("deflate"), raw_deflate(&bomb), "too_large", too_large("deflate")),
        (task("zstd"), zstd(&bomb), "too_large", too_large("zstd")),
        (task("gzip"), b"{}".to_vec(), "undecodable", "it is not gzip, as content_encoding says: ".into()),
        (task("br"), b"{}".to_vec(), "undecodable", "content_encoding \"br\" is not known here; allowed: gzip".into()),
        (task("gzip, zstd"), zstd(&gzip(b"{}")), "undecodable", "content_encoding \"gzip, zstd\" is not known".into()),
        (charset("text/json; charset=gbk"), b"\"\xC4\xE3\"".to_vec(), "undecodable", "charset \"gbk\" of".into()),
        (task(""), b"\xFF\xFE{\0}\0".to_vec(), "undecodable", "byte order mark of UTF-16".into()),
    ];
    for (properties, body, ..) in &refused {
        assert!(body.len() < MOST);
        bench.vhost.publish("b.refused", properties.clone(), body).await.unwrap();
    }
    let dead = bench.dead("b.refused", refused.len() as u64).await;
    bench.settled("b.refused").await;
    for (dead, (properties, body, kind, reason)) in dead.iter().zip(&refused) {
        assert_eq!(text_header(dead, "jm-error-kind"), *kind, "{reason}");
        let told = text_header(dead, "x-exception-message");
        assert!(told.contains(reason), "{told}");
        assert_eq!(&dead.data, body, "to the byte");
        assert_eq!(dead.properties.content_encoding(), properties.content_encoding());
        assert_eq!(dead.properties.content_type(), properties.content_type());
    }
    assert_eq!(runs.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_without_a_type_sees_the_bytes_as_they_came() {
    let bench = Bench::shared().await;
    let seen = Record::new();
    let router = Router::new().fallback({
        let seen = seen.clone();
        move |message: RawMessage, _: Context| {
            seen.add(message.body);
            async { Ok::<_, HandlerError>(()) }
        }
    });
    let _running = bench.consume("b.raw", options(), router).await;
    let bodies = [("gzip", gzip(b"{}")), ("br", b"\xEF\xBB\xBF{}".to_vec())];
    for (encoding, body) in &bodies {
        bench.vhost.publish("b.raw", task(encoding), body).await.unwrap();
    }
    assert_eq!(seen.reaches(2).await, bodies.map(|(_, body)| body));
    bench.settled("b.raw").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_are_worked_on_a_few_at_a_time_and_go_back_when_the_worker_drains() {
    let bench = Bench::shared().await;
    let (runs, gate) = (Record::new(), Gate::closed());
    let options = ConsumerOptions { concurrency: 4, prefetch_per_worker: 1, max_bytes_in_work: 1000, ..quick() };
    let running = bench.consume("b.large", options.clone(), held(&runs, &gate)).await;
    let body = format!("\"{}\"", "x".repeat(600));
    for id in ["first", "second", "third"] {
        bench.send("b.large", "task", id, &body).await;
    }
    bench.vhost.wait_for_counts("b.large", LIMIT, |counts| counts.unacked == 3).await.unwrap();
    runs.reaches(1).await;
    let shutdown = tokio::spawn(running.shutdown());
    let given_back = bench.vhost.wait_for_counts("b.large", LIMIT, |counts| counts.ready == 2).await;
    assert_eq!(given_back.unwrap().unacked, 1);
    assert_eq!(runs.len(), 1, "the others waited with their workers");
    gate.open();
    assert_eq!(within("shutdown", shutdown).await.unwrap().cut_off, 0);
    let _running = bench.consume("b.large", options, held(&runs, &gate)).await;
    bench.settled("b.large").await;
    assert_eq!(runs.len(), 3);
}
