//! What the program says: help, list, verify, path, and mistakes on the command line.

use std::{fs, process::Command};

use crate::bench::{Bench, stderr, stdout};

#[test]
fn help_is_what_help_txt_has() {
    let bench = Bench::new();
    let pages =
        [&["--help"][..], &["fetch", "--help"], &["list", "--help"], &["verify", "--help"], &["path", "--help"]];
    let help: Vec<_> = pages.iter().map(|page| stdout(&bench.run(page))).collect();
    assert_eq!(help.join("----\n"), include_str!("help.txt"));
}

#[test]
fn an_unknown_name_is_told_the_names_there_are() {
    let bench = Bench::new();
    for command in ["fetch", "verify", "path"] {
        assert_eq!(bench.fail(&[command, "pear"], 2), "there is no model pear; there are pair");
    }
    assert_eq!(bench.run(&["fetch", "--all", "pair"]).status.code(), Some(2));
    assert!(bench.leftovers().is_empty());
}

#[test]
fn the_built_in_list_fits_80_columns() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_jm-models")).arg("list").env("JM_MQ_CACHE", "/none").output().unwrap();
    let list = stdout(&output);
    assert!(list.contains("* whisper-base                 transcription  149 MB  missing    many\n"), "{list}");
    assert!(list.contains("(MIT, Apache-2.0)\n"), "{list}");
    for line in list.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(!list.contains('\u{1b}'), "colours are for terminals");
}

#[test]
fn the_list_tells_what_is_there() {
    let bench = Bench::new();
    let state = || {
        let list = stdout(&bench.run(&["list"]));
        let line = list.lines().find(|line| line.starts_with("* pair")).expect(&list);
        line.split_whitespace().nth(5).unwrap().to_owned()
    };
    assert_eq!(state(), "missing");
    bench.succeed(&["fetch"]);
    assert_eq!(state(), "there");
    fs::write(bench.file("config.json"), "").unwrap();
    assert_eq!(state(), "incomplete");
}

#[test]
fn the_list_of_files_has_what_is_known_of_each() {
    let bench = Bench::new();
    let list = stdout(&bench.run(&["list", "--files"]));
    let first: Vec<_> =
        list.lines().take(7).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let digest = crate::bench::sha256(&crate::bench::whole());
    let expected = [
        "pair/weights.bin",
        "size 300000",
        &format!("sha256 {digest}"),
        "package one 1.0, one/weights.1",
        "package two 1.0, two/weights.2",
        "licence MIT",
        "provenance nobody",
    ];
    assert_eq!(first, expected);
}

#[test]
fn verify_finds_wrong_contents_of_the_right_size() {
    let bench = Bench::new();
    assert_eq!(bench.fail(&["verify"], 1), "no model is there to verify; `jm-models fetch` gets them");
    assert_eq!(bench.run(&["verify", "pair"]).status.code(), Some(1));
    bench.succeed(&["fetch"]);
    let right = "right  pair/weights.bin\nright  pair/words.json\nright  pair/config.json\n";
    assert_eq!(stdout(&bench.run(&["verify"])), right);

    fs::write(bench.file("config.json"), "[]").unwrap();
    let output = bench.run(&["verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "error: 1 of 3 files is not right\n");
    let told = stdout(&output);
    let wrong = told.lines().last().unwrap();
    assert!(wrong.starts_with(&format!("wrong  {}: SHA-256 ", bench.file("config.json").display())), "{told}");
    assert!(wrong.ends_with("; remove it, then `jm-models fetch pair` gets it"), "{told}");
}

#[test]
fn path_is_the_folder_of_several_files_or_how_to_get_them() {
    let bench = Bench::new();
    let error = bench.fail(&["path", "pair"], 1);
    assert!(error.ends_with("`jm-models fetch pair` (or `make models`) gets it"), "{error}");
    bench.succeed(&["fetch"]);
    assert_eq!(stdout(&bench.run(&["path", "pair"])), format!("{}\n", bench.models().join("pair").display()));
}

#[test]
fn a_catalogue_that_is_not_right_is_refused_before_anything_is_done() {
    let bench = Bench::new();
    bench.write_catalogue(&crate::bench::catalogue().replace("\"config.json\"", "\"../config.json\""));
    let error = bench.fail(&["fetch"], 1);
    assert!(error.starts_with("the catalogue is not right: file \"../config.json\": only letters"), "{error}");
    assert!(!bench.path("config.json").exists() && !bench.models().exists());
}
