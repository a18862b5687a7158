//! The whole journey on a private broker: tasks in, a worker process that is lost and replaced, answers out, a drain.
//! What `make demo` runs.
#![allow(clippy::print_stdout, reason = "a command speaks on its terminal")]

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use jm_mq_core::{
    Broker, BrokerOptions, Consumer, ConsumerOptions, Context, HandlerError, Message, Outgoing, Publisher,
    PublisherOptions, Router, Topology,
};
use jm_testkit::{RabbitNode, Vhost};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
};

const NAMES: [&str; 12] =
    ["Ada", "Grace", "Alan", "Edsger", "Barbara", "Leslie", "Tony", "Frances", "Joe", "Robin", "王选", ""];

#[tokio::main]
async fn main() -> Result<()> {
    tokio::select! {
        result = demo() => result,
        // The worker and the broker end with this process.
        _ = tokio::signal::ctrl_c() => {
            println!("interrupted");
            Ok(())
        }
    }
}

async fn demo() -> Result<()> {
    println!("starting a private RabbitMQ …");
    let node = RabbitNode::start().await?;
    let vhost = node.vhost().await?;
    println!("RabbitMQ is up on 127.0.0.1:{}", node.port());

    let broker = Broker::new(BrokerOptions::from_dsn(&vhost.uri())?)?;
    let publisher = Publisher::new(&broker, PublisherOptions::default())?;
    publisher.declare(&Topology::work_queue("example.greet")).await?;
    let (answers, mut answered) = mpsc::channel(NAMES.len());
    let router = Router::new().on_type("example.greeted", move |answer: serde_json::Value, _: Context| {
        let answers = answers.clone();
        async move {
            answers.send(answer["greeting"].to_string()).await?;
            Ok::<_, HandlerError>(())
        }
    });
    let answer_queue = Topology::work_queue("example.greeted");
    let listening = Consumer::new(&broker, &publisher, answer_queue, ConsumerOptions::default(), router)?.start();

    let task = |name: &&str| {
        let body = serde_json::json!({ "name": name, "millis": 400 }).to_string();
        Outgoing::new("example.greet", "example.greet", Message::new("example.greet", body))
    };
    let tasks: Vec<Outgoing> = NAMES.iter().map(task).collect();
    publisher.publish_all(&tasks).await.into_iter().collect::<Result<Vec<()>, _>>()?;
    println!("{} tasks published and confirmed", tasks.len());

    let mut first = worker(&vhost)?;
    vhost.wait_for_counts("example.greet", Duration::from_secs(30), |counts| counts.unacked > 0).await?;
    first.kill().await?;
    println!("a worker took them and was killed (SIGKILL) in the middle of its work; another one takes over");
    let mut second = worker(&vhost)?;

    for _ in 0..NAMES.len() - 1 {
        let greeting =
            tokio::time::timeout(Duration::from_secs(30), answered.recv()).await?.context("the listener ended")?;
        println!("  answer: {greeting}");
    }
    let queue = |name| vhost.wait_for_counts(name, Duration::from_secs(30), |counts| counts.unacked == 0);
    let (left, dead) = (queue("example.greet").await?, queue("example.greet.dead").await?);
    println!("left in the queue: {}, dead-lettered: {} (the task without a name)", left.ready, dead.ready);

    let pid = nix::unistd::Pid::from_raw(second.id().context("the worker is gone")?.try_into()?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    println!("SIGTERM to the worker: it {}", second.wait().await?);
    listening.shutdown().await;
    publisher.close().await;
    Ok(())
}

fn worker(vhost: &Vhost) -> Result<Child> {
    let program: PathBuf = std::env::current_exe()?.with_file_name("worker");
    let mut command = Command::new(&program);
    command.env("AMQP_DSN", vhost.uri()).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {}; build it with cargo build --examples", program.display()))
}
