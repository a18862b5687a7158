//! llama.cpp with the same files; see `tests/references/chat.py`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

/// How far a token's logarithmic likelihood may be off: llama.cpp has the weights in 32 bits, and here they are
/// rounded to 8.
const TOLERANCE: f32 = 0.2;
/// The small models' weights are exact in 8 bits.
const TOLERANCE_OF_SMALL: f32 = 0.002;

#[derive(Deserialize)]
struct Reference {
    texts: Vec<Text>,
    conversations: Vec<Conversation>,
    next: Vec<Next>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<(jm_tasks::Role, String)>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Next {
    text: String,
    likeliest: Vec<(u32, f32)>,
}

/// The one of them that is neither in this repository nor of the demo.
const LARGE: &str = "qwen2.5-coder-0.5b-instruct";

#[test]
fn texts_conversations_and_likelihoods_are_llama_cpps() {
    assert_eq!(agree_where(|name| name != LARGE), 3);
}

#[test]
#[ignore = "needs the file of qwen2.5-coder-0.5b-instruct, which `make test-models` fetches before it runs this"]
fn texts_conversations_and_likelihoods_of_qwen_are_llama_cpps() {
    assert_eq!(agree_where(|name| name == LARGE), 1);
}

/// Compares the models of these names with their references, and returns how many.
fn agree_where(wanted: impl Fn(&str) -> bool) -> usize {
    let references = fs::read_to_string(reference("chat.json")).unwrap();
    let mut references: BTreeMap<String, Reference> = serde_json::from_str(&references).unwrap();
    references.retain(|name, _| wanted(name));
    for (name, expected) in &references {
        let small = reference(&format!("chat-{name}.gguf"));
        let (options, tolerance) = if small.exists() {
            (EngineOptions { model_path: Some(small), ..EngineOptions::default() }, TOLERANCE_OF_SMALL)
        } else {
            (EngineOptions { model: name.clone(), ..EngineOptions::default() }, TOLERANCE)
        };
        check(name, &load(&options).model, expected, tolerance);
    }
    references.len()
}

fn check(name: &str, model: &Model, reference: &Reference, tolerance: f32) {
    for Text { text, tokens } in &reference.texts {
        assert_eq!(&model.vocabulary.encode(text).unwrap(), tokens, "{name}: {text:?}");
        assert_eq!(&model.vocabulary.decode(tokens), text, "{name}");
    }
    for Conversation { messages, tokens } in &reference.conversations {
        let messages: Vec<_> = messages.iter().map(|(role, content)| (*role, content.as_str())).collect();
        assert_eq!(&model.prompt(&said(&messages), 1).unwrap(), tokens, "{name}: {messages:?}");
    }
    let mut worst: f32 = 0.0;
    for Next { text, likeliest } in &reference.next {
        let ours = likelihoods(model, &model.vocabulary.encode(text).unwrap());
        for &(token, theirs) in likeliest {
            worst = worst.max((ours[token as usize] - theirs).abs());
        }
        let best = (0..).zip(&ours).max_by(|one, other| one.1.total_cmp(other.1)).map(|(token, _)| token);
        let (first, second) = (likeliest[0], likeliest[1]);
        assert!(best == Some(first.0) || first.1 - second.1 < tolerance, "{name}: {text:?}: {best:?}");
    }
    println!("{name}: off by {worst:.3} at most");
    assert!(worst < tolerance, "{name}: {worst}");
}

fn likelihoods(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut memory = model.transformer.memory();
    let mut last = None;
    for tokens in tokens.chunks(128) {
        last = Some(model.transformer.read(tokens, &mut memory, &Stop::never()).unwrap());
    }
    let logits = model.transformer.logits(&last.unwrap()).unwrap();
    candle_nn::ops::log_softmax(&logits, 0).unwrap().to_vec1().unwrap()
}
