//! What a user has to be allowed for each command: docs/jm.md's table, and the two users of the Kubernetes manifests, each
//! on a real broker.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use jm_testkit::{RabbitNode, Vhost};
use lapin::{
    options::{BasicConsumeOptions, QueueDeleteOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    canaries::worker,
    dead_letters::{DEAD, Dead, QUEUE, dead, ids, leave, on, said},
    ground::{self, PLUGIN, monitoring_on, node},
    support::{Said, jm, jm_at},
};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);
const PASSWORD: &str = "operators-own";
const CHAT: &str = r#"{"messages":[{"role":"user","content":"Hi"}]}"#;

/// Configure, write and read, as RabbitMQ has them.
pub(crate) type Rights = [String; 3];

/// A user with a configuration of its own, as `jm.yaml` has it: the workers' users are others.
struct User<'a> {
    node: &'a RabbitNode,
    vhost: &'a Vhost,
    name: String,
    folder: tempfile::TempDir,
}

impl<'a> User<'a> {
    async fn new(node: &'a RabbitNode, vhost: &'a Vhost, name: &str) -> Self {
        let name = format!("{name}-of-{}", vhost.name);
        vhost.add_user(&name, PASSWORD).await.unwrap();
        monitoring_on(node, &name).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let own = serde_json::json!({ "rabbitmq": { "name": name, "password": PASSWORD } });
        fs::write(folder.path().join("jm.yaml"), own.to_string()).unwrap();
        Self { node, vhost, name, folder }
    }

    async fn may(&self, [configure, write, read]: &Rights) {
        self.vhost.set_permissions(&self.name, configure, write, read).await.unwrap();
    }

    fn jm(&self) -> Command {
        let mut command = jm();
        let management = self.node.http_port(PLUGIN).unwrap();
        command
            .env("JM_CONFIG", self.folder.path())
            .env("JM_RABBITMQ__PORT", self.vhost.port.to_string())
            .env("JM_RABBITMQ__VHOST", &self.vhost.name)
            .env("JM_MANAGEMENT__URL", format!("http://127.0.0.1:{management}"));
        command
    }

    async fn says(&self, arguments: &[&str]) -> Said {
        said(self.jm(), arguments).await
    }
}

/// The table in docs/jm.md: what each command needs. Several patterns in a cell are one of them.
fn documented() -> BTreeMap<String, Rights> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/jm.md");
    let docs = fs::read_to_string(docs).unwrap();
    let (_, section) = docs.split_once("\n## Rights\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `jm "));
    let rows = rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let pattern = |cell: &str| cell.split('`').skip(1).step_by(2).collect::<Vec<_>>().join("|");
        (cells[0].to_owned(), [pattern(cells[1]), pattern(cells[2]), pattern(cells[3])])
    });
    rows.collect()
}

/// Runs each command of a row; whether all that it promises was done.
async fn works(user: &User<'_>, row: &str) -> Result<(), Said> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.jsonl");
    let path = file.to_str().unwrap();
    let commands: Vec<Vec<&str>> = match row {
        "`jm status`" => vec![vec!["status", "--json"]],
        "`jm topology check`, `diff`; `jm doctor`" => vec![vec!["topology", "diff"], vec!["doctor"]],
        "`jm topology apply`" => {
            user.vhost.delete_queue("jm.asr").await.unwrap();
            user.vhost.delete_exchange("jm.sd").await.unwrap();
            vec![vec!["topology", "apply"]]
        }
        "`jm dead list`, `show`; `jm dead replay --dry-run`" => {
            vec![vec!["dead", "list", QUEUE], vec!["dead", "show", QUEUE], vec!["dead", "replay", QUEUE, "--dry-run"]]
        }
        "`jm dead drop`" => vec![vec!["dead", "drop", QUEUE, "--yes", "--limit", "1", "--save", path]],
        "`jm dead replay`" => vec![vec!["dead", "replay", QUEUE, "--limit", "1"]],
        "`jm dead replay --to QUEUE`" => vec![vec!["dead", "replay", QUEUE, "--limit", "1", "--to", QUEUE]],
        "`jm dead replay --canary N`" => vec![vec!["dead", "replay", QUEUE, "--limit", "1", "--canary", "1"]],
        "`jm dead replay --from FILE`" => {
            let saved = said(jm_at(user.vhost), ["dead", "drop", QUEUE, "--yes", "--limit", "1", "--save", path]).await;
            assert_eq!(saved.code, 0, "{saved:?}");
            vec![vec!["dead", "replay", "--from", path]]
        }
        "`jm publish TYPE`" => vec![vec!["publish", "llm.chat", "--json", CHAT]],
        "`jm publish TYPE --wait`" => vec![vec!["publish", "llm.chat", "--json", CHAT, "--wait"]],
        row => panic!("what is {row}?"),
    };
    for command in commands {
        let said = user.says(&command).await;
        let oldest = || said.json().unwrap()["queues"][4]["oldest_dead_letter"]["at"].is_string();
        if said.code != 0 || row == "`jm status`" && !oldest() {
            return Err(said);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_needs_the_rights_that_the_docs_say_and_each_of_them() {
    let node = node().await.unwrap();
    let table = documented();
    assert_eq!(table.len(), 11, "{table:?}");
    for (row, needed) in &table {
        let vhost = on(node).await;
        ground::monitoring(&vhost.user).await.unwrap();
        let applied = said(jm_at(&vhost), ["topology", "apply"]).await;
        assert_eq!(applied.code, 0, "{applied:?}");
        leave(&vhost, (0..4).map(|number| Dead { more: Vec::new(), ..dead(&number.to_string()) })).await;
        let running = worker(&vhost, |_| false).await;
        let user = User::new(node, &vhost, "operator").await;
        for taken in 0..3 {
            let mut lacking = needed.clone();
            if lacking[taken].is_empty() {
                continue;
            }
            lacking[taken] = "^$".into();
            user.may(&lacking).await;
            let begun = std::time::Instant::now();
            let refused = works(&user, row).await.expect_err(&format!("{row} works with {lacking:?}"));
            assert!(row == "`jm status`" || refused.code != 0, "{row}: {refused:?}");
            let told = format!("{}{}", refused.out, refused.err);
            assert!(row == "`jm status`" || told.contains("ACCESS_REFUSED"), "{row} with {lacking:?}: {refused:?}");
            assert!(begun.elapsed() < LIMIT, "{row}: another attempt would hear the same");
        }
        user.may(needed).await;
        works(&user, row).await.unwrap_or_else(|said| panic!("{row} with {needed:?}: {said:?}"));
        drop(running);
    }
}

/// The users in a file of the Kubernetes manifests, with what they may.
pub(crate) fn of_manifests(file: &str) -> BTreeMap<String, Rights> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/components/rabbitmq").join(file);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(file).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let permissions = documents.iter().filter(|document| document["kind"] == "Permission").map(|document| {
        let rights = ["configure", "write", "read"].map(|right| text(&document["spec"]["permissions"][right]));
        (text(&document["spec"]["userReference"]["name"]), rights)
    });
    permissions.collect()
}

/// The policies of the Kubernetes manifests, as RabbitMQ 4 takes them.
async fn with_shipped_policies(vhost: &Vhost) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/components/rabbitmq");
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for policy in documents.iter().filter(|document| document["kind"] == "Policy") {
            let [name, pattern] = ["name", "pattern"].map(|key| policy["spec"][key].as_str().unwrap());
            vhost.set_policy(name, pattern, &policy["spec"]["definition"].to_string()).await.unwrap();
        }
    }
}

/// A broker as the manifests configure it: on RabbitMQ 4, which they are for, with each of their settings but the one of
/// the disk, which would be an alarm on a small one.
pub(crate) async fn cluster() -> (RabbitNode, bool) {
    let is_4 = std::env::var("JM_TEST_BROKER").is_ok_and(|version| version.starts_with('4'));
    let mut node = RabbitNode::builder().plugin(PLUGIN).config_line("collect_statistics_interval = 1000");
    if is_4 {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/components/rabbitmq/cluster.yaml");
        let cluster = fs::read_to_string(file).unwrap();
        for line in cluster
            .lines()
            .map(str::trim)
            .skip_while(|line| *line != "additionalConfig: |")
            .skip(1)
            .take_while(|line| !line.ends_with(':'))
            .filter(|line| !line.starts_with("disk_free_limit"))
        {
            node = node.config_line(line);
        }
    }
    (node.start().await.unwrap(), is_4)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_in_kubernetes_sees_all_but_dead_letters_and_changes_nothing() {
    let (node, is_4) = cluster().await;
    let vhost = node.vhost().await.unwrap();
    if is_4 {
        with_shipped_policies(&vhost).await;
    }
    let applied = said(jm_at(&vhost), ["topology", "apply"]).await;
    assert_eq!(applied.code, 0, "{applied:?}");
    leave(&vhost, [dead("a"), dead("b")]).await;
    let user = User::new(&node, &vhost, "jm-viewer").await;
    user.may(&of_manifests("jm.yaml")["jm-viewer"]).await;
    // From 4.2.6 on it has the counts from the management API, whose statistics lag.
    let counts = |status: &Said| {
        let queues = status.json().unwrap()["queues"].clone();
        let numbers = ["ready", "consumers", "dead_letters"].map(|count| queues[4][count].as_u64());
        (status.code, numbers)
    };
    let known = (0, [Some(0), Some(0), Some(2)]);
    let ask = async || Ok(user.says(&["status", "--json"]).await);
    let status = ground::told_at_last(ask, |status| counts(status) == known).await.unwrap();
    assert_eq!(counts(&status), known, "{status:?}");
    for command in [&["topology", "check"][..], &["topology", "diff"], &["doctor"]] {
        let ask = async || Ok(user.says(command).await);
        let said = ground::told_at_last(ask, |said| said.code == 0).await.unwrap();
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{command:?}: {said:?}");
    }
    for command in [
        &["list", QUEUE, "--count-deliveries"][..],
        &["show", QUEUE, "--count-deliveries"],
        &["replay", QUEUE],
        &["drop", QUEUE, "--yes"],
    ] {
        let refused = said(user.jm(), ["dead"].iter().chain(command)).await;
        assert_eq!((refused.code, refused.err.lines().count()), (69, 1), "{command:?}: {refused:?}");
        assert!(refused.err.contains("grant the user permission to read it"), "{command:?}: {refused:?}");
    }
    let published = user.says(&["publish", "llm.chat", "--json", CHAT]).await;
    assert_eq!(published.code, 69, "{published:?}");
    vhost.wait_for_counts(DEAD, LIMIT, |counts| counts.ready == 2 && counts.unacked == 0).await.unwrap();

    let other_type = if is_4 { "classic" } else { "quorum" };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(other_type.into()));
    vhost.delete_queue("jm.asr").await.unwrap();
    vhost.declare_queue_with("jm.asr", true, arguments).await.unwrap();
    vhost.bind("jm.asr", "jm.asr", "jm.asr").await.unwrap();
    let differs = user.says(&["topology", "diff", "--json"]).await;
    let answer = differs.json().unwrap();
    assert_eq!((differs.code, &answer["differences"]), (1, &1.into()), "{answer:#}");
    assert!(differs.out.contains(&format!("is a {other_type} queue")), "{answer:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_mends_in_kubernetes_puts_back_and_takes_out_and_can_take_no_task() {
    let (node, is_4) = cluster().await;
    let vhost = node.vhost().await.unwrap();
    if is_4 {
        with_shipped_policies(&vhost).await;
    }
    let applied = said(jm_at(&vhost), ["topology", "apply"]).await;
    assert_eq!(applied.code, 0, "{applied:?}");
    leave(&vhost, (0..6).map(|number| dead(&number.to_string()))).await;
    let user = User::new(&node, &vhost, "jm").await;
    user.may(&of_manifests("jm.yaml")["jm"]).await;
    for command in [&["topology", "diff"][..], &["topology", "apply"], &["doctor"], &["status"]] {
        let said = user.says(command).await;
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{command:?}: {said:?}");
    }
    // The shipped policy keeps dead letters, however often they are looked at.
    let list = async || Ok(user.says(&["dead", "list", QUEUE]).await);
    let list = ground::told_at_last(list, |list| list.code == 0).await.unwrap();
    assert!(list.out.ends_with("6 of 6 dead letters in jm.llm.dead\n"), "{list:?}");
    let running = worker(&vhost, |_| false).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.jsonl");
    for (command, wanted) in [
        (&["dead", "replay", QUEUE, "--limit", "2", "--canary", "1", "--count-deliveries"][..], "2 put back\n"),
        (&["dead", "replay", QUEUE, "--limit", "1", "--to", QUEUE], "1 put back\n"),
        (&["dead", "drop", QUEUE, "--yes", "--save", file.to_str().unwrap()], "3 dropped from jm.llm.dead, saved to"),
        (&["dead", "replay", "--from", file.to_str().unwrap()], "3 put back\n"),
        (&["publish", "llm.chat", "--json", CHAT, "--wait"], "{"),
    ] {
        let said = user.says(command).await;
        assert!(said.code == 0 && said.out.starts_with(wanted), "{command:?}: {said:?}");
    }
    assert!(ids(&vhost, DEAD).await.is_empty());
    drop(running);

    let uri = format!("amqp://{}:{PASSWORD}@127.0.0.1:{}/{}", user.name, vhost.port, vhost.name);
    let connection = lapin::Connection::connect(&uri, lapin::ConnectionProperties::default()).await.unwrap();
    for queue in [QUEUE, DEAD] {
        let channel = connection.create_channel().await.unwrap();
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap_err();
    }
    let channel = connection.create_channel().await.unwrap();
    channel.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await.unwrap_err();
    let channel = connection.create_channel().await.unwrap();
    let consume = channel.basic_consume(QUEUE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    consume.await.unwrap_err();
    assert!(vhost.queue_exists(QUEUE).await.unwrap() && vhost.queue_exists(DEAD).await.unwrap());
}
