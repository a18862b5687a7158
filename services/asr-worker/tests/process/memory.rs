//! What bodies that are made for it take of memory: no more than the pod has.

use jm_testkit::{Flood, withstand};

use crate::{Bench, QUEUE};

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_the_largest_bodies_are_dead_letters_and_fit_into_the_pods_memory() {
    let bench = Bench::new().await;
    let largest = Flood::largest;
    let turn = "{\"start\":0,\"end\":0,\"speaker\":\"\"}";
    let floods = [
        Flood::dead(
            4,
            "asr.transcribe",
            largest([&format!("{{\"audio\":{{\"url\":\"x\"}},\"turns\":[{turn}"), &format!(",{turn}"), "]}"]),
            ("undecodable", "turns: more than 20000 items"),
        ),
        Flood::dead(
            6,
            "asr.transcribe",
            largest(["{\"audio\":{\"url\":\"", "\\u4f60", "\"}}"]),
            ("permanent", "audio"),
        ),
        Flood::dead(4, "asr.transcribe", largest(["{\"audio\":", "[", ""]), ("undecodable", "audio")),
        Flood::dead(4, "asr.transcribe", largest(["{\"other\":", "[", ""]), ("undecodable", "EOF while parsing")),
        Flood::dead(8, "asr.nothing", largest(["\"", "x", "\""]), ("unknown_type", "no handler for type")),
    ];
    withstand("asr-worker", bench.worker(), &bench.vhost, QUEUE, &floods).await.unwrap();
}
