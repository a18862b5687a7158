//! Prometheus' text format, as far as a test reads it.

use std::borrow::Cow;

/// The sum of the samples of `name` whose labels include `labels`; `None` if there is no such sample.
pub(crate) fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let samples = text.lines().filter_map(sample).filter(|sample| sample.name == name);
    let wanted = samples.filter(|sample| {
        labels.iter().all(|(name, value)| sample.labels.iter().any(|(known, seen)| known == name && seen == value))
    });
    wanted.map(|sample| sample.value).reduce(|sum, value| sum + value)
}

struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, Cow<'a, str>)>,
    value: f64,
}

/// `None` for comments, blank lines, and what is no sample.
fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    let end = line.find(['{', ' ', '\t']).filter(|_| !line.starts_with('#'))?;
    let (name, rest) = line.split_at(end);
    let mut rest = rest.trim_start();
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner.trim_start();
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once('=')?;
            let (value, behind) = quoted(value.trim_start())?;
            labels.push((label.trim_end(), value));
            rest = behind.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        rest = &rest[1..];
    }
    // A time may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// The content of the quotes that `text` begins with, and what follows them.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let text = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = text.find(|letter| match letter {
        _ if escaped => {
            escaped = false;
            false
        }
        '\\' => {
            escaped = true;
            false
        }
        letter => letter == '"',
    })?;
    let (value, rest) = (&text[..end], &text[end + 1..]);
    if !value.contains('\\') {
        return Some((Cow::Borrowed(value), rest));
    }
    let mut plain = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next()? {
                'n' => '\n',
                other => other,
            },
            letter => letter,
        });
    }
    Some((Cow::Owned(plain), rest))
}

#[cfg(test)]
mod tests {
    use super::sum;

    const TEXT: &str = r#"
# HELP jobs_total {not="a sample"} 7
# TYPE jobs_total counter
jobs_total{queue="a",outcome="done"} 3
jobs_total{queue="a",outcome="failed",} 4 1395066363000
jobs_total { queue = "b" , outcome="done" } 1e1
jobs_total_other 100
up 1
odd{text="a \"quoted\" }, \\ and\nmore",x="1"} 0.5
odd{text="",x="2"} +Inf
broken{text="no end 9
lag{le="+Inf"} 12
"#;

    #[test]
    #[expect(clippy::float_cmp, reason = "the values are read as they are written")]
    fn samples_are_summed_over_the_labels_that_were_not_given() {
        let of = |name: &str, labels: &[(&str, &str)]| sum(TEXT, name, labels).unwrap_or(-1.0);
        assert_eq!(of("jobs_total", &[]), 17.0);
        assert_eq!(of("jobs_total", &[("outcome", "done")]), 13.0);
        assert_eq!(of("jobs_total", &[("outcome", "failed"), ("queue", "a")]), 4.0);
        assert_eq!(of("up", &[]), 1.0);
        assert_eq!(of("lag", &[("le", "+Inf")]), 12.0);
        assert_eq!(of("odd", &[("text", "a \"quoted\" }, \\ and\nmore")]), 0.5);
        assert_eq!(of("odd", &[("x", "2")]), f64::INFINITY);
    }

    #[test]
    fn what_is_not_there_is_none() {
        for (name, labels) in [
            ("jobs", &[][..]),
            ("up", &[("queue", "a")]),
            ("jobs_total", &[("queue", "b"), ("outcome", "failed")]),
            ("broken", &[]),
            ("#", &[]),
        ] {
            assert_eq!(sum(TEXT, name, labels), None, "{name}");
        }
    }
}
