use std::time::Duration;

use jm_testkit::SentryServer;

use crate::http::client;

const SOON: Duration = Duration::from_secs(10);
const SHORTLY: Duration = Duration::from_millis(200);

fn envelope(number: u32) -> String {
    format!("{{\"event_id\":\"e{number}\"}}\n{{\"type\":\"event\"}}\n{{\"message\":\"canary {number}\"}}\n")
}

#[tokio::test]
async fn events_are_waited_for_and_everything_that_arrived_can_be_searched() {
    let server = SentryServer::start().await.unwrap();
    let port = server.http().port();
    assert_eq!(server.dsn("public"), format!("http://public@127.0.0.1:{port}/1"));
    let url = server.http().url("/api/1/envelope/");
    let send = async {
        for number in [1, 2] {
            let request = client().post(&url).header("x-sentry-auth", "Sentry sentry_key=public");
            let answer = request.body(envelope(number)).send().await.unwrap();
            assert_eq!(answer.text().await.unwrap(), format!("{{\"id\":\"e{number}\"}}"));
        }
    };
    let (events, ()) = tokio::join!(server.wait_for_events(2, SOON), send);
    let events = events.unwrap();
    assert_eq!(
        (events.len(), &events[0]["message"], &events[1]["message"]),
        (2, &"canary 1".into(), &"canary 2".into())
    );
    client().get(server.http().url("/elsewhere?secret")).send().await.unwrap();
    let raw: Vec<_> = server.raw().iter().map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect();
    assert_eq!(raw.len(), 3);
    assert!(raw[0].contains("canary 1") && raw[0].contains("sentry_key=public"), "{}", raw[0]);
    assert!(raw[2].starts_with("GET /elsewhere?secret\r\n"), "{}", raw[2]);
    let error = server.wait_for_events(3, SHORTLY).await.unwrap_err().to_string();
    assert!(error.contains("3 events") && error.contains("there were 2"), "{error}");
}

#[tokio::test]
async fn a_silent_server_takes_events_and_never_answers() {
    let server = SentryServer::silent().await.unwrap();
    let url = server.http().url("/api/1/envelope/");
    let attempt = async { client().post(url).timeout(SHORTLY).body(envelope(1)).send().await };
    let (events, sent) = tokio::join!(server.wait_for_events(1, SOON), attempt);
    assert_eq!(events.unwrap().len(), 1);
    assert!(sent.unwrap_err().is_timeout());
}
