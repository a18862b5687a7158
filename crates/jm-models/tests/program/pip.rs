//! Where pip comes from, and what its failures are called.

use std::{fs, net::TcpListener};

use crate::bench::{Bench, catalogue, stderr};

/// Debian's Python without python3-pip.
const WITHOUT_PIP: &str = "#!/bin/sh\n[ \"$3\" = pip ] && exit 1\nPATH=$REAL_PATH exec python3 \"$@\"\n";

/// Debian's Python without python3-pip and python3-venv.
const WITHOUT_ANYTHING: &str = "#!/bin/sh\necho 'The virtual environment was not created' >&2\nexit 1\n";

#[test]
fn without_a_pip_of_the_systems_a_private_one_is_made_once() {
    let bench = Bench::new();
    let mut command = bench.command(&["fetch"]);
    bench.with_python(&mut command, WITHOUT_PIP);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("making a virtual environment"), "{}", stderr(&output));
    assert!(bench.models().join(".pip/bin/python3").exists());

    fs::remove_file(bench.file("words.json")).unwrap();
    let mut command = bench.command(&["fetch"]);
    bench.with_python(&mut command, WITHOUT_PIP);
    let output = command.output().unwrap();
    assert!(output.status.success() && !stderr(&output).contains("making"), "{}", stderr(&output));
    assert!(bench.file("words.json").exists());
}

#[test]
fn without_python_or_without_pip_and_venv_it_says_what_to_install() {
    let bench = Bench::new();
    let mut command = bench.command(&["fetch"]);
    bench.with_python(&mut command, WITHOUT_ANYTHING);
    let error = stderr(&command.output().unwrap());
    let expected = "error: python3 has no pip, and could not make a virtual environment with one: The virtual \
        environment was not created; install either: apt-get install python3-venv\n";
    assert!(error.ends_with(expected), "{error}");

    let output = bench.command(&["fetch"]).env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: there is no python3"), "{}", stderr(&output));
    assert!(bench.leftovers().is_empty());
}

#[test]
fn a_version_that_the_index_lacks_is_named() {
    let bench = Bench::new();
    bench.write_catalogue(&catalogue().replace("version = \"1.0\"", "version = \"1.1\""));
    let error = bench.fail(&["fetch"], 1);
    assert!(error.starts_with("one 1.1: the index has no wheel of this version for platform any; "), "{error}");
}

#[test]
fn an_index_that_cannot_be_reached_is_a_matter_of_the_network() {
    let bench = Bench::new();
    // A port that nobody listens to any more.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/simple/");
    let output = bench.command(&["fetch"]).env("PIP_INDEX_URL", url).env("PIP_RETRIES", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("could not be reached: check the network"), "{}", stderr(&output));
    assert_eq!(bench.leftovers(), [""; 0]);
}

#[test]
fn a_pip_py_in_the_working_folder_is_not_run() {
    let bench = Bench::new();
    let folder = bench.path("work");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("pip.py"), "raise SystemExit('not this one')").unwrap();
    let output = bench.command(&["fetch"]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    bench.assert_complete();
}
