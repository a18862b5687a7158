//! Connections to a virtual host: the test's own, and the closing of all others.

use anyhow::{Context, Result};
use lapin::Channel;

use super::Vhost;
use super::outsider::{CONNECTION_NAME, open};
use crate::node::{CONNECTIONS, binary};

impl Vhost {
    /// A channel on a connection of its own, as this virtual host's user, without confirms: for a test to do as a
    /// stranger what this type has no method for. The connection lives as long as the channel's last handle.
    pub async fn channel(&self) -> Result<Channel> {
        open(self.port, &self.name, &self.user, &self.password).await
    }

    /// Closes the client connections of this virtual host as an operator does (320 and `reason`), and returns how many.
    /// Those of the test kit are spared, [`Vhost::channel`]'s too.
    pub async fn close_connections(&self, reason: &str) -> Result<usize> {
        // A connection still in its handshake has no virtual host yet; one that is gone meanwhile has no info.
        let expression = format!(
            "Ours = fun(Pid) ->
                 case catch rabbit_networking:connection_info(Pid, [vhost, client_properties]) of
                     [{{vhost, {vhost}}}, {{client_properties, Properties}}] ->
                         case lists:keyfind(<<\"connection_name\">>, 1, Properties) of
                             {{_, _, {kit}}} -> false;
                             _ -> true
                         end;
                     _ -> false
                 end
             end,
             Pids = lists:filter(Ours, {CONNECTIONS}),
             [catch rabbit_networking:close_connection(Pid, {reason}) || Pid <- Pids],
             length(Pids)",
            vhost = binary(&self.name),
            kit = binary(CONNECTION_NAME),
            reason = binary(reason),
        );
        let what = || format!("could not close the connections of virtual host {:?}", self.name);
        let count = self.erlang().eval(&expression).await.with_context(what)?;
        count.parse().with_context(|| format!("{count:?} is no count of connections"))
    }
}
