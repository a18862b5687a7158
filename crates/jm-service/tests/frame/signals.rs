//! SIGTERM in the first moments of a process, which in a container is process 1.

use std::fs;

use jm_testkit::WorkerProcess;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{LIMIT, program, unshare};

/// More starts than this are not needed to look at one in time, even on a busy machine.
const STARTS: usize = 200;

/// What of a process is in `/proc/<pid>/status`.
fn status(pid: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

fn handles_sigterm(pid: u32) -> bool {
    let caught = status(pid, "SigCgt").and_then(|mask| u64::from_str_radix(&mask, 16).ok()).unwrap_or(0);
    caught & (1 << (Signal::SIGTERM as u64 - 1)) != 0
}

/// The worker in its own process namespace, stopped as soon as it is seen to handle SIGTERM.
async fn stopped_early(outside: &WorkerProcess) -> u32 {
    let looking = async {
        loop {
            let children = format!("/proc/{pid}/task/{pid}/children", pid = outside.pid());
            let children = fs::read_to_string(children).unwrap_or_default();
            let mut children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
            // Another child is the test kit's guard, which ignores signals.
            if let Some(child) = children.find(|&child| handles_sigterm(child)) {
                kill(Pid::from_raw(i32::try_from(child).unwrap()), Signal::SIGSTOP).unwrap();
                break child;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, looking).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn process_1_handles_a_sigterm_that_comes_before_its_runtime_and_its_configuration() {
    for _ in 0..STARTS {
        let outside = unshare().arg("--pid").arg("--fork").arg("--kill-child").arg(program()).start().await.unwrap();
        let child = stopped_early(&outside).await;
        let signal = |signal| kill(Pid::from_raw(i32::try_from(child).unwrap()), signal).unwrap();
        // With the runtime there are more: this one has no thread but the one that waits for signals.
        let early = status(child, "Threads").is_some_and(|threads| threads.parse::<u32>().unwrap() <= 2);
        signal(Signal::SIGTERM);
        signal(Signal::SIGCONT);
        assert_eq!(outside.wait(LIMIT).await.unwrap().code(), Some(0), "{}", outside.stdout());
        assert!(!outside.stdout().contains("\"consuming\""), "{}", outside.stdout());
        if early {
            return;
        }
    }
    panic!("in {STARTS} starts it handled SIGTERM only once its runtime was there");
}
