//! Whether the broker takes messages.

use crate::{
    failure::Failure,
    management::{Management, Untold},
    operator::Operator,
    topology::ask_to_write,
};

/// What the nodes report of themselves: those that do not run, alarms, partitions; empty if all is well.
pub(crate) async fn of_nodes(management: &Management) -> Result<Vec<String>, Untold> {
    let mut raised = Vec::new();
    for node in management.nodes().await? {
        let states = [
            ("does not run", !node.running),
            ("memory alarm", node.mem_alarm),
            ("disk alarm", node.disk_free_alarm),
            ("partitioned from others", !node.partitions.is_empty()),
        ];
        raised.extend(states.iter().filter(|(_, is)| *is).map(|(state, _)| format!("{}: {state}", node.name)));
    }
    Ok(raised)
}

/// Whether publishers are blocked, and why. Asked on a connection of its own: one that has published is not read in an
/// alarm.
pub(crate) async fn blocked(operator: &Operator<'_>) -> Result<Option<String>, Failure> {
    let connection = operator.connect("alarms").await?;
    // In an alarm the first question may still be answered; from then on the broker reads nothing of this connection.
    let is_blocked = ask_to_write(&connection, "").await?.is_none() || ask_to_write(&connection, "").await?.is_none();
    if is_blocked {
        let reason = connection.blocked().unwrap_or_default();
        // A goodbye that is not read takes seconds.
        drop(connection);
        return Ok(Some(format!("publishers are blocked: {reason}")));
    }
    connection.close().await;
    Ok(None)
}
