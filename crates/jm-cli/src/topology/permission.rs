//! What a worker's own user may do, found out by asking for it in a way that cannot succeed.
//!
//! The broker checks permissions first. So a publish with an impossible expiration, or a consumer with an impossible
//! priority, is refused with 403 if the permission is missing and with 406 if it is there, and nothing has happened.

use jm_mq_core::{BasicProperties, Broker, BrokerOptions, Connection};
use lapin::{
    options::{BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use secrecy::ExposeSecret as _;

use super::{
    exchange,
    finding::{Finding, State},
    inspection::{Inspection, is_operators},
    mend::{self, Remedy, quoted},
    queue,
};
use crate::{
    amqp::{self, ACCESS_REFUSED, Count, Refusal},
    configuration::ConfiguredWorker,
    failure::Failure,
};

const OBJECT: &str = "permission";

/// Asked on a connection of its own, as the worker's user: in an alarm the broker reads nothing more of a connection that
/// has published.
pub(super) async fn inspect(inspection: &Inspection<'_>, worker: &ConfiguredWorker) -> Result<Finding, Failure> {
    let name = format!("{} ({})", worker.rabbitmq.name, worker.worker.name);
    if is_not_configured(inspection, worker) {
        let name = worker.worker.name;
        let remedy = format!("rabbitmq.name and rabbitmq.password in {name}.yaml, as the worker has them");
        let text = "the worker's user is not configured here: rabbitmq.name";
        return Ok(Finding::new(OBJECT, name, State::Unknown, text).mended_by(remedy));
    }
    let mut options = inspection.operator.configuration.rabbitmq.clone();
    options.name.clone_from(&worker.rabbitmq.name);
    options.password.clone_from(&worker.rabbitmq.password);
    let connection = match Connection::open(&Broker::new(options)?, "permissions").await {
        Ok(connection) => connection,
        Err(error) => return Ok(Finding::new(OBJECT, name, State::Unknown, error.to_string())),
    };
    let of_worker = Inspection { connection: &connection, ..*inspection };
    let finding = lacking(&of_worker, worker, name).await?;
    // A goodbye that is not read takes seconds.
    if connection.blocked().is_none() {
        connection.close().await;
    }
    Ok(finding)
}

async fn lacking(inspection: &Inspection<'_>, worker: &ConfiguredWorker, name: String) -> Result<Finding, Failure> {
    let connection = inspection.connection;
    let mut lacking = Vec::new();
    let mut note = |right: &'static str, of: String, refused: bool| {
        if refused {
            lacking.push(format!("{right} {of}"));
        }
    };
    let is_refused = |answer: &Result<(), Refusal>| matches!(answer, Err(refusal) if refusal.code == ACCESS_REFUSED);
    let (queue, topology) = (worker.queue(), &worker.topology);
    note("read from", queue.to_owned(), is_refused(&ask_to_read(connection, queue).await?));
    if !is_operators(worker) {
        // What is not there would be created by asking.
        let mut queues = vec![queue.to_owned()];
        queues.extend(worker.keeps_dead_letters().then(|| worker.dead_letter_queue()));
        for queue in queues {
            if matches!(amqp::count(connection, &queue).await?, Count::Of { .. }) {
                note("configure", queue.clone(), is_refused(&queue::declare(inspection, &queue).await?));
            }
        }
        let (exchange, kind) = (&topology.exchange, topology.exchange_kind);
        if !exchange.is_empty() && exchange::declare(inspection, exchange, kind, true).await?.is_ok() {
            let declared = exchange::declare(inspection, exchange, kind, false).await?;
            note("configure exchange", exchange.clone(), is_refused(&declared));
        }
    }
    // Dead letters go through the default exchange, answers through the others.
    let dead_letters = worker.keeps_dead_letters().then_some("");
    for exchange in worker.worker.answers_to.iter().copied().chain(dead_letters) {
        let Some(asked) = ask_to_write(connection, exchange).await? else {
            let text = "the broker blocks publishers, so it cannot be asked; `jm doctor` tells why";
            return Ok(Finding::new(OBJECT, name, State::Unknown, text));
        };
        let shown = if exchange.is_empty() { "amq.default" } else { exchange };
        note("write to exchange", shown.to_owned(), is_refused(&asked));
    }
    Ok(if lacking.is_empty() {
        Finding::new(OBJECT, name, State::Ok, "configure, write and read as needed")
    } else {
        let text = format!("may not {}", lacking.join(", "));
        Finding::new(OBJECT, name, State::Differs, text).mended_by(remedy(inspection, worker))
    })
}

/// Whether jm has a user of its own, and the worker's is the built-in one, which is nobody's where there are users.
fn is_not_configured(inspection: &Inspection<'_>, worker: &ConfiguredWorker) -> bool {
    let (own, built_in) = (&inspection.operator.configuration.rabbitmq, BrokerOptions::default());
    worker.rabbitmq.name == built_in.name
        && worker.rabbitmq.password.expose_secret() == built_in.password.expose_secret()
        && own.name != built_in.name
}

/// Rights for a worker's user, and never for jm's own: that one may be an operator's, who must not get more by it.
fn remedy(inspection: &Inspection<'_>, worker: &ConfiguredWorker) -> Remedy {
    let [configure, write, read] = needed(worker);
    let user = &worker.rabbitmq.name;
    if *user == inspection.operator.configuration.rabbitmq.name {
        return Remedy::Words(format!(
            "`{user}` is jm's own user here; if {0} has another one, put jm's into jm.yaml instead of the environment; what \
             {0}'s user needs is configure {configure}, write {write}, read {read}",
            worker.worker.name
        ));
    }
    Remedy::Command(format!(
        "rabbitmqctl set_permissions --vhost {} {} {} {} {}",
        quoted(inspection.vhost()),
        quoted(user),
        quoted(&configure),
        quoted(&write),
        quoted(&read)
    ))
}

/// Configure, write and read for all that the worker does, and nothing else: as `k8s/components/rabbitmq` has it.
fn needed(worker: &ConfiguredWorker) -> [String; 3] {
    let dead = worker.keeps_dead_letters().then(|| worker.dead_letter_queue());
    let (queue, exchange) = (worker.queue(), worker.topology.exchange.as_str());
    let own = std::iter::once(queue).chain(Some(exchange).filter(|exchange| !exchange.is_empty()));
    let answers = worker.worker.answers_to.iter().copied();
    let read = any_of(own.clone().chain(answers.clone()));
    let declared = || own.clone().chain(dead.as_deref()).chain(answers.clone());
    [any_of(declared()), any_of(["amq.default"].into_iter().chain(declared())), read]
}

/// A pattern of exactly these names.
fn any_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut escaped: Vec<String> = Vec::new();
    for name in names.map(mend::pattern) {
        if !escaped.contains(&name) {
            escaped.push(name);
        }
    }
    match escaped.as_slice() {
        [one] => format!("^{one}$"),
        several => format!("^({})$", several.join("|")),
    }
}

/// A consumer whose priority is a word.
async fn ask_to_read(connection: &Connection, queue: &str) -> Result<Result<(), Refusal>, Failure> {
    let name = amqp::short(queue)?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("none: jm asks for permission".into()));
    let asked = amqp::ask(connection, "asking for the permission to read", async |channel| {
        // Should a broker take it all the same, it gives out one message, which is back when the channel closes.
        channel.basic_qos(1, BasicQosOptions::default()).await?;
        channel.basic_consume(name, "".into(), BasicConsumeOptions::default(), arguments).await.map(drop)
    });
    Ok(asked.await?)
}

/// A message that expires after a word, by a user that nobody is. `None` if the broker blocks publishers, and so does not
/// read what it is asked.
pub(crate) async fn ask_to_write(
    connection: &Connection,
    exchange: &str,
) -> Result<Option<Result<(), Refusal>>, Failure> {
    /// The broker says that it blocks at once, or never.
    const LOOK: std::time::Duration = std::time::Duration::from_millis(20);
    let name = amqp::short(exchange)?;
    let properties =
        BasicProperties::default().with_expiration("never".into()).with_user_id("jm asks for permission".into());
    let asking = amqp::ask(connection, "asking for the permission to write", async |channel| {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let options = BasicPublishOptions::default();
        channel.basic_publish(name, "jm-asks-for-permission".into(), options, b"", properties).await?.await.map(drop)
    });
    let blocked = async {
        while connection.blocked().is_none() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        asked = asking => Ok(Some(asked?)),
        () = blocked => Ok(None),
    }
}
