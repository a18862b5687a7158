use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::Once;
use std::time::{Duration, Instant};

use jm_testkit::{HttpResponse, HttpServer};
use reqwest::Client;
use reqwest::multipart::{Form, Part};
use reqwest::redirect::Policy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
const SHORTLY: Duration = Duration::from_millis(200);

/// A client without a proxy, and without patience.
pub(crate) fn client() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    Client::builder().no_proxy().timeout(SOON).redirect(Policy::none()).build().unwrap()
}

async fn connect(server: &HttpServer) -> TcpStream {
    timeout(SOON, TcpStream::connect((Ipv4Addr::LOCALHOST, server.port()))).await.unwrap().unwrap()
}

/// Sends a plain GET and returns what comes until the server closes, as text.
async fn get_raw(server: &HttpServer, path: &str) -> String {
    let mut stream = connect(server).await;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut all = Vec::new();
    timeout(SOON, stream.read_to_end(&mut all)).await.unwrap().unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_route_sees_the_whole_request_and_its_answer_arrives_whole() {
    let server = HttpServer::start().await.unwrap();
    server.on("POST", "/a/b", |request| {
        let seen = format!("{} {:?} {}", request.method, request.query, request.json()["n"]);
        HttpResponse::bytes("text/plain", seen).header("x-one", "1").header("x-one", "2")
    });
    let client = client();
    let request = client.post(server.url("/a/b?q=%20")).header("X-Key", "k").body(r#"{"n": 7}"#);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain");
    assert_eq!(answer.headers().get_all("x-one").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(answer.text().await.unwrap(), r#"POST Some("q=%20") 7"#);
    // Another method, another path: no route, and recorded all the same.
    assert_eq!(client.get(server.url("a/b")).send().await.unwrap().status(), 404);
    assert_eq!(client.post(server.url("/a/b/")).send().await.unwrap().status(), 404);
    let requests = server.requests();
    let lines: Vec<_> = requests.iter().map(|request| format!("{} {}", request.method, request.path)).collect();
    assert_eq!(lines, ["POST /a/b", "GET /a/b", "POST /a/b/"]);
    assert_eq!(requests[0].header("x-KEY"), Some("k"));
    assert_eq!(requests[0].body, r#"{"n": 7}"#);
    assert_eq!((requests[1].json(), requests[1].form().len()), (serde_json::Value::Null, 0));
    server.on("GET", "/a/b", |_| HttpResponse::status(204));
    let answer = client.get(server.url("a/b")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().get("content-length")), (204, None));
    server.on("GET", "/a/b", |_| HttpResponse::json(503, serde_json::json!({"error": "later"})));
    let answer = client.get(server.url("a/b")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (503, r#"{"error":"later"}"#.to_owned()));
}

#[tokio::test]
async fn secrets_of_a_request_are_not_in_its_debug_output() {
    let server = HttpServer::start().await.unwrap();
    let form = Form::new().text("prompt", "canary-1");
    let request = client().post(server.url("/?key=canary-2")).bearer_auth("canary-3").multipart(form);
    request.send().await.unwrap();
    let request = server.requests().remove(0);
    assert_eq!(request.form()[0].body, "canary-1");
    let shown = format!("{request:?} {:?} {server:?}", request.form());
    assert!(shown.contains("authorization") && !shown.contains("canary"), "{shown}");
    let response = HttpResponse::bytes("text/plain", "canary").header("x", "canary");
    assert!(!format!("{response:?}").contains("canary"));
}

#[tokio::test]
async fn the_fields_of_a_form_are_read_with_names_types_and_bytes() {
    let server = HttpServer::start().await.unwrap();
    let sound = vec![0_u8, 255, 13, 10, 45, 45];
    let file = Part::bytes(sound.clone()).file_name("a note.wav").mime_str("audio/wav").unwrap();
    let form = Form::new().text("model", "whisper-1").part("file", file).text("model", "again");
    client().post(server.url("/form")).multipart(form).send().await.unwrap();
    let fields = server.requests()[0].form();
    let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["model", "file", "model"]);
    assert_eq!((fields[0].body.as_ref(), &fields[0].file_name), (&b"whisper-1"[..], &None));
    assert_eq!(fields[1].body, sound);
    assert_eq!(fields[1].file_name.as_deref(), Some("a note.wav"));
    assert_eq!(fields[1].content_type.as_deref(), Some("audio/wav"));
}

#[tokio::test]
async fn a_broken_form_has_no_fields() {
    let server = HttpServer::start().await.unwrap();
    let request = client().post(server.url("/")).header("content-type", "multipart/form-data; boundary=x");
    request.body("--x\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nno end").send().await.unwrap();
    assert_eq!(server.requests()[0].form().len(), 0);
}

#[tokio::test]
async fn connections_are_counted_also_those_that_say_nothing() {
    let server = HttpServer::start().await.unwrap();
    assert_eq!(server.connections(), 0);
    let mut streams = Vec::new();
    for count in 1..=20 {
        streams.push(connect(&server).await);
        assert_eq!(server.connections(), count);
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn requests_are_waited_for_and_missed_after_the_limit() {
    let server = HttpServer::start().await.unwrap();
    let send = async {
        client().get(server.url("/1")).send().await.unwrap();
        client().get(server.url("/2")).send().await.unwrap();
    };
    let (requests, ()) = tokio::join!(server.wait_for_requests(2, SOON), send);
    assert_eq!(requests.unwrap().len(), 2);
    let error = server.wait_for_requests(3, SHORTLY).await.unwrap_err().to_string();
    assert!(error.contains("3 requests") && error.contains("there were 2"), "{error}");
}

#[tokio::test]
async fn a_redirect_names_its_target_as_it_is() {
    let server = HttpServer::start().await.unwrap();
    server.on("GET", "/", |_| HttpResponse::redirect(307, "http://169.254.169.254/latest?a=b"));
    let answer = client().get(server.url("/")).send().await.unwrap();
    assert_eq!(answer.status(), 307);
    assert_eq!(answer.headers()["location"], "http://169.254.169.254/latest?a=b");
}

#[tokio::test]
async fn an_answer_comes_after_its_delay_and_others_do_not_wait_for_it() {
    let server = HttpServer::start().await.unwrap();
    server.on("GET", "/late", |_| HttpResponse::status(200).after(Duration::from_millis(300)));
    server.on("GET", "/", |_| HttpResponse::status(200));
    let client = client();
    let begin = Instant::now();
    let late = async {
        client.get(server.url("/late")).send().await.unwrap();
        begin.elapsed()
    };
    let prompt = async {
        server.wait_for_requests(1, SOON).await.unwrap();
        client.get(server.url("/")).send().await.unwrap();
        begin.elapsed()
    };
    let (late, prompt) = tokio::join!(late, prompt);
    assert!(late >= Duration::from_millis(300) && prompt < late, "{late:?} {prompt:?}");
}

#[tokio::test]
async fn a_request_can_stay_without_an_answer() {
    let server = HttpServer::start().await.unwrap();
    server.on("GET", "/", |_| HttpResponse::never());
    let mut stream = connect(&server).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.wait_for_requests(1, SOON).await.unwrap();
    assert!(timeout(SHORTLY, stream.read(&mut [0; 1])).await.is_err());
    drop(server);
    // It ended with its connections.
    let ended = timeout(SOON, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(&ended, Ok(0)) || ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn an_endless_answer_goes_on_as_long_as_one_reads() {
    let server = HttpServer::start().await.unwrap();
    server.on("GET", "/", |_| HttpResponse::endless("text/plain", "0123456789"));
    server.on("GET", "/none", |_| HttpResponse::endless("text/plain", ""));
    let mut answer = client().get(server.url("/")).send().await.unwrap();
    assert_eq!(answer.content_length(), None);
    let mut read = Vec::new();
    while read.len() < 20_000_000 {
        read.extend_from_slice(&answer.chunk().await.unwrap().unwrap());
    }
    assert!(read.iter().zip(b"0123456789".iter().cycle()).all(|(byte, digit)| byte == digit));
    // The server is free for others meanwhile, and an endless nothing is headers and silence.
    let mut answer = client().get(server.url("/none")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(timeout(SHORTLY, answer.chunk()).await.is_err());
}

#[tokio::test]
async fn a_slow_answer_comes_in_drips_of_the_size_given() {
    let server = HttpServer::start().await.unwrap();
    let pause = Duration::from_millis(60);
    server.on("GET", "/", move |_| HttpResponse::bytes("text/plain", "abcdefgh").slowly(3, pause));
    let begin = Instant::now();
    let mut answer = client().get(server.url("/")).send().await.unwrap();
    assert_eq!(answer.content_length(), Some(8));
    let mut drips = Vec::new();
    while let Some(drip) = answer.chunk().await.unwrap() {
        drips.push(drip);
    }
    assert_eq!(drips.concat(), b"abcdefgh");
    assert_eq!(drips[0], "abc");
    assert!(begin.elapsed() >= pause * 2, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_cut_answer_announces_all_and_sends_exactly_so_much() {
    let server = HttpServer::start().await.unwrap();
    for cut in [0, 4, 9] {
        server.on("GET", "/", move |_| HttpResponse::bytes("text/plain", "0123456789").cut_after(cut));
        let answer = get_raw(&server, "/").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 10"), "{head}");
        assert_eq!(body, &"0123456789"[..cut]);
    }
    // As a client sees it.
    let failed = client().get(server.url("/")).send().await.unwrap().bytes().await;
    assert!(failed.is_err());
    // A cut behind the end is none.
    server.on("GET", "/", |_| HttpResponse::bytes("text/plain", "0123456789").cut_after(10));
    assert_eq!(client().get(server.url("/")).send().await.unwrap().text().await.unwrap(), "0123456789");
}

#[tokio::test]
async fn a_large_answer_is_cut_after_exactly_so_much_too() {
    let server = HttpServer::start().await.unwrap();
    let cut = 5_000_001;
    server.on("GET", "/", move |_| HttpResponse::bytes("text/plain", vec![b'x'; 8_000_000]).cut_after(cut));
    let answer = get_raw(&server, "/").await;
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), cut);
    let drip = Duration::from_millis(1);
    server.on("GET", "/", move |_| HttpResponse::bytes("text/plain", "0123456789").slowly(2, drip).cut_after(5));
    assert!(get_raw(&server, "/").await.ends_with("\r\n\r\n01234"));
}

#[tokio::test]
async fn a_body_over_64_mib_is_answered_413() {
    let server = HttpServer::start().await.unwrap();
    server.on("POST", "/", |request| HttpResponse::bytes("text/plain", request.body.len().to_string()));
    let limit = 64 * 1024 * 1024;
    let client = client();
    let answer = client.post(server.url("/")).body(vec![0; limit]).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), limit.to_string());
    let answer = client.post(server.url("/")).body(vec![0; limit + 1]).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    assert!(server.requests()[1].body.is_empty());
}

#[tokio::test]
async fn a_stopped_server_refuses_and_another_takes_its_port() {
    let server = HttpServer::start().await.unwrap();
    let port = server.port();
    let kept = client();
    assert_eq!(kept.get(server.url("/")).send().await.unwrap().status(), 404);
    drop(server);
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let again = HttpServer::start_on((Ipv4Addr::LOCALHOST, port).into()).await.unwrap();
    assert_eq!(kept.get(again.url("/")).send().await.unwrap().status(), 404);
    let taken = HttpServer::start_on((Ipv4Addr::LOCALHOST, port).into()).await.unwrap_err();
    assert!(format!("{taken:#}").contains(&port.to_string()), "{taken:#}");
}

#[tokio::test]
async fn a_server_listens_on_ipv6_and_on_nothing_others_reach() {
    let server = HttpServer::start_on("[::1]:0".parse().unwrap()).await.unwrap();
    assert_eq!(server.url("/x"), format!("http://[::1]:{}/x", server.port()));
    assert_eq!(client().get(server.url("/")).send().await.unwrap().status(), 404);
    assert!(HttpServer::start_on("0.0.0.0:0".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn an_answer_http_does_not_know_is_a_500_that_says_so() {
    let server = HttpServer::start().await.unwrap();
    server.on("GET", "/", |_| HttpResponse::status(200).header("no name", "x"));
    let answer = client().get(server.url("/")).send().await.unwrap();
    assert_eq!(answer.status(), 500);
    assert!(answer.text().await.unwrap().contains("status or header"));
}

#[tokio::test]
async fn urls_have_one_slash_before_the_path() {
    let server = HttpServer::start().await.unwrap();
    let base = format!("http://127.0.0.1:{}", server.port());
    assert_eq!(server.url(""), base);
    assert_eq!((server.url("/a"), server.url("a")), (format!("{base}/a"), format!("{base}/a")));
}
