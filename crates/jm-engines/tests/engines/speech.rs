use std::time::Duration;

use jm_engines::{EngineOptions, ErrorClass, TranscriptionHints, audio::Audio};
use jm_testkit::{HttpRequest, HttpResponse, HttpServer};
use serde_json::json;

use crate::{call, options};

const PATH: &str = "/v1/audio/transcriptions";

fn audio(seconds: usize) -> Audio {
    Audio::from_samples((0..seconds * 16_000).map(|n| (n % 100) as i16).collect::<Vec<_>>())
}

fn fields(request: &HttpRequest) -> Vec<(String, String)> {
    let text = request.form().into_iter().filter(|field| field.file_name.is_none());
    text.map(|field| (field.name, String::from_utf8_lossy(&field.body).into_owned())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn a_recording_is_sent_as_wav_with_its_hints_and_segments_come_back() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |_| {
        HttpResponse::json(
            200,
            json!({"task": "transcribe", "language": "german", "duration": 2.0, "text": "Guten Tag.", "segments": [
                {"id": 0, "start": 0.0, "end": 1.5, "text": " Guten"}, {"id": 1, "start": 1.5, "end": 2.4, "text": " Tag."}
            ]}),
        )
    });
    let hints = TranscriptionHints { language: Some("de-AT".into()), prompt: Some("ä".repeat(300)) };
    let answer = options(&server).transcription()?.transcribe(&audio(2), &hints, &call()).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.language.as_deref()), ("Guten Tag.", Some("german")));
    let segments: Vec<_> = answer.segments.iter().map(|one| (one.start, one.end, one.text.as_str())).collect();
    assert_eq!(segments, [(0.0, 1.5, "Guten"), (1.5, 2.0, "Tag.")]);
    assert_eq!(answer.model, "the-model");

    let sent = &server.requests()[0];
    let prompt = "ä".repeat(200);
    let expected = [
        ("model", "the-model"),
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "segment"),
        ("temperature", "0"),
        ("language", "de"),
        ("prompt", prompt.as_str()),
    ];
    assert_eq!(fields(sent), pairs(&expected));
    let file = &sent.form()[0];
    assert_eq!((file.name.as_str(), file.file_name.as_deref()), ("file", Some("audio.wav")));
    assert_eq!(file.content_type.as_deref(), Some("audio/wav"));
    assert_eq!(file.body, audio(2).to_wav());
    // Some servers refuse a body whose length is not announced.
    assert_eq!(sent.header("content-length").unwrap(), sent.body.len().to_string());
    Ok(())
}

#[tokio::test]
async fn a_server_that_gives_no_segments_gets_one_made_and_silence_has_none() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    for (answer, segments) in [
        (json!({"text": " Hello "}), vec![(0.0, 2.0, "Hello".to_owned())]),
        (json!({"text": ""}), vec![]),
        (json!({"text": "", "segments": [{"start": 0, "end": 1, "text": " "}]}), vec![]),
    ] {
        server.on("POST", PATH, move |_| HttpResponse::json(200, answer.clone()));
        let hints = TranscriptionHints::default();
        let answer = options(&server).transcription()?.transcribe(&audio(2), &hints, &call()).await.unwrap();
        let found: Vec<_> = answer.segments.into_iter().map(|one| (one.start, one.end, one.text)).collect();
        assert_eq!((found, answer.language), (segments, None));
    }
    let sent = fields(&server.requests()[0]);
    assert!(!sent.iter().any(|(name, _)| name == "language" || name == "prompt"), "{sent:?}");

    server.on("POST", PATH, |_| HttpResponse::json(200, json!({"language": "en"})));
    let answer = options(&server).transcription()?.transcribe(&audio(2), &<_>::default(), &call()).await;
    assert_eq!(answer.unwrap_err().class(), ErrorClass::Retryable);
    Ok(())
}

#[tokio::test]
async fn the_longest_piece_is_what_may_be_uploaded_or_configured() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let ten = options(&server).transcription()?;
    assert_eq!(ten.max_piece(), Duration::from_mins(10));
    let upload = EngineOptions { max_upload_bytes: 96_044, ..options(&server) };
    let three = upload.transcription()?;
    assert_eq!(three.max_piece(), Duration::from_secs(3));
    // A piece of just that length is sent; a longer one is the caller's mistake.
    server.on("POST", PATH, |_| HttpResponse::json(200, json!({"text": "ok"})));
    three.transcribe(&audio(3), &<_>::default(), &call()).await.unwrap();
    let error = three.transcribe(&audio(4), &<_>::default(), &call()).await.unwrap_err();
    assert_eq!((error.class(), server.requests().len()), (ErrorClass::Permanent, 1));
    Ok(())
}

#[tokio::test]
async fn a_moment_of_sound_is_sent_with_silence_at_its_end() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |_| HttpResponse::json(200, json!({"text": "ok", "segments": []})));
    let engine = options(&server).transcription()?;
    for (given, sent) in [(400, 1600), (1599, 1600), (1600, 1600), (1601, 1601)] {
        let audio = Audio::from_samples(vec![5; given]);
        let answer = engine.transcribe(&audio, &<_>::default(), &call()).await.unwrap();
        let mut expected = vec![5; given];
        expected.resize(sent, 0);
        let file = server.requests().last().unwrap().form()[0].body.clone();
        assert_eq!(file, Audio::from_samples(expected).to_wav());
        // Times are those of the sound.
        assert!(answer.segments[0].end <= audio.duration().as_secs_f64());
    }
    Ok(())
}

#[tokio::test]
async fn speakers_are_told_apart_and_short_pauses_do_not_end_a_turn() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    server.on("POST", PATH, |_| {
        HttpResponse::json(
            200,
            json!({"task": "transcribe", "duration": 4.0, "text": "…", "segments": [
                {"type": "transcript.text.segment", "id": "1", "start": 0.0, "end": 1.0, "text": "a", "speaker": "A"},
                {"type": "transcript.text.segment", "id": "2", "start": 1.3, "end": 2.0, "text": "b", "speaker": "A"},
                {"type": "transcript.text.segment", "id": "3", "start": 2.0, "end": 9.0, "text": "c", "speaker": "B"}
            ]}),
        )
    });
    let answer = options(&server).diarization()?.diarize(&audio(4), Some(2), &call()).await.unwrap();
    let turns: Vec<_> = answer.turns.iter().map(|turn| (turn.start, turn.end, turn.speaker.as_str())).collect();
    assert_eq!(turns, [(0.0, 2.0, "A"), (2.0, 4.0, "B")]);
    assert_eq!(answer.model, "the-model");
    let sent = &server.requests()[0];
    let expected = [("model", "the-model"), ("response_format", "diarized_json"), ("chunking_strategy", "auto")];
    assert_eq!(fields(sent), pairs(&expected));
    assert_eq!(sent.form()[0].body, audio(4).to_wav());
    Ok(())
}

#[tokio::test]
async fn a_recording_too_large_to_diarize_is_permanent_and_not_sent() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    let options = EngineOptions { max_upload_bytes: 96_044, ..options(&server) };
    let error = options.diarization()?.diarize(&audio(5), None, &call()).await.unwrap_err();
    assert_eq!((error.class(), server.connections()), (ErrorClass::Permanent, 0));
    let text = "a recording of 5s is 160044 bytes as WAV; `max_upload_bytes` of 96044 allows 3s";
    assert_eq!(error.to_string(), text);
    Ok(())
}

#[tokio::test]
async fn segments_without_speakers_are_retried() -> anyhow::Result<()> {
    let server = HttpServer::start().await?;
    for answer in [json!({"text": "a"}), json!({"segments": [{"start": 0, "end": 1, "text": "a"}]})] {
        server.on("POST", PATH, move |_| HttpResponse::json(200, answer.clone()));
        let error = options(&server).diarization()?.diarize(&audio(2), None, &call()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Retryable, "{error}");
    }
    Ok(())
}
