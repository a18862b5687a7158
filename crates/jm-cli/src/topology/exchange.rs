//! The exchange: of the configured kind, durable, no arguments.

use jm_mq_core::ExchangeKind;
use lapin::{ExchangeKind as LapinKind, options::ExchangeDeclareOptions, types::FieldTable};

use super::{
    finding::{Finding, State},
    inspection::{Differences, Inspection, is_operators, plain, together},
    mend::{self, Remedy, quoted},
};
use crate::{
    amqp::{self, Mismatch, NOT_FOUND, PRECONDITION_FAILED},
    configuration::ConfiguredWorker,
    failure::Failure,
    management::ExchangeInfo,
};

const OBJECT: &str = "exchange";

/// `None` for the default exchange, which always exists.
pub(super) async fn inspect(
    inspection: &Inspection<'_>,
    worker: &ConfiguredWorker,
) -> Result<Option<Finding>, Failure> {
    let exchange = worker.topology.exchange.as_str();
    if exchange.is_empty() {
        return Ok(None);
    }
    let finding = |state, text: String| Finding::new(OBJECT, exchange, state, text);
    let kind = worker.topology.exchange_kind;
    let wanted = format!("{}, durable, no arguments", word(kind));
    match declare(inspection, exchange, kind, true).await? {
        Err(refusal) if refusal.code == NOT_FOUND => {
            let missing = finding(State::Missing, format!("is not there; wanted: {wanted}"));
            return Ok(Some(missing.mended_by(mend::missing(worker))));
        }
        // A passive declaration may be refused for nothing else that concerns us.
        Err(refusal) => return Ok(Some(finding(State::Unknown, refusal.text))),
        Ok(()) if is_operators(worker) => {
            return Ok(Some(finding(State::Ok, "is there; consumer.declare is check, so it may be as it is".into())));
        }
        Ok(()) => {}
    }
    let (mismatch, hidden) = match declare(inspection, exchange, kind, false).await? {
        Ok(()) => (None, None),
        Err(refusal) if refusal.code == PRECONDITION_FAILED => (Mismatch::read(&refusal.text), None),
        Err(refusal) => (None, Some(refusal)),
    };
    let told = match inspection.management {
        None => Ok(None),
        Some(management) => management.exchange(exchange).await,
    };
    let differences = together(
        mismatch.as_ref(),
        told.as_ref().ok().and_then(Option::as_ref).map(|told| of_management(told, kind)).unwrap_or_default(),
    );
    Ok(Some(match (differences.as_slice(), hidden) {
        ([], None) => finding(State::Ok, wanted),
        ([], Some(_)) if matches!(told, Ok(Some(_))) => finding(State::Ok, wanted),
        ([], Some(refusal)) => {
            finding(State::Unknown, format!("is there; how it is made is not told: {}", refusal.text))
        }
        (differences, _) => {
            let texts: Vec<String> = differences.iter().map(|(name, value)| words(name, value, kind)).collect();
            let vhost = quoted(inspection.vhost());
            let delete = format!("rabbitmqadmin --vhost={vhost} delete exchange name={}", quoted(exchange));
            finding(State::Differs, texts.join("; "))
                .mended_by(Remedy::Command(format!("{delete} && jm topology apply")))
        }
    }))
}

/// Declares the exchange as the workers do. Passively nothing is created, and nothing but its existence compared.
pub(super) async fn declare(
    inspection: &Inspection<'_>,
    exchange: &str,
    kind: ExchangeKind,
    passive: bool,
) -> Result<Result<(), amqp::Refusal>, Failure> {
    let name = amqp::short(exchange)?;
    let kind = match kind {
        ExchangeKind::Direct => LapinKind::Direct,
        ExchangeKind::Fanout => LapinKind::Fanout,
        ExchangeKind::Topic => LapinKind::Topic,
        ExchangeKind::Headers => LapinKind::Headers,
    };
    let options = ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
    let declared = amqp::ask(inspection.connection, "declaring an exchange", async |channel| {
        channel.exchange_declare(name, kind, options, FieldTable::default()).await
    });
    Ok(declared.await?)
}

fn of_management(told: &ExchangeInfo, kind: ExchangeKind) -> Differences {
    let mut differences = Vec::new();
    if told.kind != word(kind) {
        differences.push(("type".to_owned(), told.kind.clone()));
    }
    if !told.durable {
        differences.push(("durable".to_owned(), "false".to_owned()));
    }
    if told.auto_delete {
        differences.push(("auto_delete".to_owned(), "true".to_owned()));
    }
    if told.internal {
        differences.push(("internal".to_owned(), "true".to_owned()));
    }
    differences.extend(told.arguments.iter().map(|(name, value)| (name.clone(), plain(value))));
    differences
}

fn words(name: &str, value: &str, kind: ExchangeKind) -> String {
    match name {
        "type" => format!("is of kind {value}, and should be {}", word(kind)),
        "durable" => "is not durable: it is gone when the broker restarts".to_owned(),
        "auto_delete" => "is auto-delete: it goes with its last binding".to_owned(),
        "internal" => "is internal: nobody can publish to it".to_owned(),
        argument => format!("has the argument {argument}={value}, and should have none"),
    }
}

fn word(kind: ExchangeKind) -> &'static str {
    match kind {
        ExchangeKind::Direct => "direct",
        ExchangeKind::Fanout => "fanout",
        ExchangeKind::Topic => "topic",
        ExchangeKind::Headers => "headers",
    }
}
