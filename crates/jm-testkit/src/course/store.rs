//! What the store of recordings does wrong.

use std::fs;

use anyhow::Result;

use super::FaultCourse;
use super::engine::echo;
use crate::http::{HttpRequest, HttpResponse};
use crate::recording::record_tone;
use crate::worker::WorkerProcess;

/// Where the task's recording is.
const PATH: &str = "/notes/a.wav";
const SECONDS: u32 = 2;

impl FaultCourse {
    pub(super) fn serve_recording(&self) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("a.wav");
        record_tone(&file, SECONDS)?;
        let recording = fs::read(&file)?;
        self.store.on("GET", PATH, move |_| HttpResponse::bytes("audio/wav", recording.clone()));
        Ok(())
    }

    /// It refuses, breaks, and tells its client the client's own headers.
    pub async fn store_faults(&mut self, worker: &WorkerProcess) -> Result<()> {
        for code in [401, 403, 404, 500, 200, 301] {
            self.store.on("GET", PATH, move |request: &HttpRequest| echo(code, &format!("{:?}", request.headers)));
            self.send("from the store").await?;
            self.take_dead(&format!("a {code} of the store")).await?;
        }
        let (key, token) = (self.secrets.key.value().to_owned(), self.secrets.token.value().to_owned());
        self.store.on("GET", PATH, move |_| {
            let said = format!("<Error><Code>SignatureDoesNotMatch</Code><Message>{key} {token}</Message></Error>");
            HttpResponse::bytes("application/xml", said).with_status(403)
        });
        self.send("from the store").await?;
        self.take_dead("the store's own words").await?;
        self.search.pages("the worker", worker).await
    }
}
