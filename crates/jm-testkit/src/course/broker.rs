//! What a broker does wrong: it refuses user, virtual host, declaration and connection, or is none that was expected.

use anyhow::Result;

use super::{FaultCourse, LIMIT};
use crate::worker::WorkerProcess;

impl FaultCourse {
    /// A running worker loses permissions, password and broker, and gets each of them back.
    pub async fn broker_faults(&mut self, worker: &WorkerProcess) -> Result<()> {
        let (vhost, user) = (self.vhost.clone(), self.vhost.user.clone());
        vhost.clear_permissions(&user).await?;
        self.broker.cut();
        self.told("without permissions", worker, "NOT_ALLOWED").await?;
        vhost.set_permissions(&user, "", ".*", ".*").await?;
        self.told("without some permissions", worker, "access to exchange").await?;
        vhost.set_permissions(&user, ".*", ".*", ".*").await?;
        worker.wait_ready(LIMIT).await?;

        vhost.change_password(&user, "another").await?;
        self.broker.cut();
        self.told("with an old password", worker, "Login was refused").await?;
        vhost.change_password(&user, self.secrets.password.value()).await?;
        worker.wait_ready(LIMIT).await?;

        self.broker.refuse(true);
        self.broker.reset();
        self.told("without a broker", worker, "cannot reach RabbitMQ").await?;
        self.broker.heal();
        worker.wait_ready(LIMIT).await
    }

    /// Workers that never get to consume: a wrong password, a virtual host that is not there, no broker, TLS to a broker
    /// that speaks none. They log as for people.
    pub async fn refused_starts(&mut self) -> Result<()> {
        let nobody = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port().to_string();
        let wrong = self.secrets.wrong.value().to_owned();
        for (what, name, value, said) in [
            ("with a wrong password", "JM_RABBITMQ__PASSWORD", wrong.as_str(), "Login was refused"),
            ("without a virtual host", "JM_RABBITMQ__VHOST", "no-such", "no-such"),
            ("without a broker", "JM_RABBITMQ__PORT", &nobody, "cannot reach RabbitMQ"),
            ("with TLS to a broker without", "JM_RABBITMQ__TLS", "{}", "retry_in"),
        ] {
            let worker = self.worker().env("JM_LOG__FORMAT", "text").env(name, value).start().await?;
            self.told(what, &worker, said).await?;
            worker.wait_until("/health/ready", 503, LIMIT).await?;
            self.end(worker).await?;
        }
        Ok(())
    }

    /// Waits until the worker tells of its fault, and searches what it says of itself then.
    async fn told(&mut self, what: &str, worker: &WorkerProcess, said: &str) -> Result<()> {
        worker.wait_for_log(said, LIMIT).await?;
        self.search.pages(&format!("the worker {what}"), worker).await
    }
}
