//! A fetch that ends half-way: nothing half-made, no pip that goes on, and the next one completes.

use std::process::{Child, Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    bench::{Bench, stderr},
    index::Stop,
};

/// A fetch whose pip has half of a wheel.
fn halfway(bench: &Bench) -> (Child, Stop) {
    let stop = bench.index.stop_halfway();
    let fetch = bench.command(&["fetch"]).stderr(Stdio::piped()).spawn().unwrap();
    stop.reached();
    (fetch, stop)
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn ctrl_c_ends_pip_and_leaves_nothing_half_made() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let bench = Bench::new();
        let (fetch, stop) = halfway(&bench);
        send(&fetch, signal);
        let output = fetch.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(stderr(&output).contains("error: interrupted; nothing half-made is left"), "{}", stderr(&output));
        stop.left();
        assert_eq!(bench.leftovers(), [""; 0]);
        bench.succeed(&["fetch"]);
        bench.assert_complete();
    }
}

#[test]
fn a_killed_fetch_takes_pip_along_and_the_next_one_clears_up() {
    let bench = Bench::new();
    let (mut fetch, stop) = halfway(&bench);
    send(&fetch, Signal::SIGKILL);
    fetch.wait().unwrap();
    stop.left();
    assert!(!bench.file("weights.bin").exists());
    assert!(bench.leftovers().contains(&".weights.bin.partial".to_owned()));
    bench.succeed(&["fetch"]);
    bench.assert_complete();
}

#[test]
fn a_fetch_that_waits_for_another_can_be_interrupted() {
    let bench = Bench::new();
    let (first, stop) = halfway(&bench);
    let mut second = bench.command(&["fetch"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(second.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
    send(&second, Signal::SIGINT);
    assert_eq!(second.wait().unwrap().code(), Some(130));
    stop.release();
    assert!(first.wait_with_output().unwrap().status.success());
    bench.assert_complete();
}
