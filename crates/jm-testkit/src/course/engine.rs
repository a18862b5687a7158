//! What an engine does wrong: it refuses, breaks, is slow or away, and tells its client the client's own key.

use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::{FaultCourse, LIMIT};
use crate::http::{HttpRequest, HttpResponse};
use crate::worker::WorkerProcess;

/// Long enough for a fault of the broker's between question and answer.
const UNDER_WAY: Duration = Duration::from_millis(400);

impl FaultCourse {
    /// All of them; none for a worker without an engine.
    pub async fn engine_faults(&mut self, worker: &WorkerProcess) -> Result<()> {
        let Some(path) = self.subject.engine else { return Ok(()) };
        self.broker_lost_during_a_run(worker).await?;
        self.engine_link_faults(worker).await?;
        for (what, answer) in answers(self.secrets.api_key.value()) {
            self.engine.http().on("POST", path, answer);
            self.send(what).await?;
            self.take_dead(what).await?;
        }
        self.search.pages("the worker", worker).await
    }

    /// The handler's result is kept and answered when the broker is back.
    async fn broker_lost_during_a_run(&mut self, worker: &WorkerProcess) -> Result<()> {
        let asked = self.engine.http().requests().len();
        self.engine_link.delay(Some(UNDER_WAY));
        self.send("under way").await?;
        self.engine.http().wait_for_requests(asked + 1, LIMIT).await?;
        self.broker.cut();
        self.take(self.subject.answers, "an answer after a lost connection").await?;
        self.engine_link.delay(None);
        self.search.pages("the worker after a lost connection", worker).await?;
        worker.wait_ready(LIMIT).await
    }

    async fn engine_link_faults(&mut self, worker: &WorkerProcess) -> Result<()> {
        // In the middle of a request, whose next try goes well.
        self.engine_link.reset_after(60);
        self.send("reset").await?;
        self.take(self.subject.answers, "an answer after a reset").await?;
        self.engine_link.refuse(true);
        self.engine_link.cut();
        self.send("refused").await?;
        self.take_dead("an engine that is away").await?;
        self.search.pages("the worker without its engine", worker).await?;
        self.engine_link.heal();
        Ok(())
    }
}

type Answer = Box<dyn Fn(&HttpRequest) -> HttpResponse + Send + Sync>;

/// Wrong answers, nearly all with the key or a part of it.
fn answers(key: &str) -> Vec<(&'static str, Answer)> {
    let mut answers: Vec<(&'static str, Answer)> = Vec::new();
    for (what, code) in [
        ("a 401", 401),
        ("a 403", 403),
        ("a 418", 418),
        ("a 500", 500),
        ("a 503", 503),
        ("a 200 of another shape", 200),
    ] {
        answers.push((what, Box::new(move |request| echo(code, &format!("{:?}", request.headers)))));
    }
    let core: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let hexadecimal = core.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    // Short enough, and of the right letters, for the name of an error.
    for (what, said) in [
        ("a piece of the key", core[4..18].to_owned()),
        ("a piece of the key among words", format!("invalid_api_key.{}", &core[..16])),
        ("the key with its scheme", format!("Bearer.{core}")),
        ("the key in lower case", core.to_lowercase()),
        ("the key in base64", URL_SAFE_NO_PAD.encode(key)),
        ("the header in base64", URL_SAFE_NO_PAD.encode(format!("Bearer {core}"))),
        ("the key in hexadecimal digits", hexadecimal),
    ] {
        answers.push((what, Box::new(move |_| echo(401, &said))));
    }
    let quoted = format!("{key} {}", STANDARD.encode(key));
    let page = quoted.clone();
    answers.push(("a page", Box::new(move |_| HttpResponse::bytes("text/html", page.clone()).with_status(502))));
    let garbage = quoted.clone();
    answers.push(("garbage", Box::new(move |_| HttpResponse::bytes("application/json", garbage.clone()))));
    let half = quoted.clone();
    answers
        .push(("a cut answer", Box::new(move |_| HttpResponse::bytes("application/json", half.clone()).cut_after(60))));
    let header = key.to_owned();
    let headers = move |_: &HttpRequest| {
        HttpResponse::status(503).header("retry-after", &header).header("www-authenticate", format!("Bearer {header}"))
    };
    answers.push(("headers", Box::new(headers)));
    let back = format!("http://u:{core}@127.0.0.1/");
    answers.push(("a redirect", Box::new(move |_| HttpResponse::redirect(307, &back))));
    answers.push(("no end", Box::new(move |_| HttpResponse::endless("application/json", quoted.clone()))));
    answers.push(("no answer", Box::new(|_| HttpResponse::never())));
    answers
}

/// An error of the API's shape that says this in each of its places.
pub(super) fn echo(code: u16, said: &str) -> HttpResponse {
    HttpResponse::json(code, json!({ "error": { "message": said, "code": said, "type": said, "param": said } }))
}
