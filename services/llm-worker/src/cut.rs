//! Where a text is cut that is too long for one call.

use jm_engines::ChatEngine;
use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};
use tokio_util::sync::CancellationToken;

/// No token is longer than this in bytes, or it is none of a note's.
const TOKEN_BYTES: usize = 32;
/// The splitter looks through all the rest of a text for each part, where it finds no boundary in it: megabytes
/// without one take it minutes. So it gets the text in blocks of this many bytes for each token of a part: some twenty
/// parts.
const BLOCK_BYTES_PER_TOKEN: usize = 64;

/// The text in parts of at most `budget` tokens each, cut between paragraphs, sentences or words, as well as may be;
/// `None` once nobody waits for it any more.
///
/// Takes a while for long texts: not for the threads of a runtime.
pub(crate) fn parts(
    text: &str,
    budget: usize,
    engine: &dyn ChatEngine,
    cancellation: &CancellationToken,
) -> Option<Vec<String>> {
    let splitter = TextSplitter::new(ChunkConfig::new(budget).with_sizer(Tokens { engine, cancellation }));
    let mut parts = Vec::new();
    for block in blocks(text, budget.saturating_mul(BLOCK_BYTES_PER_TOKEN)) {
        parts.extend(splitter.chunks(block).map(str::to_owned));
        if cancellation.is_cancelled() {
            return None;
        }
    }
    Some(parts)
}

/// The beginning of a text, of at most `budget` tokens.
///
/// Takes a while where the engine really counts: not for the threads of a runtime.
pub(crate) fn beginning<'a>(text: &'a str, budget: usize, engine: &dyn ChatEngine) -> &'a str {
    let page = page(text, budget);
    let cancellation = &CancellationToken::new();
    let splitter = TextSplitter::new(ChunkConfig::new(budget).with_sizer(Tokens { engine, cancellation }));
    splitter.chunks(page).next().unwrap_or_default()
}

/// So much of a text that its first `budget` tokens are in it.
pub(crate) fn page(text: &str, budget: usize) -> &str {
    // A page of nothing but space has no part.
    let text = text.trim_start();
    &text[..text.floor_char_boundary(budget.saturating_mul(TOKEN_BYTES))]
}

/// The text in blocks of at most `bytes` bytes (but at least one character), each but the last ending with a paragraph,
/// a line, a sentence or a word, if one of them ends in its second half.
fn blocks(mut text: &str, bytes: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let first = text.chars().next()?;
        let end = text.floor_char_boundary(bytes).max(first.len_utf8());
        let block = if end < text.len() { &text[..ending(&text[..end])] } else { text };
        text = &text[block.len()..];
        Some(block)
    })
}

/// The end of the last thing that ends in the second half of a block, the largest kind of thing first; or else the
/// block's own.
fn ending(block: &str) -> usize {
    let half = block.ceil_char_boundary(block.len() / 2);
    let late = &block[half..];
    let end_of = |found: Option<(usize, &str)>| found.map(|(index, end)| half + index + end.len());
    end_of(late.rmatch_indices("\n\n").next())
        .or_else(|| end_of(late.rmatch_indices('\n').next()))
        .or_else(|| end_of(late.rmatch_indices(['。', '！', '？', '；']).next()))
        .or_else(|| end_of([". ", "! ", "? "].iter().filter_map(|end| late.rmatch_indices(end).next()).max()))
        .or_else(|| end_of(late.rmatch_indices(|c: char| c.is_whitespace() || c == '，').next()))
        .unwrap_or(block.len())
}

/// Counts with the engine, as long as somebody waits: after that nothing is too long, and the splitter is done at once.
struct Tokens<'a> {
    engine: &'a dyn ChatEngine,
    cancellation: &'a CancellationToken,
}

impl ChunkSizer for Tokens<'_> {
    fn size(&self, chunk: &str) -> usize {
        if self.cancellation.is_cancelled() { 0 } else { self.engine.count_tokens(chunk) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        time::{Duration, Instant},
    };

    use jm_engines::{Call, ChatRequest, Completion, EngineFuture};

    use super::*;
    use crate::room::tests::engine;

    #[test]
    fn blocks_are_the_text_and_end_with_the_largest_thing_that_ends_in_them() {
        let of = |text, bytes| blocks(text, bytes).collect::<Vec<&str>>();
        assert_eq!(of("one two three four", 10), ["one two ", "three four"]);
        assert_eq!(of("One two. Three four", 12), ["One two. ", "Three four"]);
        assert_eq!(of("one two\nthree. four five", 16), ["one two\nthree. ", "four five"]);
        assert_eq!(of("words\n\ntw\nthree four", 11), ["words\n\n", "tw\nthree ", "four"]);
        assert_eq!(of("笔记笔。笔记笔记笔记", 15), ["笔记笔。", "笔记笔记笔", "记"]);
        assert_eq!(of("字字", 1), ["字", "字"]);
        assert_eq!(of("", 5), [""; 0]);
        let text = "Some words. 一些词。\nMore\n\n".repeat(50);
        for bytes in 1..200 {
            assert_eq!(blocks(&text, bytes).collect::<String>(), text);
            assert!(blocks(&text, bytes).all(|block| (1..=bytes.max(3)).contains(&block.len())), "{bytes}");
        }
    }

    #[test]
    fn a_text_of_two_megabytes_without_a_sentence_is_cut_in_no_time_to_speak_of() {
        let engine = engine(512, 256);
        for word in ["字", "a ", "a"] {
            let text = word.repeat(2 * 1024 * 1024 / word.len());
            let began = Instant::now();
            let parts = parts(&text, 128, engine.as_ref(), &CancellationToken::new()).unwrap();
            let took = began.elapsed();
            println!("{word:?}: {} parts in {took:?}", parts.len());
            assert!(took < Duration::from_secs(15), "{word}: {took:?}");
            assert!(parts.iter().all(|part| engine.count_tokens(part) <= 128));
            // What is left at the end of each block makes no more than a few parts more.
            let least = engine.count_tokens(&text) / 128;
            assert!((least..least + least / 4).contains(&parts.len()), "{word}: {} of {least}", parts.len());
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
            assert_eq!(parts.iter().map(|part| letters(part)).sum::<usize>(), letters(&text));
            let began = Instant::now();
            assert!(engine.count_tokens(beginning(&text, 2000, engine.as_ref())) > 1900);
            println!("{word:?}: beginning in {:?}", began.elapsed());
        }
    }

    #[test]
    fn nothing_is_cut_once_nobody_waits() {
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(parts("text", 128, engine(512, 256).as_ref(), &stop), None);
    }

    /// Counts as that engine does, and nobody waits any more after a few counts.
    struct GivenUp(std::sync::Arc<dyn ChatEngine>, CancellationToken, AtomicUsize);

    impl ChatEngine for GivenUp {
        fn complete<'a>(&'a self, request: &'a ChatRequest, call: &'a Call) -> EngineFuture<'a, Completion> {
            self.0.complete(request, call)
        }
        fn model(&self) -> &str {
            self.0.model()
        }
        fn context_tokens(&self) -> usize {
            self.0.context_tokens()
        }
        fn max_output_tokens(&self) -> usize {
            self.0.max_output_tokens()
        }
        fn count_tokens(&self, text: &str) -> usize {
            if self.2.fetch_add(1, Relaxed) == 3 {
                self.1.cancel();
            }
            self.0.count_tokens(text)
        }
        fn languages(&self) -> &[String] {
            self.0.languages()
        }
    }

    #[test]
    fn a_block_is_not_cut_to_its_end_once_nobody_waits() {
        let engine = GivenUp(engine(512, 256), CancellationToken::new(), AtomicUsize::new(0));
        assert_eq!(parts(&"Some words. ".repeat(10_000), 128, &engine, &engine.1), None);
        assert_eq!(engine.2.load(Relaxed), 4);
    }

    #[test]
    fn a_text_begins_where_its_first_word_does() {
        let text = format!("{}The note. {}", "\n".repeat(100_000), "words ".repeat(1000));
        let beginning = beginning(&text, 128, engine(512, 256).as_ref());
        assert!(beginning.starts_with("The note. words") && beginning.len() < 1000, "{beginning}");
    }
}
