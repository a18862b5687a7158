//! A queue, of tasks or of dead letters: durable, no arguments.

use lapin::{options::QueueDeclareOptions, types::FieldTable};

use super::{
    finding::{Finding, State},
    inspection::{Differences, Inspection, is_operators, plain, together},
    mend::{self, Remedy, quoted},
};
use crate::{
    amqp::{self, Count, Mismatch, PRECONDITION_FAILED, RESOURCE_LOCKED},
    configuration::ConfiguredWorker,
    failure::Failure,
    management::QueueInfo,
};

const OBJECT: &str = "queue";
const WANTED: &str = "durable, no arguments";

pub(super) async fn inspect(
    inspection: &Inspection<'_>,
    worker: &ConfiguredWorker,
    queue: &str,
) -> Result<Finding, Failure> {
    let finding = |state, text: String| Finding::new(OBJECT, queue, state, text);
    match amqp::count(inspection.connection, queue).await? {
        Count::Absent => {
            let missing = finding(State::Missing, format!("is not there; wanted: {WANTED}"));
            return Ok(missing.mended_by(mend::missing(worker)));
        }
        Count::Refused(refusal) if refusal.code == RESOURCE_LOCKED => {
            let text = "is exclusive to another connection: no worker can use it".to_owned();
            return Ok(finding(State::Differs, text)
                .mended_by(Remedy::command("rabbitmqctl list_queues name pid owner_pid exclusive")));
        }
        Count::Refused(refusal) => return Ok(finding(State::Unknown, refusal.text)),
        Count::Of { .. } if is_operators(worker) => {
            return Ok(finding(State::Ok, "is there; consumer.declare is check, so it may be as it is".into()));
        }
        Count::Of { .. } => {}
    }
    let (mismatch, hidden) = match declare(inspection, queue).await? {
        Ok(()) => (None, None),
        Err(refusal) if refusal.code == PRECONDITION_FAILED => (Mismatch::read(&refusal.text), None),
        Err(refusal) => (None, Some(refusal)),
    };
    let told = match inspection.management {
        None => Ok(None),
        Some(management) => management.queue(queue).await,
    };
    let is_told = matches!(told, Ok(Some(_)));
    // RabbitMQ 4 writes the type of every queue down as an argument, and virtual hosts may have another default type than
    // classic. Where the broker itself has found nothing different, the type is as it has to be; where the user may not
    // ask it, the default is compared.
    let default_type = match (&hidden, inspection.management) {
        (Some(_), Some(management)) => management.default_queue_type().await.ok(),
        _ => None,
    };
    let is_equivalent = mismatch.is_none() && hidden.is_none();
    let is_as_wanted = |kind: &str| is_equivalent || default_type.as_deref() == Some(kind);
    let told = told.ok().flatten().map(|told| of_management(&told, is_as_wanted)).unwrap_or_default();
    let differences = together(mismatch.as_ref(), told);
    Ok(match (differences.as_slice(), hidden) {
        ([], None) => finding(State::Ok, WANTED.to_owned()),
        ([], Some(_)) if is_told => finding(State::Ok, WANTED.to_owned()),
        ([], Some(refusal)) => {
            finding(State::Unknown, format!("is there; how it is made is not told: {}", refusal.text))
        }
        (differences, _) => {
            let texts: Vec<String> = differences.iter().map(|(name, value)| words(name, value)).collect();
            let (vhost, queue) = (quoted(inspection.vhost()), quoted(queue));
            let delete = format!("rabbitmqctl delete_queue --vhost {vhost} {queue} --if-empty --if-unused");
            finding(State::Differs, texts.join("; "))
                .mended_by(Remedy::Command(format!("{delete} && jm topology apply")))
        }
    })
}

/// Declares the queue as the workers do, which changes nothing if it exists.
pub(super) async fn declare(inspection: &Inspection<'_>, queue: &str) -> Result<Result<(), amqp::Refusal>, Failure> {
    let name = amqp::short(queue)?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = amqp::ask(inspection.connection, "declaring a queue", async |channel| {
        channel.queue_declare(name, options, FieldTable::default()).await.map(drop)
    });
    Ok(declared.await?)
}

fn of_management(told: &QueueInfo, is_wanted_type: impl Fn(&str) -> bool) -> Differences {
    let mut differences = Vec::new();
    if !told.durable {
        differences.push(("durable".to_owned(), "false".to_owned()));
    }
    if told.auto_delete {
        differences.push(("auto_delete".to_owned(), "true".to_owned()));
    }
    let arguments = told.arguments.iter().map(|(name, value)| (name.clone(), plain(value)));
    differences.extend(arguments.filter(|(name, value)| !(name == "x-queue-type" && is_wanted_type(value))));
    differences
}

fn words(name: &str, value: &str) -> String {
    match name {
        "durable" => "is not durable: it and its messages are gone when the broker restarts".to_owned(),
        "auto_delete" => "is auto-delete: it and its messages go with its last consumer".to_owned(),
        "x-queue-type" => format!(
            "is a {value} queue, which workers do not declare; consumer.declare: check lets them use it as it is"
        ),
        argument => {
            format!("has the argument {argument}={value}, and should have none: limits are a matter of policies")
        }
    }
}
