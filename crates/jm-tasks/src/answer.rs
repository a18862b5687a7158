//! How a worker answers: to the record events, and to whoever asked.

use std::io;

use jm_mq_core::{Answers, Context, HandlerError, Message, Outgoing, Payload};
use serde::Serialize;

use crate::{identity::answer_id, queue, record::RecordId};

/// The largest event: RabbitMQ 4 takes messages of up to 16 MiB.
const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// The answer to a task: the event goes to [`queue::RECORD_EVENTS`], and to the task's `reply_to` if it has one.
///
/// Its message id follows from the task's, so that a second run of the same task answers with the same message. Its
/// correlation id is the task's, or else the record.
///
/// # Errors
///
/// When the event cannot be written as JSON, or has more than 16 MiB: a broker would refuse it each time. Writing it
/// stops there.
pub fn answer<T: Payload + Serialize>(
    context: &Context,
    record: Option<&RecordId>,
    event: &T,
) -> Result<Answers, HandlerError> {
    let mut message = Message::new(T::TYPE, written(event)?);
    if let Some(id) = answer_id(context.message_id(), T::TYPE) {
        message = message.message_id(&id.to_string());
    }
    let reply = message.clone();
    if let (None, Some(record)) = (context.correlation_id(), record) {
        message = message.correlation_id(record.as_str());
    }
    let to_records = Outgoing::new(queue::RECORD_EVENTS, queue::RECORD_EVENTS, message);
    Ok(Answers::from(to_records).and_reply(context, reply))
}

fn written<T: Payload + Serialize>(event: &T) -> Result<Vec<u8>, HandlerError> {
    let mut event_bytes = Bounded(Vec::new());
    match serde_json::to_writer(&mut event_bytes, event) {
        Ok(()) => Ok(event_bytes.0),
        Err(error) if error.is_io() => {
            let text = format!("{}: more than {MAX_EVENT_BYTES} bytes, the most of a message", T::TYPE);
            Err(HandlerError::permanent(text))
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes no more than an event may have.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jm_mq_core::BasicProperties;

    use super::*;
    use crate::{Completed, LlmTask};

    fn completed() -> Completed {
        Completed {
            record_id: None,
            revision: None,
            task: LlmTask::Chat,
            text: "yes".into(),
            language: None,
            written_in: None,
            truncated: false,
            model: "m".into(),
            prompt_tokens: None,
            completion_tokens: None,
        }
    }

    #[test]
    fn an_answer_goes_to_the_record_events_and_to_whoever_asked() {
        let asked = BasicProperties::default().with_reply_to("who".into()).with_message_id("m-1".into());
        let context = Context::detached(queue::LLM).with_properties(asked);
        let record = RecordId::new("r-1").unwrap();
        let answers = answer(&context, Some(&record), &completed()).unwrap();
        let [event, reply] = answers.messages() else { panic!("{answers:?}") };
        assert_eq!((event.exchange(), event.routing_key()), ("jm.coreRecordEvent", "jm.coreRecordEvent"));
        assert_eq!((reply.exchange(), reply.routing_key()), ("", "who"));
        let id = |outgoing: &Outgoing| outgoing.message().properties().message_id().clone().unwrap();
        assert_eq!(id(event), id(reply));
        let correlation = |outgoing: &Outgoing| outgoing.message().properties().correlation_id().clone().unwrap();
        assert_eq!((correlation(event).as_str(), correlation(reply).as_str()), ("r-1", "m-1"));
    }

    #[test]
    fn an_event_that_no_broker_takes_is_a_permanent_error_and_never_written_as_a_whole() {
        let of = |length: usize| Completed { text: "x".repeat(length), ..completed() };
        let rest = serde_json::to_vec(&of(0)).unwrap().len();
        let largest = answer(&Context::detached("q"), None, &of(MAX_EVENT_BYTES - rest)).unwrap();
        assert_eq!(largest.messages()[0].message().body().len(), MAX_EVENT_BYTES);
        let error = answer(&Context::detached("q"), None, &of(MAX_EVENT_BYTES - rest + 1)).unwrap_err();
        assert!(error.is_permanent());
        assert_eq!(error.to_string(), "llm.completed: more than 16777216 bytes, the most of a message");
    }

    #[test]
    fn a_second_run_answers_with_the_same_message() {
        let id = |task: &str| {
            let answers = answer(&Context::detached("q").with_message_id(task), None, &completed()).unwrap();
            answers.messages()[0].message().properties().message_id().clone().unwrap()
        };
        assert_eq!(id("a"), id("a"));
        assert_ne!(id("a"), id("b"));
    }
}
