//! The node's Erlang console: expressions evaluated in the node, through `erl_call`.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::limit::within;

/// An evaluation takes milliseconds; deleting a virtual host with full queues takes longer.
const EVAL_LIMIT: Duration = Duration::from_secs(15);

/// How to reach one node's Erlang distribution.
#[derive(Debug)]
pub(crate) struct Erlang {
    pub(crate) node: String,
    pub(crate) distribution_port: u16,
    /// Holds the cookie, `.erlang.cookie`.
    pub(crate) home: PathBuf,
    pub(crate) erl_call: PathBuf,
    /// Expressions and their results go through files here: `erl_call` takes and prints short texts only.
    pub(crate) exchange: PathBuf,
    pub(crate) calls: AtomicU64,
}

impl Erlang {
    /// Evaluates comma-separated expressions and returns the last one's value as Erlang prints it, in one line.
    pub(crate) async fn eval(&self, expressions: &str) -> Result<String> {
        let shown: String = expressions.chars().take(200).collect();
        within(EVAL_LIMIT, &format!("evaluate `{shown}` in node {}", self.node), self.call(expressions)).await
    }

    /// Evaluates what must have the value `ok`.
    pub(crate) async fn ok(&self, expressions: &str) -> Result<()> {
        match self.eval(expressions).await?.as_str() {
            "ok" => Ok(()),
            other => bail!("node {} answered {other}", self.node),
        }
    }

    async fn call(&self, expressions: &str) -> Result<String> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let (script, result) = (self.exchange.join(format!("{call}.erl")), self.exchange.join(format!("{call}.txt")));
        let expressions = expressions.trim().trim_end_matches('.');
        // A new line after the expressions, because they may end in a comment.
        let text = format!(
            "{{Mark, Term}} = try {{<<\"=\">>, begin {expressions}\n end}}
                catch Class:Reason:Stack -> {{<<\"!\">>, {{Class, Reason, Stack}}}} end,
            ok = file:write_file({}, [Mark, unicode:characters_to_binary(io_lib:format(\"~0tp\", [Term]))]).",
            binary(&result.to_string_lossy()),
        );
        fs::write(&script, text).with_context(|| format!("could not write {}", script.display()))?;
        let printed = self.run_script(call, &script.to_string_lossy()).await;
        let written = fs::read_to_string(&result);
        // The folder goes with the node; these are removed early only to keep it small.
        let (_, _) = (fs::remove_file(&script), fs::remove_file(&result));
        let printed = printed?;
        match written {
            Ok(value) => match value.split_at_checked(1) {
                Some(("=", value)) => Ok(value.to_owned()),
                Some((_, failure)) => bail!("it failed: {failure}"),
                None => bail!("it left no result: {printed}"),
            },
            Err(_) => bail!("{}", if printed.is_empty() { "the node does not answer" } else { &printed }),
        }
    }

    async fn run_script(&self, call: u64, script: &str) -> Result<String> {
        let mut command = Command::new(&self.erl_call);
        // A name of its own (the random one of -r is drawn from few): the node turns a second client of one name away.
        command
            .arg("-h")
            .arg(format!("call{call}"))
            .arg("-address")
            .arg(format!("127.0.0.1:{}", self.distribution_port))
            .arg("-e");
        command.env("HOME", &self.home).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().context("could not start erl_call")?;
        if let Some(mut stdin) = process.stdin.take() {
            // It does not read when it cannot connect; what it says then is the error to show.
            let _ = stdin.write_all(format!("file:eval({}).\n", binary(script)).as_bytes()).await;
        }
        let output = process.wait_with_output().await.context("could not run erl_call")?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }
}

/// The processes of all client connections to the node and the others of its cluster, as an Erlang expression.
///
/// `rabbit_networking:connections()` is not it: on RabbitMQ 4 it asks the nodes that count as running, of which a node
/// that has just begun to serve clients is not yet one. A node that is frozen or just dying tells of none.
pub(crate) const CONNECTIONS: &str = "[Pid || Node <- [node() | nodes()],
            Pids <- [rpc:call(Node, rabbit_networking, local_connections, [], 5000)], is_list(Pids), Pid <- Pids]";

/// `text` as an Erlang binary written as bytes, which no character of it can break out of.
pub(crate) fn binary(text: &str) -> String {
    let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    format!("<<{}>>", bytes.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_written_as_bytes() {
        assert_eq!(binary(""), "<<>>");
        assert_eq!(binary("a\"é"), "<<97,34,195,169>>");
    }
}
