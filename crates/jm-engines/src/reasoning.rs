//! What reasoning models write before their answers, in the marks of several families.

/// Tags that models put their reasoning in, in lower case: `DeepSeek` and Qwen, others, Kimi, Mistral, Seed.
const TAGS: [(&str, &str); 9] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("[think]", "[/think]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
];
/// Where the channel of the answer begins in the format of `OpenAI`'s open models, as they write it and without its special
/// tokens.
const FINAL_CHANNELS: [&str; 2] = ["<|channel|>final<|message|>", "assistantfinal"];
/// How a text in that format begins, when it does not begin with the answer.
const CHANNELS: [&str; 4] = ["<|channel|>", "<|start|>", "analysis", "commentary"];
/// What ends a message in that format.
const ENDS: [&str; 3] = ["<|return|>", "<|end|>", "<|call|>"];
/// How Granite introduces its answer.
const GRANITE: (&str, &str) = ("here is my thought process:", "here is my response:");
/// How models begin when they think aloud.
const OPENERS: [&str; 22] = [
    "okay, ",
    "ok, ",
    "okay. ",
    "hmm",
    "alright, ",
    "let me ",
    "let's ",
    "first, i ",
    "first, let",
    "so, the user",
    "so the user",
    "the user ",
    "we need to ",
    "we are asked ",
    "we have to ",
    "i need to ",
    "i'll ",
    "好的，",
    "嗯",
    "首先，",
    "用户",
    "我需要",
];

/// An answer, with its reasoning taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reasoned<'a> {
    /// The text after the reasoning, or all of it.
    Answer {
        /// The answer; empty if nothing follows the reasoning.
        text: &'a str,
        /// Whether reasoning ended that had no first tag: some chat templates write it into the prompt.
        untagged: bool,
    },
    /// The reasoning began and never ended.
    Unfinished,
}

/// Takes the reasoning off the beginning of a text.
pub(crate) fn without_reasoning(content: &str) -> Reasoned<'_> {
    let mut text = content.trim();
    let mut untagged = false;
    if let Some(answer) = after_channels(text) {
        return answer;
    }
    // Some chat templates write the first tag into the prompt, and the answer has only the second.
    for (open, close) in TAGS {
        if let Some((reasoning, answer)) = split_once(text, close)
            && !contains(reasoning, open)
            && !TAGS.iter().any(|(open, _)| starts_with(text, open))
        {
            (text, untagged) = (answer.trim(), true);
            break;
        }
    }
    if starts_with(text, GRANITE.0)
        && let Some((_, answer)) = split_once(text, GRANITE.1)
    {
        return Reasoned::Answer { text: answer.trim(), untagged };
    }
    while let Some((open, close)) = TAGS.into_iter().find(|(open, _)| starts_with(text, open)) {
        let Some((_, answer)) = split_once(&text[open.len()..], close) else { return Reasoned::Unfinished };
        text = answer.trim();
    }
    Reasoned::Answer { text, untagged }
}

/// Whether a text that was cut off looks like reasoning rather than an answer: by how it begins.
pub(crate) fn looks_like_reasoning(text: &str) -> bool {
    OPENERS.iter().any(|opener| starts_with(text.trim_start(), opener))
}

/// The last channel of a text in channels; `None` for other texts.
fn after_channels(text: &str) -> Option<Reasoned<'_>> {
    if !CHANNELS.iter().any(|start| text.starts_with(start)) {
        return None;
    }
    let found = FINAL_CHANNELS.iter().filter_map(|mark| Some((text.rfind(mark)?, mark.len()))).max();
    let Some((place, length)) = found else {
        // A text may begin with the word "analysis" without a channel behind it.
        return text.starts_with("<|").then_some(Reasoned::Unfinished);
    };
    let mut answer = text[place + length..].trim();
    for end in ENDS {
        answer = answer.strip_suffix(end).unwrap_or(answer).trim();
    }
    Some(Reasoned::Answer { text: answer, untagged: false })
}

/// Whether a text begins with these characters, ASCII letters in any case.
fn starts_with(text: &str, lower: &str) -> bool {
    text.as_bytes().get(..lower.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower.as_bytes()))
}

fn contains(text: &str, lower: &str) -> bool {
    find(text, lower).is_some()
}

fn split_once<'a>(text: &'a str, lower: &str) -> Option<(&'a str, &'a str)> {
    let place = find(text, lower)?;
    Some((&text[..place], &text[place + lower.len()..]))
}

/// The first place of these characters, ASCII letters in any case. They begin with a sign that is no letter's part, so that
/// the place is between characters.
fn find(text: &str, lower: &str) -> Option<usize> {
    let (text, lower) = (text.as_bytes(), lower.as_bytes());
    text.windows(lower.len()).position(|window| window.eq_ignore_ascii_case(lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_before_the_answer_is_left_out_and_other_tags_stay() {
        for (content, text) in [
            ("<think>a</think>\n\nb", Some("b")),
            ("\n<think>\n</think><think>c</think>b", Some("b")),
            ("b <think>a</think>", Some("b <think>a</think>")),
            ("<think>a</think>The tag </think> ends it.", Some("The tag </think> ends it.")),
            ("a, hm\n</think>\n\nb", Some("b")),
            ("a</think><think>c</think>b", Some("b")),
            ("a</think>", Some("")),
            ("<think>for ever", None),
            ("a</think><think>for ever", None),
            ("  b\n", Some("b")),
            ("", Some("")),
            ("<thinking>T</thinking>S", Some("S")),
            ("<THINK>T</THINK>S", Some("S")),
            ("<Think>T</think>S", Some("S")),
            ("◁think▷T◁/think▷S", Some("S")),
            ("[THINK]T[/THINK]S", Some("S")),
            ("T[/THINK]S", Some("S")),
            ("<seed:think>T</seed:think>S", Some("S")),
            ("◁think▷T", None),
            ("<|channel|>analysis<|message|>T<|end|><|start|>assistant<|channel|>final<|message|>S", Some("S")),
            ("<|channel|>final<|message|>S<|return|>", Some("S")),
            ("<|channel|>analysis<|message|>T", None),
            ("analysisT, so I say.assistantfinalS", Some("S")),
            ("analysis of the results", Some("analysis of the results")),
            ("Here is my thought process: T\n\nHere is my response:\n\nS", Some("S")),
            ("会议<b>很</b>短", Some("会议<b>很</b>短")),
        ] {
            let found = match without_reasoning(content) {
                Reasoned::Answer { text, .. } => Some(text),
                Reasoned::Unfinished => None,
            };
            assert_eq!(found, text, "{content}");
        }
        assert_eq!(without_reasoning("T</think>S"), Reasoned::Answer { text: "S", untagged: true });
        assert_eq!(without_reasoning("<think>T</think>S"), Reasoned::Answer { text: "S", untagged: false });
    }

    #[test]
    fn thinking_aloud_is_known_by_how_it_begins() {
        for text in
            ["Okay, the user wants a summary", "Hmm, so", "好的，用户想要", " The user asks", "We need to summarise"]
        {
            assert!(looks_like_reasoning(text), "{text}");
        }
        for text in ["The meeting was moved", "会议改到周四", "Okra soup", ""] {
            assert!(!looks_like_reasoning(text), "{text}");
        }
    }
}
