//! Where a dead letter came from, and the message that goes back there.

use jm_mq_core::{AMQPValue, BasicProperties, FieldTable, dead_letters};

use super::letter::{Letter, text};

/// An exchange and a routing key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
}

impl Target {
    /// Straight to a queue.
    pub(crate) fn queue(name: &str) -> Self {
        Self { exchange: String::new(), routing_key: name.to_owned() }
    }

    /// Where the letter was published first. What the broker dead-lettered by a policy goes straight to the queue in which
    /// it died: its exchange may have given it to others, too, that were content with it.
    pub(crate) fn origin(letter: &Letter) -> Option<Self> {
        let exchange = letter.text(dead_letters::ORIGINAL_EXCHANGE);
        if let (Some(exchange), Some(routing_key)) = (exchange, letter.text(dead_letters::ORIGINAL_ROUTING_KEY)) {
            return Some(Self { exchange, routing_key });
        }
        letter.death_text("queue").map(|queue| Self::queue(&queue))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.exchange.as_str(), self.routing_key.as_str()) {
            ("", queue) => write!(f, "queue `{queue}`"),
            (exchange, key) => write!(f, "exchange `{exchange}` with key `{key}`"),
        }
    }
}

/// Headers by which the broker would send a message to other queues as well, or count its past against it.
const NOT_TAKEN_ALONG: [&str; 6] = [
    "CC",
    "BCC",
    dead_letters::BROKER_COUNTS[0],
    dead_letters::BROKER_COUNTS[1],
    dead_letters::RETURNED,
    dead_letters::OUTCOME_TO,
];

/// The properties with which a letter goes back: its own, and which replay it was. `outcome_to` is the queue that is to
/// hear when it is done.
pub(crate) fn properties(letter: &Letter, replay: &str, outcome_to: Option<&str>) -> BasicProperties {
    let mut headers = FieldTable::default();
    let own = letter.properties.headers().iter().flat_map(FieldTable::inner);
    for (name, value) in own.filter(|(name, _)| !NOT_TAKEN_ALONG.contains(&name.as_str())) {
        headers.insert(name.clone(), value.clone());
    }
    headers.insert(dead_letters::REPLAY.into(), AMQPValue::LongString(replay.into()));
    if let Some(queue) = outcome_to {
        headers.insert(dead_letters::OUTCOME_TO.into(), AMQPValue::LongString(queue.into()));
    }
    let properties = dead_letters::copied(&letter.properties, headers);
    match letter.properties.expiration() {
        Some(expiration) => properties.with_expiration(expiration.clone()),
        None => properties,
    }
}

/// The properties of a copy that takes the letter's place in its queue: its own, without the broker's counts and what
/// would route it to other queues as well.
pub(crate) fn renewed(letter: &Letter) -> BasicProperties {
    let mut headers = FieldTable::default();
    let own = letter.properties.headers().iter().flat_map(FieldTable::inner);
    for (name, value) in own {
        let is_left_out =
            ["CC", "BCC"].contains(&name.as_str()) || dead_letters::BROKER_COUNTS.contains(&name.as_str());
        if !is_left_out {
            headers.insert(name.clone(), value.clone());
        }
    }
    // What the broker noted when it dead-lettered the message is not kept where a client publishes it (RabbitMQ 4).
    for (header, value) in [
        (dead_letters::ORIGINAL_QUEUE, letter.original_queue()),
        (dead_letters::ERROR_KIND, letter.error_kind()),
        (dead_letters::FAILED_AT, letter.failed_at().map(|at| at.to_string())),
    ] {
        if letter.header("x-death").is_some()
            && letter.header(header).is_none()
            && let Some(value) = value
        {
            headers.insert(header.into(), AMQPValue::LongString(value.into()));
        }
    }
    let properties = dead_letters::copied(&letter.properties, headers);
    match letter.properties.expiration() {
        Some(expiration) => properties.with_expiration(expiration.clone()),
        None => properties,
    }
}

/// Whether the letter was put back by that run and has failed again.
pub(crate) fn is_of_run(letter: &Letter, run: &str) -> bool {
    let replay = letter.header(dead_letters::REPLAY).and_then(text);
    replay.is_some_and(|replay| replay.split('/').next() == Some(run))
}

#[cfg(test)]
mod tests {
    use jm_mq_core::BasicProperties;

    use super::*;

    fn long(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn letter(headers: Vec<(&'static str, AMQPValue)>) -> Letter {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert(name.into(), value);
        }
        Letter::new(BasicProperties::default().with_headers(table).with_user_id("u".into()), b"x".to_vec())
    }

    fn died_in(queue: &str) -> AMQPValue {
        let mut death = FieldTable::default();
        death.insert("queue".into(), long(queue));
        death.insert("exchange".into(), long("fan"));
        AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into())
    }

    #[test]
    fn a_letter_goes_back_to_where_it_was_published_or_else_to_where_it_died() {
        let ours = vec![("x-original-exchange", long("jm.llm")), ("x-original-routingKey", long("key"))];
        let origin = Target { exchange: "jm.llm".into(), routing_key: "key".into() };
        assert_eq!(Target::origin(&letter(ours)), Some(origin));
        assert_eq!(Target::origin(&letter(vec![("x-death", died_in("jm.asr"))])), Some(Target::queue("jm.asr")));
        assert_eq!(Target::origin(&letter(vec![("tenant", long("7"))])), None);
    }

    #[test]
    fn what_would_route_it_elsewhere_or_make_it_poison_stays_behind() {
        let letter = letter(vec![
            ("CC", long("elsewhere")),
            ("x-delivery-count", AMQPValue::LongLongInt(7)),
            ("jm-outcome-to", long("an old replay's")),
            ("jm-replay", long("old/1")),
            ("jm-error-kind", long("timeout")),
            ("tenant", AMQPValue::LongInt(7)),
        ]);
        let back = properties(&letter, "run/2", None);
        let headers: Vec<&str> =
            back.headers().as_ref().unwrap().inner().keys().map(lapin::types::ShortString::as_str).collect();
        assert_eq!(headers, ["jm-error-kind", "jm-replay", "tenant"]);
        // It would have to be ours, or the broker closes the channel.
        assert_eq!(back.user_id(), &None);
        let back = Letter::new(properties(&letter, "run/2", Some("who")), Vec::new());
        assert!(is_of_run(&back, "run") && !is_of_run(&back, "ru") && !is_of_run(&letter, "run"));
        assert_eq!(back.text("jm-outcome-to").as_deref(), Some("who"));
    }
}
