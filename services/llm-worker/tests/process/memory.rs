//! What bodies that are made for it take of memory: no more than the pod has.

use jm_testkit::{Flood, withstand};

use crate::{Bench, QUEUE};

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_the_largest_bodies_are_dead_letters_and_fit_into_the_pods_memory() {
    let bench = Bench::new().await;
    let largest = Flood::largest;
    let message = "{\"role\":\"user\",\"content\":\"\"}";
    let floods = [
        Flood::dead(
            4,
            "llm.chat",
            largest([&format!("{{\"messages\":[{message}"), &format!(",{message}"), "]}"]),
            ("undecodable", "messages: more than 1000 items"),
        ),
        Flood::dead(4, "llm.summarize", largest(["{\"text\":\"", "\\u4f60", "\"}"]), ("permanent", "text: ")),
        Flood::dead(4, "llm.chat", largest(["{\"messages\":", "[", ""]), ("undecodable", "messages[0]")),
        Flood::dead(4, "llm.title", largest(["{\"other\":", "[", ""]), ("undecodable", "EOF while parsing")),
        Flood::dead(8, "llm.nothing", largest(["\"", "x", "\""]), ("unknown_type", "no handler for type")),
    ];
    withstand("llm-worker", bench.worker(), &bench.vhost, QUEUE, &floods).await.unwrap();
}
