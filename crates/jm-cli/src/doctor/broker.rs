//! The broker: whether it is there, how it is set up, and what the workers may do on it.

use std::{collections::BTreeMap, time::Instant};

use jiff::Timestamp;
use jm_mq_core::Connection;

use super::{check::Check, version};
use crate::{
    alarms,
    amqp::{self, Count},
    failure::Failure,
    management::{Management, apart},
    operator::Operator,
    topology::{Finding, Inspection, Remedy, State, inspect, missing},
};

/// Two machines whose clocks differ by more write times that nobody can compare.
const MAX_CLOCK_DIFFERENCE_SECONDS: u64 = 5;

pub(super) async fn checks(operator: &Operator<'_>, management: Option<&Management>) -> Result<Vec<Check>, Failure> {
    let configuration = &operator.configuration;
    let started = Instant::now();
    let connection = match operator.connect("doctor").await {
        Ok(connection) => connection,
        Err(failure) => {
            let remedy = "nothing else of the broker can be checked; `jm topology` and `jm status` need it too";
            return Ok(vec![Check::fail("broker", failure.to_string(), remedy)]);
        }
    };
    let took = started.elapsed();
    let server = connection.server_properties();
    let of_server = |name: &str| server.get(name).map_or("", String::as_str);
    let mut checks = vec![Check::ok(
        "broker",
        format!(
            "{} {} on {}, virtual host {}, as {}; connected in {} ms",
            of_server("product"),
            of_server("version"),
            of_server("cluster_name"),
            configuration.rabbitmq.vhost,
            configuration.rabbitmq.name,
            took.as_millis()
        ),
    )];
    checks.extend(version::checks(of_server("version"), &configuration.workers));
    checks.push(heartbeat(operator, &connection));
    checks.extend(consumer_timeouts(operator));
    let (alarms, is_blocked) = alarms(operator, management).await?;
    checks.push(alarms);
    checks.extend(queue_types(operator, &connection, is_blocked).await?);
    let inspection = Inspection::new(operator, &connection, management);
    // In an alarm the broker reads nothing of who has published, and the questions after permissions are publishes.
    let findings = if is_blocked { Vec::new() } else { inspect(&inspection).await? };
    checks.extend(topology(&inspection, &findings, is_blocked));
    checks.push(clock(management).await);
    connection.close().await;
    Ok(checks)
}

fn heartbeat(operator: &Operator<'_>, connection: &Connection) -> Check {
    const CHECK: &str = "heartbeat";
    let (agreed, wanted) = (connection.heartbeat(), operator.configuration.rabbitmq.heartbeat);
    if agreed.is_zero() {
        let text = "none was agreed upon: a broker that freezes is not noticed";
        return Check::fail(CHECK, text, "set rabbitmq.heartbeat, and the broker's heartbeat above 0");
    }
    if agreed > wanted {
        let text = format!("{agreed:?} was agreed upon, {wanted:?} asked for");
        return Check::warn(CHECK, text, "lower the broker's heartbeat");
    }
    Check::ok(CHECK, format!("{agreed:?}: a broker that freezes is noticed within {:?}", agreed * 5 / 2))
}

/// Whether what a worker holds can be settled in time, and what the broker's own limit is.
fn consumer_timeouts(operator: &Operator<'_>) -> Vec<Check> {
    const CHECK: &str = "timeout";
    let workers = &operator.configuration.workers;
    let mut checks: Vec<Check> = Vec::new();
    let mut limits = BTreeMap::<_, Vec<&str>>::new();
    for worker in workers {
        match worker.consumer.time_warning() {
            Some(warning) => {
                let (what, remedy) = warning.split_once(". ").unwrap_or((&warning, "lower handler_timeout"));
                checks.push(Check::warn(CHECK, format!("{}: {what}", worker.queue()), remedy));
            }
            None => limits.entry(worker.consumer.consumer_timeout).or_default().push(worker.queue()),
        }
    }
    for (limit, queues) in limits {
        checks
            .push(Check::ok(CHECK, format!("{}: what a worker holds is settled within {limit:?}", queues.join(", "))));
    }
    let limits: std::collections::BTreeSet<_> = workers.iter().map(|worker| worker.consumer.consumer_timeout).collect();
    let limits: Vec<String> = limits.iter().map(|limit| format!("{}", limit.as_millis())).collect();
    checks.push(Check::unknown(
        CHECK,
        format!("the broker tells nobody its consumer_timeout; the workers take it for {} ms", limits.join(" or ")),
        Remedy::command("rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'"),
    ));
    checks
}

/// Whether the broker takes messages.
async fn alarms(operator: &Operator<'_>, management: Option<&Management>) -> Result<(Check, bool), Failure> {
    const CHECK: &str = "alarms";
    let (mut raised, untold) = match management {
        None => (Vec::new(), None),
        Some(management) => match alarms::of_nodes(management).await {
            Ok(raised) => (raised, None),
            Err(untold) => (Vec::new(), Some(untold.to_string())),
        },
    };
    let blocked = alarms::blocked(operator).await?;
    let is_blocked = blocked.is_some();
    raised.extend(blocked);
    let check = match (raised.as_slice(), untold) {
        ([], None) => Check::ok(CHECK, "none: the broker takes messages"),
        ([], Some(error)) => Check::ok(CHECK, format!("the broker takes messages; {error}")),
        (raised, _) => {
            let remedy = "free memory or disk on the nodes; `rabbitmq-diagnostics alarms` and `rabbitmq-diagnostics \
                          memory_breakdown` tell more";
            Check::fail(CHECK, raised.join("; "), remedy)
        }
    };
    Ok((check, is_blocked))
}

/// The queues' types, and messages that nobody takes. What is missing is a matter of the topology, where that is looked at.
async fn queue_types(
    operator: &Operator<'_>,
    connection: &Connection,
    tells_missing: bool,
) -> Result<Vec<Check>, Failure> {
    const CHECK: &str = "queues";
    let mut types = BTreeMap::<String, Vec<String>>::new();
    let mut checks = Vec::new();
    for worker in &operator.configuration.workers {
        let queue = worker.queue();
        let kind = match amqp::count(connection, queue).await? {
            Count::Absent if tells_missing => {
                checks.push(Check::fail(CHECK, format!("{queue} is not there"), missing(worker)));
                continue;
            }
            Count::Absent => continue,
            Count::Refused(_) => None,
            Count::Of { ready, consumers } => {
                if ready > 0 && consumers == 0 {
                    let text = format!("{queue} has {ready} messages and no consumer");
                    checks.push(Check::warn(CHECK, text, format!("start {}", worker.worker.name)));
                }
                amqp::queue_type(connection, amqp::short(queue)?).await?
            }
        };
        types.entry(kind.unwrap_or_else(|| "not told".to_owned())).or_default().push(queue.to_owned());
    }
    if !types.is_empty() {
        let types: Vec<String> = types.iter().map(|(kind, queues)| format!("{kind}: {}", queues.join(", "))).collect();
        checks.push(Check::ok(CHECK, types.join("; ")));
    }
    Ok(checks)
}

/// Exchanges, queues, bindings, dead-lettering, policies, permissions: in short, since `jm topology` tells all.
fn topology(inspection: &Inspection<'_>, findings: &[Finding], is_blocked: bool) -> Vec<Check> {
    if is_blocked {
        let text = "not looked at while the broker blocks publishers";
        return vec![Check::unknown("topology", text, "`jm topology check`, once the alarm is over")];
    }
    let kinds = [
        ("topology", &["exchange", "queue", "binding"][..]),
        ("policies", &["policy"]),
        ("permissions", &["permission"]),
    ];
    let mut checks = Vec::new();
    for (check, objects) in kinds {
        let of_kind: Vec<&Finding> = findings.iter().filter(|finding| objects.contains(&finding.object)).collect();
        let in_state = |state| of_kind.iter().filter(move |finding| finding.state == state);
        for finding in of_kind.iter().filter(|finding| finding.state.is_difference()) {
            let text = format!("{} {} {}", finding.object, finding.name, finding.text);
            let remedy = finding.mend.clone().unwrap_or_else(|| Remedy::command("jm topology diff"));
            checks.push(Check::fail(check, text, remedy));
        }
        for finding in in_state(State::Notice) {
            let text = format!("{} {}: {}", finding.object, finding.name, finding.text);
            checks.push(Check::warn(check, text, "make sure that this is meant"));
        }
        let (ok, unknown) = (in_state(State::Ok).count(), in_state(State::Unknown).count());
        if ok > 0 {
            checks.push(Check::ok(check, format!("{ok} of {} as specified", of_kind.len())));
        }
        if let Some(first) = in_state(State::Unknown).next() {
            let text =
                format!("{unknown} of {} not known: {} {}: {}", of_kind.len(), first.object, first.name, first.text);
            let more = match inspection.management {
                None => "jm topology check --management http://host:15672",
                Some(_) => "jm topology check",
            };
            let remedy = first.mend.clone().unwrap_or_else(|| Remedy::command(more));
            checks.push(Check::unknown(check, text, remedy));
        }
    }
    checks
}

async fn clock(management: Option<&Management>) -> Check {
    const CHECK: &str = "clock";
    let Some(management) = management else {
        let text = "AMQP does not tell the broker's time; the management API does";
        return Check::unknown(CHECK, text, "--management http://host:15672, or management.url in jm.yaml");
    };
    match management.overview().await {
        Err(untold) => {
            Check::fail("management", untold.to_string(), "see management.url, management.name and its password")
        }
        Ok((_, None)) => {
            Check::unknown(CHECK, "the management API does not tell its time", "timedatectl, on both sides")
        }
        Ok((overview, Some(theirs))) => {
            let apart = apart(theirs, Timestamp::now()).as_secs();
            let text = format!("{apart} s apart from the broker's ({})", overview.rabbitmq_version);
            if apart > MAX_CLOCK_DIFFERENCE_SECONDS {
                Check::warn(CHECK, text, "set both by NTP: times in dead letters and records are compared")
            } else {
                Check::ok(CHECK, text)
            }
        }
    }
}
