//! What the tests have in common: a bench with a broker, handlers that follow a script, and records to wait on.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jm_mq_core::{
    Answers, Broker, BrokerOptions, ConnectError, Consumer, ConsumerOptions, ConsumerState, Context, HandlerError,
    Port, Publisher, PublisherOptions, RawMessage, Router, RunningConsumer, Topology,
};
use jm_testkit::{QueueCounts, RabbitNode, Vhost};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::sync::watch;

/// Long enough for a machine under load; a test that reaches it has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A virtual host, and a client of it.
pub(crate) struct Bench {
    pub(crate) vhost: Vhost,
    pub(crate) broker: Broker,
    pub(crate) publisher: Publisher,
}

impl Bench {
    /// On the node that tests share.
    pub(crate) async fn shared() -> Self {
        Self::on(RabbitNode::shared().await.unwrap()).await
    }

    /// On a node of the test's own.
    pub(crate) async fn on(node: &RabbitNode) -> Self {
        let vhost = node.vhost().await.unwrap();
        let port = vhost.port;
        Self::at(vhost, port)
    }

    /// At another port than the node's own: a proxy's.
    pub(crate) fn at(vhost: Vhost, port: u16) -> Self {
        let options = broker_options(&vhost, port);
        Self::with(vhost, options, PublisherOptions::default())
    }

    pub(crate) fn with(vhost: Vhost, options: BrokerOptions, publisher: PublisherOptions) -> Self {
        metrics();
        let broker = Broker::new(options).unwrap();
        let publisher = Publisher::new(&broker, publisher).unwrap();
        Self { vhost, broker, publisher }
    }

    pub(crate) fn consumer(&self, queue: &str, options: ConsumerOptions, router: Router) -> Consumer {
        Consumer::new(&self.broker, &self.publisher, Topology::work_queue(queue), options, router).unwrap()
    }

    /// Starts a consumer and waits until it is ready.
    pub(crate) async fn consume(&self, queue: &str, options: ConsumerOptions, router: Router) -> RunningConsumer {
        let running = self.consumer(queue, options, router).start();
        within("ready", running.ready()).await;
        running
    }

    pub(crate) async fn send(&self, queue: &str, kind: &str, id: &str, body: &str) {
        let properties = BasicProperties::default().with_type(kind.into()).with_message_id(id.into());
        self.vhost.publish(queue, properties, body.as_bytes()).await.unwrap();
    }

    pub(crate) async fn settled(&self, queue: &str) {
        self.vhost.wait_for_counts(queue, LIMIT, QueueCounts::is_empty).await.unwrap();
    }

    pub(crate) async fn ready(&self, queue: &str, count: u64) {
        self.vhost.wait_for_counts(queue, LIMIT, |counts| counts.ready == count).await.unwrap();
    }

    /// Waits until nobody has anything of a queue any more, and returns how many messages are left in it. The broker
    /// confirms a channel's end a little before its queue has taken everything back.
    pub(crate) async fn left(&self, queue: &str) -> u64 {
        let given_back = |counts: &QueueCounts| counts.unacked == 0 && counts.consumers == 0;
        self.vhost.wait_for_counts(queue, LIMIT, given_back).await.unwrap().ready
    }

    /// Waits for dead letters and takes them.
    pub(crate) async fn dead(&self, queue: &str, count: u64) -> Vec<Delivery> {
        let dead = format!("{queue}.dead");
        self.ready(&dead, count).await;
        self.vhost.take_all(&dead).await.unwrap()
    }
}

pub(crate) fn broker_options(vhost: &Vhost, port: u16) -> BrokerOptions {
    BrokerOptions {
        port: Some(Port(port)),
        name: vhost.user.clone(),
        password: vhost.password.as_str().into(),
        vhost: vhost.name.clone(),
        app_id: "test".into(),
        ..BrokerOptions::default()
    }
}

/// The specification's options, with waits that do not make a test wait.
pub(crate) fn quick() -> ConsumerOptions {
    ConsumerOptions {
        retry_base_delay: Duration::from_millis(10),
        retry_max_delay: Duration::from_millis(40),
        refused_delay: Duration::from_millis(300),
        backlog_interval: Duration::from_millis(200),
        ..ConsumerOptions::default()
    }
}

/// One worker, so that what happens, happens in order.
pub(crate) fn one_worker() -> ConsumerOptions {
    ConsumerOptions { concurrency: 1, ..quick() }
}

/// Lets a queue's process do nothing until it is let go: what is published to it gets no confirm, on a connection that
/// lives.
pub(crate) async fn hold_up(node: &RabbitNode, vhost: &Vhost, queue: &str) {
    let and_then = format!("spawn(fun() -> timer:sleep({}), sys:resume(Pid) end)", LIMIT.as_millis());
    tell_queue(node, vhost, queue, &format!("ok = sys:suspend(Pid), {and_then}")).await;
}

/// Ends what [`hold_up`] began.
pub(crate) async fn let_go(node: &RabbitNode, vhost: &Vhost, queue: &str) {
    tell_queue(node, vhost, queue, "sys:resume(Pid)").await;
}

async fn tell_queue(node: &RabbitNode, vhost: &Vhost, queue: &str, what: &str) {
    let name = &vhost.name;
    let tell = format!(
        "{{ok, Queue}} = rabbit_amqqueue:lookup({{resource, <<\"{name}\">>, queue, <<\"{queue}\">>}}),
         Pid = amqqueue:get_pid(Queue), {what}, ok"
    );
    node.eval(&tell).await.unwrap();
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(LIMIT, future).await else { panic!("not within {LIMIT:?}: {what}") };
    value
}

/// Waits until a consumer is not ready.
pub(crate) async fn not_ready(running: &RunningConsumer) {
    let mut states = running.states();
    within("not ready", states.wait_for(|state| !matches!(state, ConsumerState::Ready))).await.unwrap();
}

/// Waits until the consumer has given up for now, and returns why.
pub(crate) async fn waiting(running: &RunningConsumer) -> ConnectError {
    waits_with(running, |_| true).await
}

/// Waits until the consumer has given up for now with such an error, and returns it.
pub(crate) async fn waits_with(running: &RunningConsumer, wanted: impl Fn(&ConnectError) -> bool) -> ConnectError {
    let mut states = running.states();
    let is_wanted = |state: &ConsumerState| matches!(state, ConsumerState::Waiting { error } if wanted(error));
    let state = within("waiting", states.wait_for(is_wanted)).await.unwrap();
    match &*state {
        ConsumerState::Waiting { error } => error.clone(),
        other => unreachable!("{other:?}"),
    }
}

/// What handlers did, in order; something to wait on.
pub(crate) struct Record<T> {
    entries: Arc<watch::Sender<Vec<T>>>,
}

impl<T> Clone for Record<T> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries) }
    }
}

impl<T: Clone + Send + Sync + std::fmt::Debug + 'static> Record<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Arc::new(watch::channel(Vec::new()).0) }
    }

    pub(crate) fn add(&self, entry: T) {
        self.entries.send_modify(|entries| entries.push(entry));
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.entries.borrow().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<T>> {
        self.entries.subscribe()
    }

    /// Waits until there are at least `count` entries.
    pub(crate) async fn reaches(&self, count: usize) -> Vec<T> {
        let mut entries = self.entries.subscribe();
        // The borrow must end before the next one: a writer that waits in between would stop both for ever.
        let reached = tokio::time::timeout(LIMIT, entries.wait_for(|entries| entries.len() >= count)).await.is_ok();
        assert!(reached, "{} of {count} entries after {LIMIT:?}", self.len());
        self.all()
    }
}

/// A router with a handler for type `task` that records each run's message id and attempt, and does what it is told.
pub(crate) fn recording<F, Fut, A>(runs: &Record<(String, u32)>, act: F) -> Router
where
    F: Fn(Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<A, HandlerError>> + Send + 'static,
    A: Into<Answers> + 'static,
{
    let runs = runs.clone();
    Router::new().on_type("task", move |_: serde_json::Value, cx: Context| {
        runs.add((cx.message_id().unwrap_or("none").to_owned(), cx.attempt()));
        act(cx)
    })
}

/// A router whose handler waits at the gate.
pub(crate) fn held(runs: &Record<(String, u32)>, gate: &Gate) -> Router {
    let gate = gate.clone();
    recording(runs, move |_| {
        let gate = gate.clone();
        async move {
            gate.passed().await;
            Ok(())
        }
    })
}

/// A router that takes anything and records its message id.
pub(crate) fn taking_anything(ids: &Record<String>) -> Router {
    let ids = ids.clone();
    Router::new().fallback(move |_: RawMessage, cx: Context| {
        ids.add(cx.message_id().unwrap_or("none").to_owned());
        async { Ok::<_, HandlerError>(()) }
    })
}

/// A gate that handlers wait at.
#[derive(Clone)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn passed(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

/// Counts down from the given number of failures.
#[derive(Clone)]
pub(crate) struct FailFirst(Arc<AtomicUsize>);

impl FailFirst {
    pub(crate) fn new(times: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(times)))
    }

    pub(crate) fn fails(&self) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

pub(crate) fn text_header(delivery: &Delivery, name: &str) -> String {
    match header(delivery, name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("header {name}: {other:?}"),
    }
}

pub(crate) fn header<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a AMQPValue> {
    delivery.properties.headers().as_ref().and_then(|headers: &FieldTable| headers.inner().get(name))
}

/// The metrics of this process, all tests': look for your own queue's.
pub(crate) fn metrics() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let handle = PrometheusBuilder::new().install_recorder().unwrap();
        jm_mq_core::metrics::describe();
        handle
    })
}

/// The value of one series, given its name and some of its labels; 0 if there is none.
pub(crate) fn metric(name: &str, labels: &[(&str, &str)]) -> f64 {
    let rendered = metrics().render();
    let wanted = |line: &&str| {
        let series = line.split(' ').next().unwrap_or_default();
        let (family, _) = series.split_once('{').unwrap_or((series, ""));
        family == name && labels.iter().all(|(key, value)| series.contains(&format!("{key}=\"{value}\"")))
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
    rendered.lines().filter(|line| !line.starts_with('#')).filter(wanted).map(value).sum()
}

/// Waits until a metric has exactly this value; it is updated shortly after what it counts.
pub(crate) async fn metric_becomes(name: &str, labels: &[(&str, &str)], wanted: f64) {
    metric_is(name, labels, |value| (value - wanted).abs() < f64::EPSILON).await;
}

/// Waits until a metric has at least this value.
pub(crate) async fn metric_reaches(name: &str, labels: &[(&str, &str)], wanted: f64) {
    metric_is(name, labels, |value| value >= wanted).await;
}

async fn metric_is(name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        let value = metric(name, labels);
        if wanted(value) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{name} {labels:?} stays at {value}");
    }
}

/// Log lines of this process, all tests'.
pub(crate) fn logs() -> &'static Mutex<Vec<u8>> {
    static LOGS: OnceLock<&'static Mutex<Vec<u8>>> = OnceLock::new();
    LOGS.get_or_init(|| {
        let buffer: &'static Mutex<Vec<u8>> = Box::leak(Box::default());
        tracing_subscriber::fmt()
            .with_env_filter("jm_mq_core=debug,lapin=off")
            .with_ansi(false)
            .with_writer(move || Lines(buffer))
            .init();
        buffer
    })
}

/// Waits until a consumer has failed to start three times, and asserts that only the first failure is an error in the log,
/// for an operator, and that none counts as one that passes.
pub(crate) async fn is_reported_once(queue: &str) {
    let lines = |text: &str| {
        let log = String::from_utf8(logs().lock().unwrap().clone()).unwrap();
        let queue = format!("queue=\"{queue}\"");
        log.lines().filter(|line| line.contains(text) && line.contains(&queue)).count()
    };
    within("three attempts", async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while lines("still not consuming") < 2 {
            ticks.tick().await;
        }
    })
    .await;
    let reported = (lines("cannot consume until an operator corrects this"), lines("not consuming; reconnecting"));
    assert_eq!(reported, (1, 0), "{queue}");
}

struct Lines(&'static Mutex<Vec<u8>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
