//! Who may do what in a virtual host, its policies, and its own deletion.

use anyhow::{Context, Result};

use super::Vhost;
use crate::node::binary;

/// Who changed something, in the broker's log.
const ACTOR: &str = "<<\"jm-testkit\">>";

/// The user the kit itself connects as: a test may do anything to the virtual host's own.
pub(super) fn helper_of(vhost: &str) -> String {
    format!("{vhost} (test kit)")
}

impl Vhost {
    /// Adds a user to the node, without permissions.
    pub async fn add_user(&self, user: &str, password: &str) -> Result<()> {
        let call = format!("add_user({}, {}, {ACTOR})", binary(user), binary(password));
        self.auth(&call, &format!("could not add user {user:?}")).await
    }

    /// Changes a user's password. Open connections stay.
    pub async fn change_password(&self, user: &str, password: &str) -> Result<()> {
        let call = format!("change_password({}, {}, {ACTOR})", binary(user), binary(password));
        self.auth(&call, &format!("could not change the password of user {user:?}")).await
    }

    /// Sets what a user may configure, write and read in this virtual host: regular expressions of names, where the
    /// empty one permits nothing. Open channels learn it with their next operation, or when the broker's cache of
    /// permissions (per channel) forgets them.
    pub async fn set_permissions(&self, user: &str, configure: &str, write: &str, read: &str) -> Result<()> {
        let call = format!(
            "set_permissions({}, {}, {}, {}, {}, {ACTOR})",
            binary(user),
            binary(&self.name),
            binary(configure),
            binary(write),
            binary(read)
        );
        let what = format!("could not set permissions of user {user:?} in virtual host {:?}", self.name);
        self.auth(&call, &what).await
    }

    /// Takes all permissions in this virtual host from a user.
    pub async fn clear_permissions(&self, user: &str) -> Result<()> {
        let call = format!("clear_permissions({}, {}, {ACTOR})", binary(user), binary(&self.name));
        let what = format!("could not clear permissions of user {user:?} in virtual host {:?}", self.name);
        self.auth(&call, &what).await
    }

    /// Deletes the virtual host with all that is in it. The broker closes its connections.
    pub async fn delete(&self) -> Result<()> {
        let call = format!("rabbit_vhost:delete({}, {ACTOR})", binary(&self.name));
        self.erlang().ok(&call).await.with_context(|| format!("could not delete virtual host {:?}", self.name))
    }

    /// Creates the virtual host again after [`Vhost::delete`], empty, with all permissions for its user.
    pub async fn create(&self) -> Result<()> {
        let call = format!("rabbit_vhost:add({}, {ACTOR})", binary(&self.name));
        self.erlang().ok(&call).await.with_context(|| format!("could not create virtual host {:?}", self.name))?;
        self.permit().await
    }

    /// All permissions for its users.
    pub(super) async fn permit(&self) -> Result<()> {
        self.set_permissions(&self.user, ".*", ".*", ".*").await?;
        self.set_permissions(&helper_of(&self.name), ".*", ".*", ".*").await
    }

    /// Whether the node has it.
    pub(super) async fn exists(&self) -> Result<bool> {
        let call = format!("rabbit_vhost:exists({})", binary(&self.name));
        let answer = self.erlang().eval(&call).await;
        Ok(answer.with_context(|| format!("could not look for virtual host {:?}", self.name))? == "true")
    }

    /// Adds a user, or gives the one of that name this password.
    pub(super) async fn keep_user(&self, user: &str, password: &str) -> Result<()> {
        let call = format!("rabbit_auth_backend_internal:lookup_user({})", binary(user));
        let found = self.erlang().eval(&call).await.with_context(|| format!("could not look for user {user:?}"))?;
        if found.starts_with("{ok,") {
            self.change_password(user, password).await
        } else {
            self.add_user(user, password).await
        }
    }

    /// Sets a policy for the exchanges and queues whose names match `pattern`, a regular expression. The definition is
    /// JSON, such as `{"max-length": 1, "overflow": "reject-publish"}`. All queues have taken it when this returns.
    pub async fn set_policy(&self, name: &str, pattern: &str, definition_json: &str) -> Result<()> {
        let vhost = binary(&self.name);
        let call = format!(
            "rabbit_policy:parse_set({vhost}, {}, {}, {}, 0, <<\"all\">>, {ACTOR})",
            binary(name),
            binary(pattern),
            binary(definition_json)
        );
        self.policy(name, "set", &call).await
    }

    /// Removes a policy. All queues have forgotten it when this returns.
    pub async fn clear_policy(&self, name: &str) -> Result<()> {
        let call = format!("rabbit_policy:delete({}, {}, {ACTOR})", binary(&self.name), binary(name));
        self.policy(name, "clear", &call).await
    }

    async fn policy(&self, name: &str, verb: &str, call: &str) -> Result<()> {
        // The queues are told by a message each; one that has answered a later question has taken it.
        let expression = format!(
            "Answer = {call}, [catch rabbit_amqqueue:info(Queue, [policy]) || Queue <- rabbit_amqqueue:list({})], Answer",
            binary(&self.name)
        );
        let what = || format!("could not {verb} policy {name:?} of virtual host {:?}", self.name);
        self.erlang().ok(&expression).await.with_context(what)
    }

    async fn auth(&self, call: &str, what: &str) -> Result<()> {
        let expression = format!("rabbit_auth_backend_internal:{call}");
        // Not with_context on the call's text: it holds passwords, if only of a test.
        self.erlang().ok(&expression).await.with_context(|| what.to_owned())
    }
}
