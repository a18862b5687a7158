//! The title in a model's answer, which is seldom the title alone.

use serde_json::Value;

/// A longer title is none.
const MAX_CHARS: usize = 120;
/// Marks that may stand around a whole title.
const PAIRS: [(&str, &str); 16] = [
    ("**", "**"),
    ("__", "__"),
    ("\"", "\""),
    ("“", "”"),
    ("„", "“"),
    ("‘", "’"),
    ("「", "」"),
    ("『", "』"),
    ("《", "》"),
    ("〈", "〉"),
    ("【", "】"),
    ("«", "»"),
    ("'", "'"),
    ("`", "`"),
    ("*", "*"),
    ("_", "_"),
];
/// Labels before a title, in lower case.
const LABELS: [&str; 12] = [
    "title",
    "suggested title",
    "proposed title",
    "note title",
    "the title",
    "headline",
    "标题",
    "標題",
    "题目",
    "題目",
    "笔记标题",
    "建议标题",
];
/// Fields of an object in which the title is.
const FIELDS: [&str; 4] = ["title", "标题", "標題", "headline"];
/// How lines begin that only announce a title, in lower case.
const ANNOUNCEMENTS: [&str; 9] =
    ["here is", "here's", "here are", "sure", "certainly", "of course", "以下是", "好的", "当然"];
/// A list of candidates has few of them.
const MAX_LIST_DIGITS: usize = 2;

/// The title, without what models put around it in spite of the prompt: fences, objects, announcements, labels, headings,
/// lists, and pairs of marks around the whole of it. Marks within it stay. Of several candidates the first.
pub(crate) fn title(answer: &str) -> Option<String> {
    let answer = unfenced(answer.trim());
    if let Some(title) = of_object(answer) {
        return title_in(&title);
    }
    title_in(answer)
}

fn title_in(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().map(bare).filter(|line| !line.is_empty()).collect();
    let title = lines.iter().find(|line| !announces(line, lines.len() > 1)).or(lines.last())?;
    let title = title.chars().take(MAX_CHARS).collect::<String>();
    Some(title).filter(|title| title.chars().any(char::is_alphanumeric))
}

/// What stands in the first fence, if the answer has one.
fn unfenced(answer: &str) -> &str {
    let Some((_, fenced)) = answer.split_once("```") else { return answer };
    let inside = fenced.split_once("```").map_or(fenced, |(inside, _)| inside);
    // The first line names a language.
    let (language, rest) = inside.split_once('\n').unwrap_or(("", inside));
    let named = language.trim().chars().all(|c| c.is_ascii_alphanumeric());
    if named { rest.trim() } else { inside.trim() }
}

fn of_object(answer: &str) -> Option<String> {
    let object = serde_json::from_str::<Value>(answer).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    FIELDS.iter().find_map(|field| object.get(field).and_then(text)).or_else(|| text(&object))
}

/// A line without heading, list mark, label and marks around all of it.
fn bare(line: &str) -> &str {
    let mut text = line.trim();
    loop {
        let before = text.len();
        text = without_pair(without_label(without_mark(text))).trim();
        if text.len() == before {
            return text.strip_suffix('。').unwrap_or(text);
        }
    }
}

/// `# `, `- `, `* `, `> `, `1. `, `2) `, `3、`.
fn without_mark(text: &str) -> &str {
    let heading = text.trim_start_matches('#');
    if heading.len() < text.len() && heading.starts_with(char::is_whitespace) {
        return heading.trim_start();
    }
    if let Some(rest) = ["- ", "* ", "• ", "> "].iter().find_map(|mark| text.strip_prefix(mark)) {
        return rest;
    }
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = (1..=MAX_LIST_DIGITS).contains(&(text.len() - rest.len()));
    let mark = [". ", ") ", "、", "） "].iter().find_map(|mark| rest.strip_prefix(mark));
    mark.filter(|_| numbered).unwrap_or(text)
}

/// `Title: …`, `**标题：** …`.
fn without_label(text: &str) -> &str {
    let Some((label, title)) = text.split_once([':', '：']) else { return text };
    let label = label.trim_matches(|c: char| c == '*' || c == '_' || c.is_whitespace()).to_lowercase();
    if LABELS.contains(&label.as_str()) || announces(&label, true) && !title.trim().is_empty() {
        return title.trim_start_matches(['*', '_']).trim_start();
    }
    text
}

/// The text within a pair of marks that stands around all of it and nowhere else in it.
fn without_pair(text: &str) -> &str {
    let within = PAIRS.iter().find_map(|(open, close)| {
        let inside = text.strip_prefix(open)?.strip_suffix(close)?;
        (!inside.is_empty() && !inside.contains(open) && !inside.contains(close)).then_some(inside)
    });
    within.unwrap_or(text)
}

/// Whether a line only says that a title follows.
fn announces(line: &str, others: bool) -> bool {
    let line = line.to_lowercase();
    let ends = line.ends_with([':', '：', '!', '！']);
    let begins = ANNOUNCEMENTS.iter().any(|start| line.starts_with(start));
    others && (ends || (begins && (line.contains("title") || line.contains("标题") || line.contains("headline"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_title_is_left_out_and_what_belongs_to_it_stays() {
        for (answer, found) in [
            ("\n\n# \"Monday meeting\"\nbecause", Some("Monday meeting")),
            ("《周会》", Some("周会")),
            ("《红楼梦》读书笔记", Some("《红楼梦》读书笔记")),
            ("读《红楼梦》", Some("读《红楼梦》")),
            ("Notes on C#", Some("Notes on C#")),
            ("Release of \"Aurora\"", Some("Release of \"Aurora\"")),
            ("\"Aurora\" and \"Borealis\"", Some("\"Aurora\" and \"Borealis\"")),
            ("\"Aurora\"", Some("Aurora")),
            ("```\nWeekly plan\n```", Some("Weekly plan")),
            ("```json\n{\"title\": \"Weekly plan\"}\n```", Some("Weekly plan")),
            ("{\"title\": \"周计划\"}", Some("周计划")),
            ("\"Weekly plan\"", Some("Weekly plan")),
            ("Here is a title for your note:\n\nWeekly plan", Some("Weekly plan")),
            ("Here is a title for your note: Weekly plan", Some("Weekly plan")),
            ("Sure! Here's a title:\n**Weekly plan**", Some("Weekly plan")),
            ("Title: Weekly plan", Some("Weekly plan")),
            ("**Title:** Weekly plan", Some("Weekly plan")),
            ("标题：周计划", Some("周计划")),
            ("好的，以下是标题：\n周计划。", Some("周计划")),
            ("1. Weekly plan\n2. The week ahead", Some("Weekly plan")),
            ("- Weekly plan\n- The week ahead", Some("Weekly plan")),
            ("Plan: the week ahead", Some("Plan: the week ahead")),
            ("3.14 is a day", Some("3.14 is a day")),
            ("2026 budget", Some("2026 budget")),
            ("#hashtags in use", Some("#hashtags in use")),
            ("*Weekly* plan", Some("*Weekly* plan")),
            ("snake_case_", Some("snake_case_")),
            ("What's next?", Some("What's next?")),
            (" \n ", None),
            ("***", None),
            ("", None),
        ] {
            assert_eq!(title(answer).as_deref(), found, "{answer:?}");
        }
        assert_eq!(title(&"长".repeat(500)).unwrap().chars().count(), MAX_CHARS);
    }
}
