//! What bodies that are made for it take of memory: no more than the pod has.

use jm_tasks::queue;
use jm_testkit::{Flood, withstand};

use crate::{database_in, vhost, worker};

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_the_largest_bodies_are_dead_letters_and_fit_into_the_pods_memory() {
    let folder = tempfile::tempdir().unwrap();
    let vhost = vhost().await;
    let largest = Flood::largest;
    let record = "{\"record_id\":\"r-1\",\"revision\":1,";
    let (segment, turn) = ("{\"start\":0,\"end\":0,\"text\":\"\"}", "{\"start\":0,\"end\":0,\"speaker\":\"\"}");
    let list = |field: &str, item: &str| largest([&format!("{{\"{field}\":[{item}"), &format!(",{item}"), "]}"]);
    let too_many = |message_type: &str, field: &str, item: &str, most: usize| {
        let reason = format!("{field}: more than {most} items");
        Flood::dead(1, message_type, list(field, item), ("undecodable", &reason))
    };
    let vector = vec!["0"; 1000].join(",");
    let vectors = vec![format!("[{vector}]"); 2048].join(",");
    let floods = [
        too_many("embed.embedded", "vectors", "[]", 2048),
        too_many("sd.diarized", "turns", turn, 20_000),
        Flood::dead(
            1,
            "asr.transcribed",
            largest([&format!("{{\"text\":\"\",\"segments\":[{segment}"), &format!(",{segment}"), "]}"]),
            ("undecodable", "segments: more than 50000 items"),
        ),
        Flood::dead(
            1,
            "embed.embedded",
            largest(["{\"vectors\":[[0", ",0", "]]}"]),
            ("undecodable", "vectors[0]: more than 16384 items"),
        ),
        Flood::dead(1, "record.created", largest(["{\"content\":", "[", ""]), ("undecodable", "content")),
        Flood::dead(1, "record.created", largest(["{\"other\":", "[", ""]), ("undecodable", "EOF while parsing")),
        Flood::dead(
            1,
            "record.deleted",
            largest(["{\"record_id\":\"", "\\u4f60", "\"}"]),
            ("undecodable", "record_id"),
        ),
        Flood::dead(24, "record.nothing", largest(["\"", "x", "\""]), ("unknown_type", "no handler for type")),
        Flood::done(2, "embed.embedded", format!("{record}\"vectors\":[{vectors}]}}").into_bytes()),
        Flood::done(2, "asr.transcribed", largest([&format!("{record}\"text\":\""), "\\u4f60", "\"}"])),
    ];
    let worker = worker(&vhost, &database_in(folder.path()));
    withstand("record-event-worker", worker, &vhost, queue::RECORD_EVENTS, &floods).await.unwrap();
}
