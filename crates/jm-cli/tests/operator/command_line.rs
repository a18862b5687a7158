//! What every command has in common.

use crate::support::{jm, said};

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_one_line_and_its_own_exit_code() {
    for arguments in [&["status"][..], &["doctor"], &["topology", "check"]] {
        let mut command = jm();
        command.env("JM_RABBITMQ__PORT", "1");
        let said = said(command, arguments).await;
        assert_eq!(said.code, 69, "{arguments:?}: {said:?}");
        assert_eq!(said.err.lines().count(), 1, "{arguments:?}: {said:?}");
        assert!(said.err.starts_with("jm: cannot reach RabbitMQ at 127.0.0.1:1: "), "{arguments:?}: {said:?}");
    }
}
