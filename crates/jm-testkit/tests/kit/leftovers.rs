//! Nothing of a node outlives the process that started it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jm_testkit::RabbitNode;

const OWNER: &str = "JM_TESTKIT_TEST_OWNER";

/// Not a test by itself: the process that the test below starts and kills.
#[tokio::test]
async fn owner_of_a_node() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let node = RabbitNode::shared().await.unwrap();
    // Has the VM start helper processes, those for names among them.
    node.eval("inet:gethostbyname(\"localhost\"), os:cmd(\"true\")").await.unwrap();
    println!("\nnode {} {} {}", node.name(), node.pid().unwrap(), node.folder().display());
    std::future::pending::<()>().await;
}

#[test]
fn nothing_is_left_after_the_owner_was_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["leftovers::owner_of_a_node", "--exact", "--nocapture"])
        .env(OWNER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("node ")).expect("the owner started no node");
    let words: Vec<&str> = line.split(' ').collect();
    let (name, vm, folder) = (words[1], words[2].parse::<u32>().unwrap(), Path::new(words[3]));
    let before = processes_of(name);
    // Watchdog, epmd, VM, its child setup at least.
    assert!(before.contains(&vm) && before.len() >= 4, "{before:?}");
    assert!(folder.exists());

    owner.kill().unwrap();
    owner.wait().unwrap();
    let begin = Instant::now();
    while (!processes_of(name).is_empty() || folder.exists()) && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("gone after {:?}", begin.elapsed());
    assert_eq!(processes_of(name), Vec::<u32>::new());
    assert!(!folder.exists());
}

/// The processes with the node's name in their environment. That of a zombie is empty: it is gone.
fn processes_of(node: &str) -> Vec<u32> {
    let mark = format!("JM_TESTKIT_NODE={node}");
    let of_node = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(of_node).collect()
}
