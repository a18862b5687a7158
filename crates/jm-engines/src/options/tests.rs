//! Options that are read, refused and shown.

use super::*;

type Change = fn(&mut EngineOptions);

fn right() -> EngineOptions {
    EngineOptions { base_url: "http://127.0.0.1:1".into(), model: "m".into(), ..EngineOptions::default() }
}

fn rejected(change: impl FnOnce(&mut EngineOptions)) -> String {
    let mut options = right();
    change(&mut options);
    options.validate().unwrap_err().to_string()
}

#[test]
fn a_key_that_cannot_be_a_header_is_a_mistake_that_does_not_show_it() {
    let options = EngineOptions { api_key: Some("canary\u{1}".into()), ..right() };
    let error = options.validate().unwrap_err().to_string();
    assert_eq!(error, "option `api_key` is not shown; allowed: printable ASCII characters");
    assert!(EngineOptions { api_key: Some("sk-~ 1".into()), ..right() }.validate().is_ok());
}

#[test]
fn every_option_out_of_range_is_an_error_that_names_option_value_and_range() {
    right().validate().unwrap();
    assert_eq!(rejected(|o| o.batch_size = 0), "option `batch_size` is 0; allowed: 1 to 2048");
    assert_eq!(
        rejected(|o| (o.context_tokens, o.max_output_tokens) = (1024, 1024)),
        "option `max_output_tokens` is 1024; allowed: 1 to 512, half of `context_tokens`"
    );
    let mut least = right();
    (least.context_tokens, least.max_output_tokens) = (512, 256);
    least.validate().unwrap();
    let named: [(&str, Change); 15] = [
        ("base_url", |o| o.base_url.clear()),
        ("model", |o| o.model.clear()),
        ("timeout", |o| o.timeout = Duration::ZERO),
        ("timeout", |o| o.timeout = Duration::from_hours(25)),
        ("max_piece", |o| o.max_piece = Duration::from_millis(999)),
        ("max_response_bytes", |o| o.max_response_bytes = 0),
        ("max_upload_bytes", |o| o.max_upload_bytes = 1000),
        ("context_tokens", |o| o.context_tokens = 0),
        ("context_tokens", |o| (o.context_tokens, o.max_output_tokens) = (511, 1)),
        ("max_output_tokens", |o| o.max_output_tokens = 0),
        ("max_output_tokens", |o| o.max_output_tokens = 4097),
        ("proxy", |o| o.proxy = Some("http://user@proxy:3128".into())),
        ("proxy", |o| o.proxy = Some("proxy:3128".into())),
        ("passage_prefix", |o| o.passage_prefix = "p".repeat(1001)),
        ("query_prefix", |o| o.query_prefix = "q".repeat(1001)),
    ];
    for (option, change) in named {
        let error = rejected(change);
        assert!(error.starts_with(&format!("option `{option}` is ")), "{error}");
    }
}

#[test]
fn options_are_read_with_durations_in_words_and_unknown_keys_are_refused() {
    let options: EngineOptions =
        serde_json::from_str(r#"{"kind": "embedded", "timeout": "1m 30s", "max_piece": "5m"}"#).unwrap();
    assert_eq!(options.kind, EngineKind::Embedded);
    assert_eq!((options.timeout, options.max_piece), (Duration::from_secs(90), Duration::from_mins(5)));
    let error = serde_json::from_str::<EngineOptions>(r#"{"modle": "m"}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `modle`"), "{error}");
}

#[test]
fn no_secret_shows_in_debug_or_in_an_error() {
    let mut options = right();
    options.api_key = Some("sk-canary\n".into());
    options.base_url = "http://canary:canary@host/v1?key=canary".into();
    assert!(!format!("{options:?}").contains("canary"), "{options:?}");
    options.proxy = Some("http://canary:canary@proxy/?canary".into());
    assert!(!format!("{options:?}").contains("canary"), "{options:?}");
    let error = options.validate().unwrap_err();
    assert!(!error.to_string().contains("canary"), "{error}");
    options.base_url = right().base_url;
    let error = options.validate().unwrap_err();
    assert!(error.option == "proxy" && !error.to_string().contains("canary"), "{error}");
    options.proxy = Some(String::new());
    let error = options.chat().err().unwrap();
    assert_eq!(error.option, "api_key");
    assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
}
