//! A model's tokens, as its GGUF file lists them.

use std::collections::{HashMap, HashSet};

use jm_mq_core::OptionsError;
use tokenizers::{Tokenizer, models::bpe::BPE};

use super::{gguf::Gguf, split};

/// The tokens of one model, and how texts become them.
pub(crate) struct Vocabulary {
    tokens: Vec<Token>,
    /// Knows no special token: to it, all of a text is text.
    tokenizer: Tokenizer,
    special: Special,
    beginning: Option<u32>,
    ends: HashSet<u32>,
    /// The longest token in bytes.
    longest: usize,
}

/// What a token stands for.
enum Token {
    /// These bytes, which need not be whole characters.
    Text(Box<[u8]>),
    /// Nothing to be read.
    Control,
}

/// Tokens that only a template may write: those that part a conversation's messages, and those for tools and thoughts.
struct Special {
    /// By their first character, the longest first.
    by_first: HashMap<char, Vec<(String, u32)>>,
}

/// What GGUF calls a token's type.
mod kind {
    pub(super) const NORMAL: usize = 1;
    pub(super) const CONTROL: usize = 3;
    pub(super) const USER_DEFINED: usize = 4;
    pub(super) const BYTE: usize = 6;
}

/// What ends a turn in the templates there are. A file may name the one of its family's first model, which writes no
/// turns.
const END_NAMES: [&str; 7] =
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|end_of_text|>", "<|endoftext|>", "</s>"];
/// More are no vocabulary.
const MAX_TOKENS: usize = 4_000_000;

impl Vocabulary {
    pub(crate) fn load(gguf: &Gguf<'_>) -> Result<Self, OptionsError> {
        let model = gguf.needed("tokenizer.ggml.model", gguf.text("tokenizer.ggml.model")?)?;
        if model != "gpt2" {
            return Err(
                gguf.unusable(format_args!("its tokens are made by {model}; only gpt2 (byte-level BPE) is known"))
            );
        }
        let texts = gguf.needed("tokenizer.ggml.tokens", gguf.texts("tokenizer.ggml.tokens")?)?;
        let kinds = gguf.counts("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![kind::NORMAL; texts.len()]);
        if texts.len() != kinds.len() || !(1..=MAX_TOKENS).contains(&texts.len()) {
            let lengths = format_args!("it has {} tokens, and types for {}", texts.len(), kinds.len());
            return Err(gguf.unusable(lengths));
        }
        let (mut plain, mut special, mut tokens) = (HashMap::new(), Special::new(), Vec::with_capacity(texts.len()));
        let alphabet = alphabet();
        for (id, (text, kind)) in (0..).zip(texts.iter().zip(kinds)) {
            tokens.push(match kind {
                kind::NORMAL | kind::BYTE => {
                    plain.insert((*text).to_owned(), id);
                    Token::Text(bytes(text, &alphabet))
                }
                kind::USER_DEFINED => {
                    special.add(text, id);
                    Token::Text(text.as_bytes().into())
                }
                kind::CONTROL => {
                    special.add(text, id);
                    Token::Control
                }
                _ => Token::Control,
            });
        }
        special.sort();
        let longest = tokens.iter().map(Token::len).max().unwrap_or(1).max(1);
        let token =
            |key: &str| Ok(gguf.count(key)?.filter(|&id| id < tokens.len()).and_then(|id| u32::try_from(id).ok()));
        let mut ends: HashSet<u32> = END_NAMES.iter().filter_map(|name| special.id(name)).collect();
        for key in ["eos", "eot", "eom"] {
            ends.extend(token(&format!("tokenizer.ggml.{key}_token_id"))?);
        }
        if ends.is_empty() {
            return Err(gguf.unusable("none of its tokens ends an answer"));
        }
        // What a template writes between messages, an answer has no use for either: a new turn begins with it.
        ends.extend((0..).zip(&tokens).filter(|(_, token)| matches!(token, Token::Control)).map(|(id, _)| id));
        let pre = gguf.needed("tokenizer.ggml.pre", gguf.text("tokenizer.ggml.pre")?)?;
        let split = split::named(pre).ok_or_else(|| {
            gguf.unusable(format_args!("its texts are split as {pre} does; known are {}", split::NAMES.join(", ")))
        })?;
        // What a text begins with, where it has to begin with something: llama 3's do so unless told otherwise.
        let begins = gguf.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(split.begins);
        let beginning = if begins { token("tokenizer.ggml.bos_token_id")? } else { None };
        let tokenizer = split.tokenizer(bpe(gguf, plain, split.whole_words)?).map_err(|error| gguf.unusable(error))?;
        Ok(Self { tokens, tokenizer, special, beginning, ends, longest })
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The id of a special token.
    pub(crate) fn special(&self, text: &str) -> Option<u32> {
        self.special.id(text)
    }

    /// The longest token in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// The tokens with which an answer ends.
    pub(crate) fn ends(&self) -> &HashSet<u32> {
        &self.ends
    }

    /// The tokens of a text, none of them special.
    pub(crate) fn encode(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        Ok(self.tokenizer.encode_fast(text, false)?.get_ids().to_vec())
    }

    /// Puts `guard` into each special token's text, so that it no longer is one.
    pub(crate) fn guarded(&self, text: &str, guard: char) -> String {
        let mut guarded = String::with_capacity(text.len());
        for (index, letter) in text.char_indices() {
            guarded.push(letter);
            if self.special.at(&text[index..]).is_some() {
                guarded.push(guard);
            }
        }
        guarded
    }

    /// The tokens of a text with special tokens in it, and with `guard` where none should be seen.
    pub(crate) fn encode_guarded(&self, text: &str, guard: char) -> tokenizers::Result<Vec<u32>> {
        let mut tokens: Vec<u32> = self.beginning.into_iter().collect();
        let mut text_begins = 0;
        let mut index = 0;
        let mut add = |text: &str, special: Option<u32>| {
            let text = text.replace(guard, "");
            if !text.is_empty() {
                tokens.extend(self.encode(&text)?);
            }
            // Templates write the beginning's token themselves, or leave it to us.
            tokens.extend(special.filter(|_| special != self.beginning || tokens.len() != 1));
            Ok::<_, tokenizers::Error>(())
        };
        while let Some(letter) = text[index..].chars().next() {
            // A guard after a special token of a single letter is the only way to tell.
            let special = self.special.at(&text[index..]);
            if let Some((special, token)) = special.filter(|(token, _)| !text[index + token.len()..].starts_with(guard))
            {
                add(&text[text_begins..index], Some(token))?;
                index += special.len();
                text_begins = index;
            } else {
                index += letter.len_utf8();
            }
        }
        add(&text[text_begins..], None)?;
        Ok(tokens)
    }

    /// The text of tokens. The half character that it may end with is left out.
    pub(crate) fn decode(&self, tokens: &[u32]) -> String {
        let texts = tokens.iter().filter_map(|&token| match self.tokens.get(usize::try_from(token).ok()?)? {
            Token::Text(bytes) => Some(&**bytes),
            Token::Control => None,
        });
        let bytes: Vec<u8> = texts.flatten().copied().collect();
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let half = chunks.peek().is_none() && is_half(chunk.invalid());
            if !chunk.invalid().is_empty() && !half {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

/// Whether more bytes could make a character of these.
fn is_half(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

impl Token {
    fn len(&self) -> usize {
        match self {
            Self::Text(bytes) => bytes.len(),
            Self::Control => 0,
        }
    }
}

impl Special {
    fn new() -> Self {
        Self { by_first: HashMap::new() }
    }

    fn add(&mut self, text: &str, id: u32) {
        if let Some(first) = text.chars().next() {
            self.by_first.entry(first).or_default().push((text.to_owned(), id));
        }
    }

    fn sort(&mut self) {
        for tokens in self.by_first.values_mut() {
            tokens.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        }
    }

    /// The longest token that a text begins with.
    fn at(&self, text: &str) -> Option<(&str, u32)> {
        let tokens = self.by_first.get(&text.chars().next()?)?;
        tokens.iter().find(|(token, _)| text.starts_with(token)).map(|(token, id)| (token.as_str(), *id))
    }

    fn id(&self, text: &str) -> Option<u32> {
        self.at(text).filter(|(token, _)| token.len() == text.len()).map(|(_, id)| id)
    }
}

fn bpe(gguf: &Gguf<'_>, vocabulary: HashMap<String, u32>, whole_words: bool) -> Result<BPE, OptionsError> {
    let merges = gguf.needed("tokenizer.ggml.merges", gguf.texts("tokenizer.ggml.merges")?)?;
    let parts = |merge: &str| merge.split_once(' ').map(|(one, other)| (one.to_owned(), other.to_owned()));
    let merges = merges.iter().map(|merge| parts(merge)).collect::<Option<Vec<_>>>();
    let merges = merges.ok_or_else(|| gguf.unusable("its tokenizer.ggml.merges should be pairs"))?;
    let vocabulary: tokenizers::models::bpe::Vocab = vocabulary.into_iter().collect();
    let bpe = BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(whole_words).build();
    bpe.map_err(|error| gguf.unusable(format_args!("its tokenizer.ggml.merges: {error}")))
}

/// The bytes of a token, which is written with a visible letter for each of them.
fn bytes(token: &str, alphabet: &HashMap<char, u8>) -> Box<[u8]> {
    let mut letter = [0; 4];
    let byte =
        |c: char| alphabet.get(&c).map_or_else(|| c.encode_utf8(&mut letter).as_bytes().to_vec(), |&byte| vec![byte]);
    token.chars().flat_map(byte).collect()
}

/// GPT-2's letters for bytes: printable ones of Latin-1 stand for themselves, the others follow from U+0100 on.
fn alphabet() -> HashMap<char, u8> {
    let mut others = '\u{100}'..;
    let letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => Some((char::from(byte), byte)),
        _ => others.next().map(|letter| (letter, byte)),
    };
    (0..=u8::MAX).filter_map(letter).collect()
}
