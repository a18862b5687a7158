//! Arguments, configuration, exit codes.

use std::{fs, net::TcpListener, process::Output};

use crate::support::{LIMIT, worker};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn output(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut builder = worker();
    for argument in arguments {
        builder = builder.arg(argument);
    }
    for (name, value) in environment {
        builder = builder.env(name, value);
    }
    let Output { status, stdout, stderr } = builder.output(LIMIT).await.unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

#[tokio::test]
async fn the_help_teaches_configuration_endpoints_signals_and_exit_codes() {
    let (code, help, _) = output(&["--help"], &[]).await;
    assert_eq!(code, 0);
    for taught in [
        "Greets whoever is named",
        "example.greet",
        "JM_RABBITMQ__HOST",
        "_FILE",
        "/health/ready",
        "--health",
        "SIGTERM",
        "78",
    ] {
        assert!(help.contains(taught), "no {taught} in:\n{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
    let (code, version, _) = output(&["--version"], &[]).await;
    assert_eq!((code, version.as_str()), (0, concat!("greet-worker ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[tokio::test]
async fn an_unknown_argument_is_named_and_ends_with_2() {
    let (code, _, error) = output(&["--chek-config"], &[]).await;
    assert_eq!(code, 2);
    assert!(error.contains("--chek-config") && error.contains("--check-config"), "{error}");
}

#[tokio::test]
async fn a_wrong_configuration_ends_with_78_and_one_line_for_each_mistake() {
    let wrong = [("JM_CONSUMER__PREFETCH_PER_WORKER", "0"), ("JM_GREETING__WORD", "Hi"), ("JM_RABBITMQ_HOST", "x")];
    for arguments in [&[][..], &["--check-config"], &["--print-config"]] {
        let (code, _, error) = output(arguments, &wrong).await;
        assert_eq!(code, 78, "{arguments:?}");
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(
            lines,
            [
                "greet-worker: consumer.prefetch_per_worker is \"0\" (environment variable JM_CONSUMER__PREFETCH_PER_WORKER); allowed: 1 to 65535",
                "greet-worker: greeting.word (environment variable JM_GREETING__WORD): unknown key; did you mean `words`?",
                "greet-worker: environment variable JM_RABBITMQ_HOST: not used; did you mean JM_RABBITMQ__HOST?",
            ]
        );
    }
    // What the broker's client or the router would find out later.
    for (variable, value, said) in [
        ("JM_CONSUMER__TYPE_ALIASES__hello", "nobody.knows", "consumer.type_aliases.hello is \"nobody.knows\""),
        ("JM_CONSUMER__DEAD_LETTER_QUEUE", "example.greet", "consumer.dead_letter_queue is \"example.greet\""),
        ("JM_RABBITMQ__TLS__CA_FILE", "/no/such.pem", "/no/such.pem"),
    ] {
        let (code, _, error) = output(&["--check-config"], &[(variable, value)]).await;
        assert_eq!((code, error.lines().count()), (78, 1), "{error}");
        assert!(error.contains(said), "{error}");
    }
    let (code, said, _) = output(&["--check-config"], &[]).await;
    assert_eq!((code, said.as_str()), (0, "the configuration is right\n"));
}

#[tokio::test]
async fn the_printed_configuration_shows_values_with_their_sources_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("greet-worker.yaml"), "greeting: { words: Servus }").unwrap();
    let folder = folder.path().to_str().unwrap();
    let (code, printed, _) =
        output(&["--config", folder, "--print-config"], &[("JM_RABBITMQ__PASSWORD", "canary")]).await;
    assert_eq!(code, 0);
    assert!(!printed.contains("canary"), "{printed}");
    for (value, source) in [
        ("  password: \"***\"", "environment variable JM_RABBITMQ__PASSWORD"),
        ("  words: \"Servus\"", "greet-worker.yaml"),
        ("  prefetch_per_worker: 1", "built-in greet-worker.yaml"),
        ("  heartbeat: \"10s\"", "built-in default.yaml"),
    ] {
        let line = printed.lines().find(|line| line.starts_with(value));
        assert!(line.is_some_and(|line| line.ends_with(source)), "{value} from {source} in:\n{printed}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, logged, _) = output(&[], &[("JM_HTTP__LISTEN", &address)]).await;
    assert_eq!(code, 1);
    assert!(logged.contains(&format!("http.listen: {address} is in use by another process")), "{logged}");
}
