//! Which handler does which message: by the AMQP `type` property, never by content type.

use std::{collections::HashMap, fmt, marker::PhantomData, pin::Pin, sync::Arc};

use bytes::Bytes;
use lapin::BasicProperties;
use serde::de::DeserializeOwned;

use crate::{
    body,
    context::Context,
    encoding::{self, Undecoded},
    error::OptionsError,
    handler::{Answers, Handler, HandlerError},
    message::Payload,
    options::{ConsumerOptions, check_name},
};

/// The handlers of one queue, one line for each message type:
///
/// ```
/// # use jm_mq_core::{Context, HandlerError, Payload, Router};
/// # #[derive(serde::Deserialize)] struct Summarize;
/// # impl Payload for Summarize { const TYPE: &'static str = "llm.summarize"; }
/// # #[derive(serde::Deserialize)] struct Chat;
/// # impl Payload for Chat { const TYPE: &'static str = "llm.chat"; }
/// let router = Router::new()
///     .on(async |task: Summarize, _: Context| Ok::<_, HandlerError>(()))
///     .on(async |task: Chat, _: Context| Ok::<_, HandlerError>(()))
///     .alias("summary", "llm.summarize");
/// ```
///
/// A message whose type is missing or not registered is dead-lettered, unless there is a
/// [`fallback`](Self::fallback).
#[derive(Default)]
pub struct Router {
    routes: HashMap<String, Arc<dyn Route>>,
    aliases: HashMap<String, String>,
    fallback: Option<Arc<dyn Route>>,
    duplicate: Option<String>,
}

/// A message as it came, for a handler that does without a typed body.
#[derive(Clone, Debug)]
pub struct RawMessage {
    /// The body, byte for byte: a `content_encoding` is not undone, a charset not checked. The
    /// [context](Context::envelope) has the properties that tell of them.
    pub body: Bytes,
}

impl Router {
    /// No handlers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers the handler for `T`'s type. The body is read as JSON; unknown fields are ignored.
    ///
    /// A `content_encoding` of gzip, deflate or zstd is undone before, up to
    /// [`max_body_bytes`](crate::ConsumerOptions::max_body_bytes); other encodings, and charsets other than UTF-8, are an
    /// error that names them. A type with collections should bound them while they are read: `"",` takes three bytes
    /// in a body, and a `String` for it 24 in memory.
    #[must_use]
    pub fn on<T, H>(self, handler: H) -> Self
    where
        T: Payload + DeserializeOwned + Send + 'static,
        H: Handler<T>,
    {
        self.on_type(T::TYPE, handler)
    }

    /// The same under another name than `T`'s own, or for a body without one.
    #[must_use]
    pub fn on_type<T, H>(mut self, message_type: &str, handler: H) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        H: Handler<T>,
    {
        let route = Arc::new(Json { handler: Arc::new(handler), task: PhantomData });
        if self.routes.insert(message_type.to_owned(), route).is_some() {
            self.duplicate.get_or_insert_with(|| message_type.to_owned());
        }
        self
    }

    /// Lets producers use `name` for the registered type `registered`, so that they need no change.
    #[must_use]
    pub fn alias(mut self, name: &str, registered: &str) -> Self {
        self.aliases.insert(name.to_owned(), registered.to_owned());
        self
    }

    /// Handles what has no type or one that is not registered.
    #[must_use]
    pub fn fallback<H: Handler<RawMessage>>(mut self, handler: H) -> Self {
        self.fallback = Some(Arc::new(Raw { handler: Arc::new(handler) }));
        self
    }

    /// Runs the handler for a message as a worker would, without a broker: for tests of a whole router.
    ///
    /// ```
    /// # use jm_mq_core::{Context, HandlerError, Router};
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let router = Router::new().on_type("double", async |n: u32, _: Context| {
    ///     assert_eq!(n, 21);
    ///     Ok::<_, HandlerError>(())
    /// });
    /// router.dispatch(Some("double"), "21".into(), &Context::detached("q")).await.unwrap();
    /// let error = router.dispatch(Some("double"), "'".into(), &Context::detached("q")).await.unwrap_err();
    /// assert!(error.is_permanent());
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// The handler's, or a permanent one when no handler takes the message or its body cannot be read.
    pub async fn dispatch(
        &self,
        message_type: Option<&str>,
        body: Bytes,
        context: &Context,
    ) -> Result<Answers, HandlerError> {
        let Some((_, route)) = self.route(message_type) else {
            return Err(HandlerError::permanent(unknown_type(message_type)));
        };
        let limit = ConsumerOptions::default().max_body_bytes;
        let body = route.decoded(context.envelope().properties(), &body, limit);
        let body = body.map_err(|error| HandlerError::permanent(error.text))?;
        route.run(body, context.clone()).await.map_err(|error| match error {
            RunError::Handler(error) => error,
            RunError::Undecodable(error) => HandlerError::permanent(error),
        })
    }

    /// The handler for a type, with the type's registered name; `None` in place of the name is the fallback.
    pub(crate) fn route(&self, message_type: Option<&str>) -> Option<(Option<&str>, &Arc<dyn Route>)> {
        let registered = message_type.and_then(|name| {
            let name = self.aliases.get(name).map_or(name, String::as_str);
            self.routes.get_key_value(name)
        });
        match registered {
            Some((name, route)) => Some((Some(name.as_str()), route)),
            None => self.fallback.as_ref().map(|route| (None, route)),
        }
    }

    /// The registered types, for metrics' labels.
    pub(crate) fn types(&self) -> impl Iterator<Item = &str> {
        self.routes.keys().map(String::as_str)
    }

    pub(crate) fn validate(&self) -> Result<(), OptionsError> {
        if let Some(name) = &self.duplicate {
            return Err(OptionsError::new(
                "router",
                format_args!("two handlers for type `{name}`"),
                "one for each type",
            ));
        }
        if self.routes.is_empty() && self.fallback.is_none() {
            return Err(OptionsError::new("router", "without handlers", "at least one, or a fallback"));
        }
        self.types().try_for_each(|name| check_name("router", name))?;
        for (alias, registered) in &self.aliases {
            if !self.routes.contains_key(registered) {
                let mut types: Vec<&str> = self.types().collect();
                types.sort_unstable();
                return Err(OptionsError::new(
                    "type_aliases",
                    format_args!("`{alias}: {registered}`"),
                    format!("aliases of the registered types: {}", types.join(", ")),
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("types", &self.routes.keys())
            .field("aliases", &self.aliases)
            .field("fallback", &self.fallback.is_some())
            .finish_non_exhaustive()
    }
}

/// What to say of a message that nobody handles.
pub(crate) fn unknown_type(message_type: Option<&str>) -> String {
    match message_type {
        Some(name) => format!("no handler for type {name:?}"),
        None => "the message has no type".to_owned(),
    }
}

/// Why a run failed by itself; see `retry` for what else can end one.
pub(crate) enum RunError {
    Handler(HandlerError),
    Undecodable(String),
}

pub(crate) type RunFuture = Pin<Box<dyn Future<Output = Result<Answers, RunError>> + Send>>;

/// A handler whose task type has been forgotten.
pub(crate) trait Route: Send + Sync {
    /// The body as [`run`](Self::run) takes it, of at most `limit` bytes.
    fn decoded(&self, properties: &BasicProperties, body: &Bytes, limit: usize) -> Result<Bytes, Undecoded>;

    /// Reads the body and runs the handler once. The body is read anew for each run: tasks need not be `Clone`.
    fn run(&self, body: Bytes, context: Context) -> RunFuture;
}

struct Json<T, H> {
    handler: Arc<H>,
    task: PhantomData<fn(T)>,
}

impl<T: DeserializeOwned + Send + 'static, H: Handler<T>> Route for Json<T, H> {
    fn decoded(&self, properties: &BasicProperties, body: &Bytes, limit: usize) -> Result<Bytes, Undecoded> {
        encoding::decoded(properties, body, limit)
    }

    fn run(&self, body: Bytes, context: Context) -> RunFuture {
        let handler = Arc::clone(&self.handler);
        Box::pin(async move {
            let task = body::read(&body).map_err(RunError::Undecodable)?;
            drop(body);
            handler.handle(task, &context).await.map_err(RunError::Handler)
        })
    }
}

struct Raw<H> {
    handler: Arc<H>,
}

impl<H: Handler<RawMessage>> Route for Raw<H> {
    fn decoded(&self, _: &BasicProperties, body: &Bytes, _: usize) -> Result<Bytes, Undecoded> {
        Ok(body.clone())
    }

    fn run(&self, body: Bytes, context: Context) -> RunFuture {
        let handler = Arc::clone(&self.handler);
        Box::pin(async move { handler.handle(RawMessage { body }, &context).await.map_err(RunError::Handler) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts() -> impl Handler<u32> {
        async |_: u32, _: Context| Ok::<_, HandlerError>(())
    }

    async fn undecodable(body: &str) -> String {
        let router = Router::new().on_type("n", accepts());
        let error = router.dispatch(Some("n"), body.to_owned().into(), &Context::detached("q")).await.unwrap_err();
        assert!(error.is_permanent());
        error.to_string()
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_a_permanent_error_that_says_why() {
        assert!(undecodable("").await.starts_with("EOF"));
        assert!(undecodable(r#"{"n":1}"#).await.contains("expected u32"));
    }

    #[tokio::test]
    async fn bodies_nested_ten_thousand_deep_end_at_the_readers_limit_and_not_the_stacks() {
        let router = Router::new().on_type("v", async |_: serde_json::Value, _: Context| Ok::<_, HandlerError>(()));
        let deep = "[".repeat(10_000);
        let error = router.dispatch(Some("v"), deep.into(), &Context::detached("q")).await.unwrap_err();
        assert!(error.to_string().contains("recursion limit exceeded"), "{error}");
    }

    #[test]
    fn a_type_is_found_by_its_name_its_alias_or_the_fallback() {
        let router = Router::new().on_type("n", accepts()).alias("number", "n");
        let name = |kind: Option<&str>| router.route(kind).map(|(name, _)| name.map(str::to_owned));
        assert_eq!(name(Some("n")), Some(Some("n".into())));
        assert_eq!(name(Some("number")), Some(Some("n".into())));
        assert_eq!(name(Some("other")), None);
        assert_eq!(name(None), None);
        let router = Router::new().fallback(async |_: RawMessage, _: Context| Ok::<_, HandlerError>(()));
        assert!(router.route(None).is_some_and(|(name, _)| name.is_none()));
    }

    #[test]
    fn mistakes_in_a_router_are_errors_that_name_them() {
        let rejected = |router: Router| router.validate().unwrap_err().to_string();
        assert_eq!(
            rejected(Router::new()),
            "option `router` is without handlers; allowed: at least one, or a fallback"
        );
        assert_eq!(
            rejected(Router::new().on_type("n", accepts()).on_type("n", accepts())),
            "option `router` is two handlers for type `n`; allowed: one for each type"
        );
        assert_eq!(
            rejected(Router::new().on_type("n", accepts()).alias("x", "m")),
            "option `type_aliases` is `x: m`; allowed: aliases of the registered types: n"
        );
    }
}
