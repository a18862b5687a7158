use std::{fs, path::Path, time::Duration};

use jm_mq_core::{BrokerOptions, ConsumerOptions, ExchangeKind, PublisherOptions, Topology};

use secrecy::ExposeSecret;

use super::*;
use crate::NoSettings;

const WORKER: Worker = Worker {
    name: "test-worker",
    about: "Tests",
    version: "1.2.3",
    queue: "jm.test",
    types: &["note.test"],
    answers_to: &[],
    defaults: "consumer: { prefetch_per_worker: 1 }",
};

fn load(folder: Option<&Path>, environment: &[(&str, &str)]) -> Result<Configuration<NoSettings>, Vec<String>> {
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    let loaded = Configuration::load(&WORKER, folder, environment);
    loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn problems(folder: Option<&Path>, environment: &[(&str, &str)]) -> Vec<String> {
    load(folder, environment).err().expect("mistakes should be found")
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn the_shipped_defaults_are_the_librarys() {
    let bare = Worker { defaults: "", ..WORKER };
    let Ok(Configuration { common, .. }) = Configuration::<NoSettings>::load(&bare, None, []) else {
        panic!("the defaults are wrong")
    };
    assert_eq!(common.consumer, ConsumerOptions::default());
    assert_eq!(common.publisher, PublisherOptions::default());
    assert_eq!(common.topology, Topology::work_queue("jm.test"));
    assert_eq!(common.http, HttpOptions::default());
    assert_eq!(common.log, LogOptions::default());
    assert_eq!(format!("{:?}", common.sentry), format!("{:?}", SentryOptions::default()));
    let broker = BrokerOptions { app_id: "test-worker".into(), ..BrokerOptions::default() };
    assert_eq!(format!("{:?}", common.rabbitmq), format!("{broker:?}"));
    assert_eq!(common.rabbitmq.password.expose_secret(), broker.password.expose_secret());
}

#[test]
fn the_specifications_block_works_as_it_stands() {
    let block = r#"
rabbitmq:
  host: "rabbitmq.example.com"
  port: "5672"
  name: "username"
  password: "password"
  vhost: "/"
"#;
    let folder = folder(&[("default.yaml", block)]);
    let common = load(Some(folder.path()), &[]).map_err(|problems| problems.join("\n")).unwrap().common;
    assert_eq!((common.rabbitmq.host.as_str(), common.rabbitmq.port.unwrap().0), ("rabbitmq.example.com", 5672));
    assert_eq!(common.rabbitmq.password.expose_secret(), "password");
}

#[test]
fn the_workers_file_wins_over_the_shared_one_and_the_environment_over_both() {
    let folder = folder(&[
        ("default.yaml", "consumer: { concurrency: 2, prefetch_per_worker: 3, max_retry_attempts: 4 }"),
        ("test-worker.yaml", "consumer: { prefetch_per_worker: 5, max_retry_attempts: 6 }"),
    ]);
    let variables = [
        ("JM_CONSUMER__MAX_RETRY_ATTEMPTS", "7"),
        ("JM_CONSUMER__NACK_REQUEUE", "false"),
        ("JM_CONSUMER__HANDLER_TIMEOUT", "90s"),
        ("JM_CONSUMER__EXCHANGE_KIND", "topic"),
        ("JM_RABBITMQ__PASSWORD", "12345"),
        ("JM_HTTP__LISTEN", "127.0.0.1:9191"),
    ];
    let common = load(Some(folder.path()), &variables).map_err(|problems| problems.join("\n")).unwrap().common;
    let consumer = common.consumer;
    assert_eq!((consumer.concurrency, consumer.prefetch_per_worker, consumer.max_retry_attempts), (2, 5, 7));
    assert_eq!((consumer.nack_requeue, consumer.handler_timeout), (false, Duration::from_secs(90)));
    assert_eq!(common.topology.exchange_kind, ExchangeKind::Topic);
    assert_eq!(common.rabbitmq.password.expose_secret(), "12345");
    assert_eq!(common.http.listen.to_string(), "127.0.0.1:9191");
    // The worker's built-in file, where no other source says anything.
    assert_eq!(load(None, &[]).map_err(|problems| problems.join("\n")).unwrap().common.consumer.prefetch_per_worker, 1);
}

#[test]
fn a_file_with_the_password_is_remembered_unless_a_password_wins_over_it() {
    let secret = folder(&[("password", "of a file\n")]);
    let file = secret.path().join("password");
    let file = file.to_str().unwrap();
    let of = |yaml: &str, variables: &[(&str, &str)]| {
        let folder = folder(&[("default.yaml", yaml)]);
        let common = load(Some(folder.path()), variables).map_err(|problems| problems.join("\n")).unwrap().common;
        let path = common.rabbitmq.password_file.map(|path| path.to_str().unwrap().to_owned());
        (common.rabbitmq.password.expose_secret().to_owned(), path)
    };
    let from_file = ("of a file".to_owned(), Some(file.to_owned()));
    let named = format!("rabbitmq: {{ password_file: {file} }}");
    assert_eq!(of("", &[("JM_RABBITMQ__PASSWORD_FILE", file)]), from_file);
    assert_eq!(of("rabbitmq: { password: other }", &[("JM_RABBITMQ__PASSWORD_FILE", file)]), from_file);
    assert_eq!(of(&named, &[]), from_file);
    assert_eq!(of(&named, &[("JM_RABBITMQ__PASSWORD", "other")]), ("other".to_owned(), None));

    let wrong = |yaml: &str| problems(Some(folder(&[("default.yaml", yaml)]).path()), &[]).join("; ");
    let both = wrong(&format!("rabbitmq: {{ password: canary, password_file: {file} }}"));
    assert!(both.contains("rabbitmq.password is set as well") && !both.contains("canary"), "{both}");
    let missing = wrong("rabbitmq: { password_file: canary }");
    assert!(missing.contains("there is none (not shown") && !missing.contains("canary"), "{missing}");
}

#[test]
fn an_ipv6_address_is_a_host_in_files_and_in_the_environment_with_and_without_brackets() {
    let host = |yaml: &str, variables: &[(&str, &str)]| {
        let folder = folder(&[("default.yaml", yaml)]);
        load(Some(folder.path()), variables).map_err(|problems| problems.join("\n")).unwrap().common.rabbitmq.host
    };
    for address in ["2001:db8::7", "::1", "[2001:db8::7]", "[::1]", "fe80::1%eth0", "[fe80::1%eth0]"] {
        let bare = |host: String| host.trim_matches(['[', ']']).to_owned();
        let expected = bare(address.to_owned());
        assert_eq!(bare(host("", &[("JM_RABBITMQ__HOST", address)])), expected);
        assert_eq!(bare(host(&format!("rabbitmq: {{ host: \"{address}\" }}"), &[])), expected);
        assert_eq!(bare(host(&format!("rabbitmq:\n  host: {address}\n"), &[])), expected);
    }
    let wrong = problems(None, &[("JM_RABBITMQ__HOST", "[rabbit, other]")]);
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].contains("rabbitmq.host") && wrong[0].contains("the name or address of a host"), "{wrong:?}");
}

#[test]
fn another_queue_takes_exchange_and_key_along_unless_they_are_named() {
    let topology =
        |variables: &[(&str, &str)]| load(None, variables).map_err(|p| p.join("\n")).unwrap().common.topology;
    assert_eq!(topology(&[("JM_CONSUMER__QUEUE", "q")]), Topology::work_queue("q"));
    let named = [("JM_CONSUMER__QUEUE", "q"), ("JM_CONSUMER__EXCHANGE", "e"), ("JM_CONSUMER__ROUTING_KEY", "k")];
    assert_eq!(topology(&named), Topology::new("q", "e", ExchangeKind::Direct, "k"));
}

#[test]
fn every_mistake_is_one_line_with_key_value_source_and_what_is_allowed() {
    let folder = folder(&[(
        "test-worker.yaml",
        "consumer: { concurency: 3, handler_timeout: soon, dead_letter: bin, concurrency: 0 }\nrabbit: { host: x }\nhttp: { listen: 9090 }",
    )]);
    let file = folder.path().join("test-worker.yaml").display().to_string();
    let mut found = problems(
        Some(folder.path()),
        &[
            ("JM_CONSUMER__PREFETCH_PER_WORKER", "many"),
            ("JM_RABBITMQ__PORT", "70000"),
            ("JM_RABBITMQ__HEARTBEAT", "1500ms"),
            ("JM_PUBLISHER__CHANNELS", "0"),
            ("JM_LOG__FORMAT", "xml"),
            ("JM_LOG__LEVEL", "lots=of=noise"),
            ("JM_CONSUMER__RETRY_MAX_DELAY", "10ms"),
        ],
    );
    found.sort();
    let variable = |name: &str| format!("(environment variable {name})");
    let mut expected = [
        format!("consumer.concurency ({file}): unknown key; did you mean `concurrency`?"),
        format!("consumer.concurrency is 0 ({file}); allowed: 1 to 1000"),
        format!("consumer.handler_timeout is \"soon\" ({file}); allowed: a duration such as 500ms, 30s, 5m or 1h 30m"),
        format!("consumer.dead_letter is \"bin\" ({file}); allowed: queue, broker"),
        format!(
            "consumer.prefetch_per_worker is \"many\" {}; allowed: a whole number from 0 to 65535",
            variable("JM_CONSUMER__PREFETCH_PER_WORKER")
        ),
        format!("rabbit ({file}): unknown section; known here: consumer, rabbitmq, publisher, http, log, sentry"),
        format!(
            "rabbitmq.port is \"70000\" {}; allowed: a port from 1 to 65535, as a number or a string",
            variable("JM_RABBITMQ__PORT")
        ),
        format!(
            "rabbitmq.heartbeat is \"1500ms\" {}; allowed: whole seconds, 1 s to 600 s",
            variable("JM_RABBITMQ__HEARTBEAT")
        ),
        format!("publisher.channels is \"0\" {}; allowed: 1 to 1000", variable("JM_PUBLISHER__CHANNELS")),
        format!("log.format is \"xml\" {}; allowed: auto, json, text", variable("JM_LOG__FORMAT")),
        format!(
            "log.level is \"lots=of=noise\" {}; allowed: error, warn, info, debug, trace, also by module as in info,jm_mq_core=debug",
            variable("JM_LOG__LEVEL")
        ),
        format!("http.listen is 9090 ({file}); allowed: an IP address and a port, such as 0.0.0.0:9090 or [::]:9090"),
        "consumer.retry_base_delay is \"1s\" (built-in default.yaml); allowed: at most retry_max_delay, which is 10ms"
            .into(),
    ];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_section_without_keys_says_nothing_and_one_that_is_no_mapping_is_a_mistake() {
    let emptied = folder(&[("default.yaml", "consumer:\n  # concurrency: 3\nrabbitmq: { tls: ~, name: me }")]);
    let common = load(Some(emptied.path()), &[]).map_err(|problems| problems.join("\n")).unwrap().common;
    assert_eq!((common.consumer.prefetch_per_worker, common.rabbitmq.name.as_str()), (1, "me"));
    let wrong = folder(&[("test-worker.yaml", "consumer: 5\nrabbitmq: [canary]\nhttp: \"\"")]);
    let file = wrong.path().join("test-worker.yaml").display().to_string();
    let found = problems(Some(wrong.path()), &[]);
    assert_eq!(found[0], format!("consumer ({file}): allowed: a mapping of keys to values"));
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn mistakes_below_dotted_names_and_in_lists_hide_no_others() {
    let aliases =
        "consumer: { type_aliases: { note.summary: 5, note.other: none.such, note.right: note.test }, concurrency: 0 }";
    let folder = folder(&[("default.yaml", aliases)]);
    let file = folder.path().join("default.yaml").display().to_string();
    let variables = [("JM_RABBITMQ__HOSTS", "[{host: b, prt: 1}]"), ("JM_RABBITMQ__HEARTBEAT", "0s")];
    let mut found = problems(Some(folder.path()), &variables);
    found.sort();
    assert_eq!(
        found,
        [
            format!("consumer.concurrency is 0 ({file}); allowed: 1 to 1000"),
            format!("consumer.type_aliases.note.other is \"none.such\" ({file}); allowed: note.test"),
            format!("consumer.type_aliases.note.summary is 5 ({file}); allowed: a string; put it in quotes"),
            "rabbitmq.heartbeat is \"0s\" (environment variable JM_RABBITMQ__HEARTBEAT); allowed: whole seconds, 1 s to 600 s".into(),
            "rabbitmq.hosts.0.prt (environment variable JM_RABBITMQ__HOSTS): unknown key; did you mean `port`?".into(),
        ]
    );
}

#[test]
fn no_secret_is_in_a_mistake_or_in_the_printed_configuration() {
    let folder = folder(&[("default.yaml", "rabbitmq: { password: 123456789 }\nsentry: { dsn: [canary] }")]);
    let found = problems(Some(folder.path()), &[("JM_RABBITMQ__PASSWRD", "canary"), ("JM_SENTRY__ENVIRONMENT", "x")]);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|line| !line.contains("123456789") && !line.contains("canary")), "{found:?}");

    let variables = [("JM_RABBITMQ__PASSWORD", "canary"), ("JM_SENTRY__DSN", "https://canary@sentry.example.com/1")];
    let loaded = load(None, &variables).map_err(|problems| problems.join("\n")).unwrap();
    let printed = loaded.printed();
    assert!(printed.contains("password: \"***\"") && printed.contains("# environment variable JM_RABBITMQ__PASSWORD"));
    assert!(printed.contains("# built-in default.yaml") && !printed.contains("canary"), "{printed}");
    let reread: figment::value::Dict = serde_saphyr::from_str(printed).unwrap();
    assert!(reread.contains_key("consumer"));
}

#[test]
fn an_engines_key_does_not_belong_into_a_configuration_file() {
    let folder = folder(&[(
        "default.yaml",
        "engine: { api_key: canary, request: { headers: { api-key: canary } } }\naudio: { s3: { secret_access_key: canary } }",
    )]);
    let found = problems(Some(folder.path()), &[]);
    let file = folder.path().join("default.yaml").display().to_string();
    let expected = |key: &str, variable: &str| {
        format!("{key} ({file}): not in a configuration file; set {variable}, or {variable}_FILE to a file with it")
    };
    assert!(found.contains(&expected("engine.api_key", "JM_ENGINE__API_KEY")), "{found:?}");
    let headers = "JM_ENGINE__REQUEST__HEADERS__<NAME>";
    assert!(found.contains(&expected("engine.request.headers", headers)), "{found:?}");
    assert!(found.contains(&expected("audio.s3.secret_access_key", "JM_AUDIO__S3__SECRET_ACCESS_KEY")), "{found:?}");
    assert!(!found.join(" ").contains("canary"), "{found:?}");
}

#[test]
fn a_source_that_cannot_be_read_is_named() {
    let folder = folder(&[("default.yaml", "a: [1"), ("test-worker.yaml", "just text")]);
    let found = problems(Some(folder.path()), &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("default.yaml: not YAML: line "), "{found:?}");
    assert!(found[1].contains("test-worker.yaml: not YAML: line 1"), "{found:?}");
    assert_eq!(problems(Some(Path::new("/no/such")), &[]), ["--config: `/no/such` is not a folder that can be read"]);
    assert_eq!(
        problems(None, &[("JM_CONFIG", "/no/such")]),
        ["JM_CONFIG: `/no/such` is not a folder that can be read"]
    );
}
