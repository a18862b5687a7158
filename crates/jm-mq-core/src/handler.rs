//! What an application writes: a function from a typed task to the messages it answers with.

use std::{error::Error as StdError, fmt, time::Duration};

use lapin::types::AMQPValue;

use crate::{
    context::Context,
    dead_letters,
    message::{Message, Outgoing},
};

/// Does the work of one message type.
///
/// A handler never touches a channel: the messages in its [`Answers`] are published and confirmed before the task is
/// acked, so no answer is lost. It may be run again for a task it has finished (the broker redelivers after a crash),
/// so it has to be idempotent, as the specification says.
///
/// Closures `async |task: T, cx: Context| -> Result<Answers, HandlerError>` are handlers too; any return that converts
/// into [`Answers`] will do, `()` included. One that captures something clones it for each run:
/// `move |task, cx| { let client = client.clone(); async move { … } }`. A handler is tested by calling it:
///
/// ```
/// use jm_mq_core::{Answers, Context, Handler, HandlerError, Message, Outgoing};
///
/// struct Shout;
///
/// impl Handler<String> for Shout {
///     async fn handle(&self, text: String, _: &Context) -> Result<Answers, HandlerError> {
///         if text.is_empty() {
///             return Err(HandlerError::permanent("nothing to shout"));
///         }
///         Ok(Outgoing::new("loud", "loud", Message::new("shouted", text.to_uppercase())).into())
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let answers = Shout.handle("hello".into(), &Context::detached("quiet")).await.unwrap();
/// assert_eq!(answers.messages()[0].message().body().as_ref(), b"HELLO");
/// # });
/// ```
pub trait Handler<T>: Send + Sync + 'static {
    /// Handles one task. Runs for at most `handler_timeout`; a panic is caught and counts as a failed attempt.
    fn handle(&self, task: T, context: &Context) -> impl Future<Output = Result<Answers, HandlerError>> + Send;
}

impl<T, F, Fut, A> Handler<T> for F
where
    T: Send + 'static,
    F: Fn(T, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<A, HandlerError>> + Send,
    A: Into<Answers>,
{
    async fn handle(&self, task: T, context: &Context) -> Result<Answers, HandlerError> {
        self(task, context.clone()).await.map(Into::into)
    }
}

/// The messages a handler answers with, possibly none.
#[derive(Clone, Debug, Default)]
pub struct Answers(Vec<Outgoing>);

impl Answers {
    /// No answer: the task is acked as it is.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a message.
    #[must_use]
    pub fn and(mut self, outgoing: Outgoing) -> Self {
        self.0.push(outgoing);
        self
    }

    /// Adds a message for whoever asked, if anybody did, with the task's `correlation_id` or else its `message_id`.
    ///
    /// The task's `reply_to` is the name of a queue, or the broker's address of a direct reply; `exchange/key` is not
    /// supported. Whatever becomes of a reply is no failure of the task: it is published once, within the publisher's
    /// timeout, and not `mandatory`, so nothing tells whether a queue has it. One that is refused, late or impossible is
    /// logged, counted and dropped.
    #[must_use]
    pub fn and_reply(self, context: &Context, message: Message) -> Self {
        let Some(queue) = context.reply_to() else { return self };
        let message = match context.correlation_id().or(context.message_id()) {
            Some(id) => message.correlation_id(id),
            None => message,
        };
        self.and(Outgoing { required: false, ..Outgoing::to_queue(queue, message) })
    }

    /// The messages, in the order in which they are published.
    pub fn messages(&self) -> &[Outgoing] {
        &self.0
    }

    pub(crate) fn into_messages(self) -> Vec<Outgoing> {
        self.0
    }

    /// Gives every answer the task's correlation id and the next step of its trace, where it has none of its own, and
    /// adds the word that the task is done for whoever put it back and waits.
    pub(crate) fn in_context(mut self, context: &Context) -> Self {
        for Outgoing { message, .. } in &mut self.0 {
            if let (false, Some(id)) = (message.has_correlation_id(), context.correlation_id()) {
                *message = message.clone().correlation_id(id);
            }
            if let (false, Some(trace)) = (message.has_trace(), context.trace()) {
                *message = message.clone().trace(trace.child());
            }
        }
        match outcome(context) {
            Some(outcome) => self.and(outcome),
            None => self,
        }
    }
}

/// See [`dead_letters::OUTCOME_TO`]. What does not fit into AMQP's names is nobody's wish.
fn outcome(context: &Context) -> Option<Outgoing> {
    let text = |name: &str| match context.envelope().header(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().filter(|text| text.len() <= 255),
        _ => None,
    };
    let queue = text(dead_letters::OUTCOME_TO)?;
    let message = Message::new(dead_letters::OUTCOME_TYPE, "").transient();
    let message = message.correlation_id(text(dead_letters::REPLAY).unwrap_or_default());
    Some(Outgoing { required: false, ..Outgoing::to_queue(queue, message) })
}

impl From<()> for Answers {
    fn from((): ()) -> Self {
        Self::none()
    }
}

impl From<Outgoing> for Answers {
    fn from(outgoing: Outgoing) -> Self {
        Self(vec![outgoing])
    }
}

impl From<Vec<Outgoing>> for Answers {
    fn from(messages: Vec<Outgoing>) -> Self {
        Self(messages)
    }
}

/// Why a handler could not do its work, and whether trying again makes sense.
///
/// Any error becomes a retryable one through `?`; see [`Permanent`] for the other kind. Its text goes into logs, and
/// into the dead letter's `x-exception-message`: it must not contain secrets.
pub struct HandlerError {
    pub(crate) source: Box<dyn StdError + Send + Sync>,
    pub(crate) retry: Retry,
}

/// Whether and when to run the handler again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// After the specification's backoff.
    Backoff,
    /// After this wait, because the other side asked for it.
    After(Duration),
    /// Never: the message itself is wrong.
    Never,
}

impl HandlerError {
    /// Worth another try after the backoff: a network error, a busy engine. What `?` makes of any error.
    pub fn retryable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: source.into(), retry: Retry::Backoff }
    }

    /// Worth another try after `delay`, in place of the backoff: a 429 with `Retry-After`. The worker waits that long,
    /// up to the broker's `consumer_timeout`: then the message goes back to the queue and starts again.
    pub fn retry_after(source: impl Into<Box<dyn StdError + Send + Sync>>, delay: Duration) -> Self {
        Self { source: source.into(), retry: Retry::After(delay) }
    }

    /// Will fail again however often it is tried: the message is dead-lettered at once, whatever `nack_requeue` says.
    pub fn permanent(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: source.into(), retry: Retry::Never }
    }

    /// Whether this error will not go away.
    pub fn is_permanent(&self) -> bool {
        self.retry == Retry::Never
    }

    /// The wait that the error asks for in place of the backoff.
    pub fn retry_delay(&self) -> Option<Duration> {
        match self.retry {
            Retry::After(delay) => Some(delay),
            Retry::Backoff | Retry::Never => None,
        }
    }
}

// Not `std::error::Error` itself, so that `?` can take every error that is.
impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for HandlerError {
    fn from(source: E) -> Self {
        Self::retryable(source)
    }
}

impl fmt::Display for HandlerError {
    /// The error with its causes, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)?;
        let mut cause = self.source.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError").field("retry", &self.retry).field("source", &self.source).finish()
    }
}

/// Marks an error as one that will not go away, where it arises: `parse(text).permanent()?`.
pub trait Permanent<T> {
    /// The value, or a [`HandlerError::permanent`].
    fn permanent(self) -> Result<T, HandlerError>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Permanent<T> for Result<T, E> {
    fn permanent(self) -> Result<T, HandlerError> {
        self.map_err(HandlerError::permanent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceContext;
    use lapin::{BasicProperties, types::FieldTable};

    fn fails(with: impl FnOnce() -> Result<(), HandlerError>) -> HandlerError {
        with().unwrap_err()
    }

    #[test]
    fn a_question_mark_takes_any_error_and_makes_it_retryable() {
        let io = fails(|| Ok(Err(std::io::Error::other("disk"))?));
        let text = fails(|| Ok(Err("just text")?));
        let any = fails(|| Ok(Err(anyhow::anyhow!("inner").context("outer"))?));
        assert_eq!([&io, &text, &any].map(|error| error.retry), [Retry::Backoff; 3]);
        assert_eq!(any.to_string(), "outer: inner");
    }

    #[test]
    fn permanent_marks_an_error_where_it_arises() {
        let error = fails(|| "x".parse::<u8>().map(drop).permanent());
        assert!(error.is_permanent());
        let error = HandlerError::retry_after("busy", Duration::from_secs(7));
        assert_eq!((error.is_permanent(), error.retry_delay()), (false, Some(Duration::from_secs(7))));
    }

    #[tokio::test]
    async fn a_closure_is_a_handler() {
        let handler = async |n: u32, cx: Context| {
            let _ = cx.attempt();
            Ok::<_, HandlerError>(Outgoing::to_queue("q", Message::new("t", n.to_string())))
        };
        let answers = call(handler, 7).await.unwrap();
        assert_eq!(answers.messages()[0].message().body().as_ref(), b"7");
        assert!(call(async |_: u32, _| Ok(()), 7).await.unwrap().messages().is_empty());
    }

    async fn call<H: Handler<u32>>(handler: H, n: u32) -> Result<Answers, HandlerError> {
        handler.handle(n, &Context::detached("q")).await
    }

    #[test]
    fn a_reply_is_sent_only_to_who_asked_and_with_the_tasks_identity() {
        let cx = Context::detached("q").with_message_id("m-1");
        assert!(Answers::none().and_reply(&cx, Message::new("t", "b")).messages().is_empty());
        let asked = BasicProperties::default().with_reply_to("who".into()).with_message_id("m-1".into());
        let answers = Answers::none().and_reply(&cx.with_properties(asked), Message::new("t", "b"));
        let reply = &answers.messages()[0];
        assert_eq!((reply.exchange(), reply.routing_key(), reply.required), ("", "who", false));
        assert_eq!(reply.message().properties().correlation_id().as_ref().unwrap().as_str(), "m-1");
    }

    #[test]
    fn whoever_put_a_message_back_is_told_when_it_is_done() {
        let told = |queue: &str| {
            let mut headers = FieldTable::default();
            headers.insert(dead_letters::OUTCOME_TO.into(), AMQPValue::LongString(queue.into()));
            headers.insert(dead_letters::REPLAY.into(), AMQPValue::LongString("run/1".into()));
            let properties = BasicProperties::default().with_correlation_id("record".into()).with_headers(headers);
            Answers::none().in_context(&Context::detached("q").with_properties(properties))
        };
        let answers = told("who");
        let [outcome] = answers.messages() else { panic!("{answers:?}") };
        assert_eq!((outcome.exchange(), outcome.routing_key(), outcome.required), ("", "who", false));
        let properties = outcome.message().properties();
        assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), "run/1");
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "jm.done");
        assert!(told(&"q".repeat(256)).messages().is_empty(), "a name that AMQP cannot carry is no failure");
        assert!(Answers::none().in_context(&Context::detached("q")).messages().is_empty());
    }

    #[test]
    fn answers_inherit_correlation_and_trace_unless_they_have_their_own() {
        let trace = TraceContext::root();
        let mut headers = FieldTable::default();
        trace.write_to(&mut headers);
        let properties = BasicProperties::default().with_correlation_id("record".into()).with_headers(headers);
        let cx = Context::detached("q").with_properties(properties);
        let own = Message::new("t", "b").correlation_id("mine");
        let answers =
            Answers::from(vec![Outgoing::to_queue("q", Message::new("t", "b")), Outgoing::to_queue("q", own)])
                .in_context(&cx);
        let ids = answers.messages().iter().map(|m| m.message().properties().correlation_id().clone().unwrap());
        assert_eq!(ids.map(|id| id.to_string()).collect::<Vec<_>>(), ["record", "mine"]);
        let sent = TraceContext::from_headers(answers.messages()[0].message().properties().headers().as_ref().unwrap());
        assert_eq!(sent.unwrap().trace_id(), trace.trace_id());
    }
}
