//! What all engines have in common, shown by one of them.

use std::{
    net::TcpListener,
    time::{Duration, Instant, SystemTime},
};

use jm_engines::{Call, EngineError, EngineOptions, ErrorClass};
use jm_testkit::{HttpResponse, HttpServer};
use serde_json::json;

use crate::{LIMIT, call, chat::request, options};

const PATH: &str = "/v1/chat/completions";

async fn fails(options: &EngineOptions, call: &Call) -> EngineError {
    let chat = options.chat().unwrap();
    let request = request("canary-prompt");
    tokio::time::timeout(LIMIT, chat.complete(&request, call)).await.unwrap().unwrap_err()
}

#[tokio::test]
async fn a_status_becomes_its_class_and_a_wait_is_what_the_server_asks_for() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let in_a_minute = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(1));
    let wait = |seconds| ErrorClass::RetryAfter(Duration::from_secs(seconds));
    for (status, retry_after, class) in [
        (400, None, ErrorClass::Permanent),
        (404, Some("5"), ErrorClass::Operator),
        (402, None, ErrorClass::Operator),
        (401, None, ErrorClass::Operator),
        (403, None, ErrorClass::Operator),
        (429, None, wait(60)),
        (429, Some("7"), wait(7)),
        (429, Some("86400"), wait(300)),
        (429, Some("whenever"), wait(60)),
        (503, Some("2"), wait(2)),
        (500, None, ErrorClass::Retryable),
    ] {
        server.on("POST", PATH, move |_| {
            let answer = HttpResponse::status(status);
            retry_after.map_or(answer.clone(), |value| answer.header("retry-after", value))
        });
        let error = fails(&options(&server), &call()).await;
        assert_eq!(error.class(), class, "{status} {retry_after:?}: {error}");
    }
    server.on("POST", PATH, move |_| HttpResponse::status(429).header("retry-after", in_a_minute.clone()));
    let ErrorClass::RetryAfter(wait) = fails(&options(&server), &call()).await.class() else { panic!("no wait") };
    assert!((Duration::from_secs(30)..=Duration::from_mins(1)).contains(&wait), "{wait:?}");
    Ok(())
}

#[tokio::test]
async fn an_error_names_request_status_and_code_and_nothing_that_a_server_echoes() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let options = EngineOptions { api_key: Some("sk-canary-key".into()), ..options(&server) };
    let error = json!({"code": "rate_limit_exceeded", "type": "requests", "message": "canary-prompt sk-canary-key"});
    server.on("POST", PATH, move |_| HttpResponse::json(429, json!({ "error": error })));
    let shown = fails(&options, &call()).await.to_string();
    let address = server.url(PATH);
    assert_eq!(shown, format!("POST {address}: 429 Too Many Requests (rate_limit_exceeded, requests)"));

    for canary in ["canary-prompt", "sk-canary-key", "canary", "x canary-prompt x", "Bearer.sk-canary-key"] {
        for status in [400, 429, 500, 200] {
            let error = json!({"code": canary, "type": canary, "param": canary, "message": canary, canary: canary});
            let body = json!({"error": error, "choices": canary, "message": canary, "detail": canary});
            server.on("POST", PATH, move |_| {
                HttpResponse::json(status, body.clone()).header("x-request-id", canary).header("retry-after", canary)
            });
            let error = fails(&options, &call()).await;
            assert!(!format!("{error} {error:?}").contains("canary"), "{status}: {error}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_operators_fault() -> anyhow::Result<()> {
    let (server, elsewhere) = (HttpServer::start().await?, HttpServer::start().await?);
    let target = elsewhere.url(PATH);
    server.on("POST", PATH, move |_| HttpResponse::redirect(307, &target));
    let error = fails(&options(&server), &call()).await;
    assert_eq!((error.class(), elsewhere.connections()), (ErrorClass::Operator, 0), "{error}");
    Ok(())
}

#[tokio::test]
async fn slow_answers_end_at_the_earlier_of_timeout_and_deadline() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let drip = HttpResponse::bytes("application/json", vec![b' '; 10_000]).slowly(1, Duration::from_millis(20));
    for answer in [HttpResponse::never(), drip, HttpResponse::endless("application/json", "")] {
        server.on("POST", PATH, move |_| answer.clone());
        let soon = Duration::from_millis(300);
        let impatient = EngineOptions { timeout: soon, ..options(&server) };
        let hurried = Call { deadline: Some(Instant::now() + soon), ..Call::default() };
        for (options, call) in [(&impatient, call()), (&options(&server), hurried)] {
            let begin = Instant::now();
            let error = fails(options, &call).await;
            assert_eq!(error.class(), ErrorClass::Retryable, "{error}");
            assert!(error.to_string().contains("no answer within"), "{error}");
            assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_error_whose_body_drips_has_the_class_of_its_status_soon() -> anyhow::Result<()> {
    let wait = ErrorClass::RetryAfter(Duration::from_secs(7));
    let drip = HttpResponse::bytes("application/json", vec![b' '; 10_000]).slowly(1, Duration::from_millis(50));
    let never = HttpResponse::endless("application/json", "");
    let large = HttpResponse::endless("application/json", vec![b' '; 8192]);
    let statuses =
        [(400, ErrorClass::Permanent), (401, ErrorClass::Operator), (413, ErrorClass::Permanent), (429, wait)];
    let cases = statuses.into_iter().flat_map(|status| [&drip, &never, &large].map(|answer| (status, answer)));
    let cases = cases.map(async |((status, class), answer)| {
        let server = HttpServer::start().await.unwrap();
        let answer = answer.clone().with_status(status).header("retry-after", "7");
        server.on("POST", PATH, move |_| answer.clone());
        // Much is left of the first one's time, and little of the second one's.
        let short = EngineOptions { timeout: Duration::from_millis(700), ..options(&server) };
        for options in [options(&server), short] {
            let begin = Instant::now();
            let error = fails(&options, &call()).await;
            assert_eq!(error.class(), class, "{status}: {error}");
            assert!(error.to_string().contains(&format!(": {status} ")), "{error}");
            assert!(begin.elapsed() < LIMIT / 2, "{:?}", begin.elapsed());
        }
    });
    futures_util::future::join_all(cases).await;
    Ok(())
}

#[tokio::test]
async fn requests_go_through_the_proxy_that_is_configured() -> anyhow::Result<()> {
    let (server, proxy) = (HttpServer::start().await?, HttpServer::start().await?);
    proxy.on("POST", PATH, |_| HttpResponse::status(418));
    for base_url in ["http://no-such-name.invalid".to_owned(), server.url("")] {
        let options = EngineOptions { base_url, proxy: Some(proxy.url("")), ..options(&server) };
        let error = fails(&options, &call()).await;
        assert!(error.to_string().contains("418"), "{error}");
    }
    assert_eq!(proxy.requests()[0].header("host"), Some("no-such-name.invalid"));
    assert_eq!((proxy.requests().len(), server.connections()), (2, 0));
    Ok(())
}

#[tokio::test]
async fn an_answer_larger_than_allowed_is_not_read_to_its_end() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let options = EngineOptions { max_response_bytes: 100_000, ..options(&server) };
    let announced = HttpResponse::bytes("application/json", vec![b' '; 100_001]);
    for answer in [HttpResponse::endless("application/json", vec![b' '; 8192]), announced] {
        server.on("POST", PATH, move |_| answer.clone());
        let error = fails(&options, &call()).await;
        assert_eq!(error.class(), ErrorClass::Retryable, "{error}");
        assert!(error.to_string().contains("more than 100000 bytes"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn bad_json_a_cut_connection_and_no_server_are_retried() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let cut = HttpResponse::json(200, json!({"choices": [{"message": {"content": "yes"}}]})).cut_after(10);
    for answer in [HttpResponse::bytes("application/json", "{"), HttpResponse::bytes("text/html", "<p>"), cut] {
        server.on("POST", PATH, move |_| answer.clone());
        let error = fails(&options(&server), &call()).await;
        assert_eq!(error.class(), ErrorClass::Retryable, "{error}");
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    for base_url in [format!("http://127.0.0.1:{port}"), "http://no-such-name.invalid".into()] {
        let error = fails(&EngineOptions { base_url, ..options(&server) }, &call()).await;
        assert_eq!(error.class(), ErrorClass::Retryable, "{error}");
    }
    Ok(())
}
