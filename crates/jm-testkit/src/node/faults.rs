//! What can be done to a running node besides killing it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{CONNECTIONS, RabbitNode, binary, process};
use crate::limit::until;

/// An alarm is set and cleared within milliseconds of its limit; a disk's is looked at more slowly.
const ALARM_LIMIT: Duration = Duration::from_secs(15);

/// The kernel stops the threads of a process one by one.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// No disk has as many bytes free.
const MORE_THAN_ANY_DISK: u64 = 1_000_000_000_000_000_000;

impl RabbitNode {
    /// Stops the Erlang VM (SIGSTOP): connections stay open, and nobody answers. Returns when it has stopped.
    pub fn freeze(&self) -> Result<()> {
        let pid = self.signal(Signal::SIGSTOP)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while !process::stopped(pid) {
            if Instant::now() > deadline {
                bail!("node {} (process {pid}) did not stop within {STOP_LIMIT:?}", self.name());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets a frozen VM go on (SIGCONT).
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT).map(drop)
    }

    fn signal(&self, signal: Signal) -> Result<u32> {
        let pid = self.pid().ok_or_else(|| anyhow!("node {} does not run, cannot send {signal}", self.name()))?;
        kill(Pid::from_raw(pid.try_into()?), signal)
            .with_context(|| format!("could not send {signal} to node {} (process {pid})", self.name()))?;
        Ok(pid)
    }

    /// Closes all client connections of the node, as an operator does: each client gets `connection.close` with 320
    /// and `reason`. Connections of a [`crate::Vhost`] itself are among them; see [`crate::Vhost::close_connections`].
    /// Returns when they are gone, so that each client has seen the close; fails when one is left after 10 s.
    pub async fn close_all_connections(&self, reason: &str) -> Result<()> {
        // One that is gone meanwhile is no failure.
        let expression = format!(
            "Closing = [begin
                 Monitor = erlang:monitor(process, Pid),
                 catch rabbit_networking:close_connection(Pid, {reason}),
                 {{Pid, Monitor}}
             end || Pid <- {CONNECTIONS}],
             [receive {{'DOWN', Monitor, process, Pid, _}} -> ok after 10000 -> error({{left, Pid}}) end
              || {{Pid, Monitor}} <- Closing],
             ok",
            reason = binary(reason),
        );
        self.erlang().ok(&expression).await.context("could not close all connections")
    }

    /// How many client connections the node has.
    pub async fn connection_count(&self) -> Result<usize> {
        let count = self.eval(&format!("length({CONNECTIONS})")).await?;
        count.parse().with_context(|| format!("{count:?} is no count of connections"))
    }

    /// Sets or clears the memory alarm by the node's high watermark. Returns when the alarm is set or cleared; clients
    /// that publish get `connection.blocked` or `connection.unblocked` thereafter.
    pub async fn memory_alarm(&self, on: bool) -> Result<()> {
        let set = if on {
            "vm_memory_monitor:set_vm_memory_high_watermark(0)"
        } else {
            "{ok, Limit} = application:get_env(rabbit, vm_memory_high_watermark), \
             vm_memory_monitor:set_vm_memory_high_watermark(Limit)"
        };
        self.alarm("memory", on, set).await
    }

    /// Sets or clears the disk alarm by the node's limit of free space. Returns when the alarm is set or cleared.
    pub async fn disk_alarm(&self, on: bool) -> Result<()> {
        let set = if on {
            format!("rabbit_disk_monitor:set_disk_free_limit({MORE_THAN_ANY_DISK})")
        } else {
            "{ok, Limit} = application:get_env(rabbit, disk_free_limit), \
             rabbit_disk_monitor:set_disk_free_limit(Limit)"
                .to_owned()
        };
        self.alarm("disk", on, &set).await
    }

    async fn alarm(&self, resource: &str, on: bool, set: &str) -> Result<()> {
        let state = if on { "set" } else { "cleared" };
        let what = format!("the {resource} alarm of node {} to be {state}", self.name());
        self.erlang().ok(set).await.with_context(|| format!("could not cause {what}"))?;
        let alarms = format!(
            "[Resource || {{{{resource_limit, Resource, _}}, _}} <- rabbit_alarm:get_alarms(), Resource =:= {resource}]"
        );
        until(ALARM_LIMIT, &what, || async {
            let seen = self.eval(&alarms).await?;
            Ok(if (seen != "[]") == on { Ok(()) } else { Err(seen) })
        })
        .await
    }
}
