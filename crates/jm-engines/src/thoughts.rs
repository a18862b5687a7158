//! What reasoning models think aloud.

/// An answer's text without what the model thought before it; `None` if the thinking never ended.
pub(crate) fn without_thoughts(content: &str) -> Option<&str> {
    let mut text = content.trim();
    // Some chat templates write the first tag into the prompt, and the answer has only the second.
    if let Some((thoughts, answer)) = text.split_once("</think>")
        && !thoughts.contains("<think>")
    {
        text = answer.trim();
    }
    while let Some(thoughts) = text.strip_prefix("<think>") {
        text = thoughts.split_once("</think>")?.1.trim();
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_before_the_answer_are_left_out_and_others_stay() {
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
        ] {
            assert_eq!(without_thoughts(content), text, "{content}");
        }
    }
}
