//! What bodies that are made for it take of memory: no more than the pod has.

use jm_testkit::{Flood, HttpResponse, withstand};
use serde_json::json;

use crate::{Bench, QUEUE};

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_the_largest_bodies_are_dead_letters_and_fit_into_the_pods_memory() {
    let bench = Bench::new().await;
    // Vectors whose event is just below what a message may have.
    let vector = vec!["0.012345678"; 600].join(",");
    bench.server.http().on("POST", "/v1/embeddings", move |request| {
        let count = request.json()["input"].as_array().map_or(1, Vec::len);
        let of = |index| format!("{{\"index\":{index},\"embedding\":[{vector}]}}");
        let data = (0..count).map(of).collect::<Vec<_>>().join(",");
        HttpResponse::bytes("application/json", format!("{{\"data\":[{data}],\"model\":\"m\"}}"))
    });
    let largest = Flood::largest;
    let texts = json!({ "texts": vec!["x"; 2048] }).to_string().into_bytes();
    let floods = [
        Flood::dead(
            4,
            "embed.text",
            largest(["{\"texts\":[\"\"", ",\"\"", "]}"]),
            ("undecodable", "texts: more than 2048 items"),
        ),
        Flood::dead(4, "embed.text", largest(["{\"texts\":", "[", ""]), ("undecodable", "texts[0]: invalid type")),
        Flood::dead(4, "embed.text", largest(["{\"other\":", "[", ""]), ("undecodable", "EOF while parsing")),
        Flood::dead(8, "embed.nothing", largest(["\"", "x", "\""]), ("unknown_type", "no handler for type")),
        Flood::done(4, "embed.text", largest(["{\"texts\":[\"", "\\u4f60", "\"]}"])),
        Flood::done(8, "embed.text", texts),
    ];
    withstand("embed-worker", bench.worker(), &bench.vhost, QUEUE, &floods).await.unwrap();
}
