//! A way to PostgreSQL that is lost without a word: nothing arrives any more, and nothing says so. New connections
//! work.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jm_testkit::PostgresServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{Database, Worker, created, cx, id, limited, summarized, tasks, text_content, updated};

/// Soon enough: two pings' limits and a new connection, with room for a busy machine.
const SOON: Duration = Duration::from_secs(8);

/// From when on a connection carries nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Never,
    /// At once.
    Now,
    /// As soon as it has carried so many more bytes to the server.
    AfterBytes(usize),
    /// After the server's answer to a commit.
    AfterCommit,
}

/// Forwards to the server. The connections that there are when it falls silent keep their sockets open and are never
/// read from again; what connects later is not concerned.
struct Network {
    port: u16,
    weather: watch::Sender<(u64, Silence)>,
}

impl Network {
    async fn to(server: &PostgresServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, upstream) = (listener.local_addr().unwrap().port(), server.port());
        let (weather, present) = watch::channel((0, Silence::Never));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
                tokio::spawn(carry(client, server, present.clone()));
            }
        });
        Self { port, weather }
    }

    fn fall_silent(&self, silence: Silence) {
        self.weather.send_modify(|(epoch, now)| (*epoch, *now) = (*epoch + 1, silence));
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mut weather: watch::Receiver<(u64, Silence)>) {
    let began = weather.borrow_and_update().0;
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let (mut carried, mut committing) = (0, false);
    loop {
        let (epoch, told) = *weather.borrow_and_update();
        let silence = if epoch == began { Silence::Never } else { told };
        let silent = match silence {
            Silence::Never | Silence::AfterCommit => false,
            Silence::Now => true,
            Silence::AfterBytes(bytes) => carried >= bytes,
        };
        if silent {
            pending::<()>().await;
        }
        tokio::select! {
            _ = weather.changed() => {}
            count = client.read(&mut up) => {
                let Ok(count @ 1..) = count else { return };
                if silence != Silence::Never {
                    carried += count;
                }
                committing |= silence == Silence::AfterCommit && up[..count].windows(6).any(|word| word == b"COMMIT");
                if server.write_all(&up[..count]).await.is_err() {
                    return;
                }
            }
            count = server.read(&mut down) => {
                let Ok(count @ 1..) = count else { return };
                if client.write_all(&down[..count]).await.is_err() {
                    return;
                }
                if committing {
                    pending::<()>().await;
                }
            }
        }
    }
}

/// A worker that reaches its database through such a network, with so many connections.
async fn worker_through(server: &PostgresServer, connections: u32) -> (Network, Arc<Worker>, Database) {
    let direct = Database::postgres_on(server).await;
    let network = Network::to(server).await;
    let mut through = direct.moved(server.port(), network.port);
    through.options.connections = connections;
    (network, Arc::new(through.worker().await), direct)
}

async fn soon(worker: &Worker, record: &str) {
    let begin = Instant::now();
    let event = created(record, 1, text_content("t"));
    assert_eq!(tasks(&worker.tries(&event, &cx()).await.unwrap()).len(), 2);
    assert!(begin.elapsed() < SOON, "it took {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_lost_in_the_middle_of_their_transactions_are_replaced() {
    limited(async {
        let server = PostgresServer::shared().await.unwrap();
        let (network, worker, direct) = worker_through(server, 10).await;
        for number in 0..10 {
            worker.takes(&created(&format!("r{number}"), 1, text_content("one"))).await;
        }
        let mut other = direct.connect().await;
        sqlx::raw_sql("BEGIN; SELECT 1 FROM records FOR UPDATE").execute(&mut other).await.unwrap();
        let runs: Vec<_> = (0..10)
            .map(|number| {
                let worker = Arc::clone(&worker);
                let event = updated(&format!("r{number}"), 2, text_content("two"));
                tokio::spawn(async move { worker.tries(&event, &cx()).await.map(drop) })
            })
            .collect();
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        // Not in the transaction, where it would be told the same each time.
        let mut watching = direct.connect().await;
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watching).await.unwrap() < 10 {
            tokio::task::yield_now().await;
        }
        network.fall_silent(Silence::Now);
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();

        let begin = Instant::now();
        for run in runs {
            let error = run.await.unwrap().unwrap_err();
            assert!(!error.is_permanent(), "{error}");
            assert_eq!(error.to_string(), "the database did not do its part of a transaction within 15s");
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        soon(&worker, "new").await;
        // The server, too, has given up what it was told nothing more of.
        let again = worker.tries(&updated("r3", 2, text_content("two")), &cx().with_attempt(2)).await.unwrap();
        assert_eq!(tasks(&again).len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_in_the_middle_of_a_long_write_is_replaced() {
    limited(async {
        let server = PostgresServer::shared().await.unwrap();
        let (network, worker, _) = worker_through(server, 1).await;
        worker.takes(&created("r", 1, text_content("one"))).await;
        network.fall_silent(Silence::AfterBytes(1024 * 1024));
        // More than all buffers on the way can take.
        let large = updated("r", 2, text_content(&"many words ".repeat(4_000_000)));
        let context = cx();
        // As `handler_timeout` does it.
        assert!(tokio::time::timeout(Duration::from_secs(3), worker.tries(&large, &context)).await.is_err());
        soon(&worker, "new").await;
        assert_eq!(worker.store.record(&id("r")).await.unwrap().unwrap().revision, Some(1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_lost_while_idle_or_on_their_way_back_are_replaced() {
    limited(async {
        let server = PostgresServer::shared().await.unwrap();
        let (network, worker, _) = worker_through(server, 1).await;
        worker.takes(&created("r", 1, text_content("one"))).await;
        // Committed and answered, and then the pool asks whether it is still well.
        network.fall_silent(Silence::AfterCommit);
        worker.takes(&summarized("r", 1)).await;
        soon(&worker, "after a commit").await;
        network.fall_silent(Silence::Now);
        soon(&worker, "after a pause").await;
        worker.store.close().await;
    })
    .await;
}
