//! What a fetch puts into the cache, and what it never does.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::bench::{ANY, Bench, catalogue, sha256, stderr, whole};

#[test]
fn a_fetch_puts_the_parts_together_and_downloads_each_package_once() {
    let bench = Bench::new();
    let said = bench.succeed(&["fetch"]);
    bench.assert_complete();
    assert_eq!(bench.index.served(), ["one", "two"]);
    assert!(said.contains("pair: fetched one 1.0, 201 kB in "), "{said}");
    assert!(said.contains("pair/weights.bin: 300 kB, SHA-256 verified\n"), "{said}");
}

#[test]
fn a_second_fetch_asks_nobody_and_writes_nothing() {
    let bench = Bench::new();
    bench.succeed(&["fetch"]);
    fs::remove_file(bench.models().join(".lock")).unwrap();
    let said = bench.succeed(&["fetch", "pair"]);
    assert_eq!(said, format!("there already, in {}: pair\n", bench.models().display()));
    assert_eq!(bench.index.served(), ["one", "two"]);
    assert!(!bench.models().join(".lock").exists());
}

#[test]
fn only_what_is_missing_is_fetched() {
    let bench = Bench::new();
    bench.succeed(&["fetch"]);
    fs::remove_file(bench.file("words.json")).unwrap();
    bench.succeed(&["fetch"]);
    bench.assert_complete();
    assert_eq!(bench.index.served(), ["one", "two", "two"]);
}

#[test]
fn a_file_of_another_size_is_replaced_with_a_note() {
    let bench = Bench::new();
    bench.succeed(&["fetch"]);
    fs::write(bench.file("config.json"), "{ }").unwrap();
    let said = bench.succeed(&["fetch"]);
    assert!(said.contains("config.json has 3 bytes instead of 2; fetching it again"), "{said}");
    bench.assert_complete();
}

#[test]
fn a_wrong_checksum_keeps_nothing_and_says_what_was_expected() {
    let bench = Bench::new();
    let (right, other) = (sha256(&whole()), sha256(b"other"));
    bench.write_catalogue(&catalogue().replace(&right, &other));
    let error = bench.fail(&["fetch"], 1);
    let expected = format!(
        "pair/weights.bin: one 1.0 with two 1.0 is not what it was: SHA-256 {right} instead of {other}; nothing of it \
         was kept"
    );
    assert_eq!(error, expected);
    assert_eq!(bench.leftovers(), [""; 0]);
}

#[test]
fn a_part_of_another_size_keeps_nothing() {
    let bench = Bench::new();
    // More than the file may have: it ends there, however much there is.
    bench.index.add("one", ANY, &[("one/weights.1", &vec![0; 50_000_000])]);
    let error = bench.fail(&["fetch"], 1);
    assert!(error.contains("more than 300000 bytes"), "{error}");
    bench.index.add("one", ANY, &[("one/weights.1", b"short")]);
    let error = bench.fail(&["fetch"], 1);
    assert!(error.contains("100005 bytes instead of 300000"), "{error}");
    bench.index.add("one", ANY, &[("one/elsewhere", b"short")]);
    let error = bench.fail(&["fetch"], 1);
    assert!(error.contains("no one/weights.1 in one 1.0"), "{error}");
    assert_eq!(bench.leftovers(), [""; 0]);
}

#[test]
fn two_fetches_at_once_download_once() {
    let bench = Bench::new();
    let stop = bench.index.stop_halfway();
    let first = bench.command(&["fetch"]).stderr(Stdio::piped()).spawn().unwrap();
    stop.reached();
    let mut second = bench.command(&["fetch"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(second.stderr.take().unwrap()).lines();
    let waiting = format!("another jm-models fetches into {}; waiting for it", bench.models().display());
    assert_eq!(said.next().unwrap().unwrap(), waiting);
    stop.release();
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(second.wait().unwrap().success());
    assert!(said.next().unwrap().unwrap().starts_with("there already, in "));
    bench.assert_complete();
    assert_eq!(bench.index.served(), ["one", "two"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let bench = Bench::new();
    fs::write(bench.path("cache"), "a file").unwrap();
    let error = bench.fail(&["fetch"], 1);
    assert!(error.starts_with(&format!("could not create {}: ", bench.models().display())), "{error}");
}
