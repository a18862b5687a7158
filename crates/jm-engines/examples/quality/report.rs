//! The figures: a table for people, JSON for programs.

use std::{
    env, fmt,
    io::{IsTerminal, stdout},
};

use anyhow::Result;
use serde::Serialize;

/// Columns of the table, which has 80 with the blanks between them.
const INPUT_COLUMNS: usize = 46;
const FIGURE_COLUMNS: usize = 10;
const BOUND_COLUMNS: usize = 13;
const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";
const BOLD: &str = "\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";

/// How figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Each as soon as it is there.
    Table { colour: bool },
    /// All at the end.
    Json,
}

/// What has been measured.
#[derive(Debug)]
pub(crate) struct Report {
    format: Format,
    rows: Vec<Row>,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What is measured: `word error rate`.
    pub(crate) measure: &'static str,
    /// On what.
    pub(crate) input: String,
    pub(crate) figure: f64,
    pub(crate) unit: Unit,
    pub(crate) bound: Bound,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Percent,
    Seconds,
    /// Of one time to another.
    Ratio,
    Count,
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    Below(f64),
    AtMost(f64),
    AtLeast(f64),
    /// Anything: it is told so that it is known.
    None,
}

#[derive(Serialize)]
struct Judged<'a> {
    #[serde(flatten)]
    row: &'a Row,
    ok: bool,
}

#[derive(Serialize)]
struct Everything<'a> {
    ok: bool,
    figures: Vec<Judged<'a>>,
}

impl Format {
    /// In colour on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn table() -> Self {
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::Table { colour: stdout().is_terminal() && !plain }
    }
}

impl Report {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, rows: Vec::new() }
    }

    /// Takes down a figure.
    pub(crate) fn add(&mut self, row: Row) {
        if let Format::Table { colour } = self.format {
            // A heading for each kind of figure.
            if self.rows.last().is_none_or(|last| last.measure != row.measure) {
                println!("{}", painted(row.measure, BOLD, colour));
            }
            println!("{}", row.line(colour));
        }
        self.rows.push(row);
    }

    /// Says how it went.
    pub(crate) fn finish(&self) -> Result<()> {
        let figures: Vec<_> = self.rows.iter().map(|row| Judged { row, ok: row.is_good() }).collect();
        match self.format {
            Format::Json => println!("{}", serde_json::to_string_pretty(&Everything { ok: self.is_good(), figures })?),
            Format::Table { .. } => {
                let missed = figures.iter().filter(|figure| !figure.ok).count();
                println!("\n{} figures, {missed} of them out of bounds", figures.len());
            }
        }
        Ok(())
    }

    /// Whether every figure is within its bound.
    pub(crate) fn is_good(&self) -> bool {
        self.rows.iter().all(Row::is_good)
    }
}

impl Row {
    fn is_good(&self) -> bool {
        match self.bound {
            Bound::Below(bound) => self.figure < bound,
            Bound::AtMost(bound) => self.figure <= bound,
            Bound::AtLeast(bound) => self.figure >= bound,
            Bound::None => true,
        }
    }

    fn line(&self, colour: bool) -> String {
        let (verdict, paint) = match self.bound {
            Bound::None => ("", PLAIN),
            _ if self.is_good() => ("ok", GREEN),
            _ => ("FAILED", RED),
        };
        let (figure, bound) = (self.unit.of(self.figure), self.bound.to_string());
        let line = format!(
            "  {:INPUT_COLUMNS$}{figure:>FIGURE_COLUMNS$}{bound:>BOUND_COLUMNS$}  {}",
            self.input,
            painted(verdict, paint, colour)
        );
        line.trim_end().to_owned()
    }
}

impl Unit {
    fn of(self, figure: f64) -> String {
        match self {
            Self::Percent => format!("{figure:.1} %"),
            Self::Seconds => format!("{figure:.2} s"),
            Self::Ratio => format!("{figure:.2}"),
            Self::Count => format!("{figure}"),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(bound) => write!(f, "below {bound}"),
            Self::AtMost(bound) => write!(f, "at most {bound}"),
            Self::AtLeast(bound) => write!(f, "at least {bound}"),
            Self::None => Ok(()),
        }
    }
}

fn painted(text: &str, paint: &str, colour: bool) -> String {
    if colour { format!("{paint}{text}{PLAIN}") } else { text.to_owned() }
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "nothing here counts further than a few hundred")]
pub(crate) fn whole(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figure: f64, bound: Bound) -> Row {
        Row { measure: "m", input: "x".repeat(INPUT_COLUMNS), figure, unit: Unit::Percent, bound }
    }

    #[test]
    fn a_figure_is_good_up_to_its_bound_and_one_that_is_none_never() {
        for (figure, bound, good) in [
            (10.0, Bound::AtMost(10.0), true),
            (10.1, Bound::AtMost(10.0), false),
            (1.0, Bound::Below(1.0), false),
            (8.0, Bound::AtLeast(8.0), true),
            (7.0, Bound::AtLeast(8.0), false),
            (f64::NAN, Bound::AtMost(10.0), false),
            (f64::NAN, Bound::AtLeast(10.0), false),
            (1.0, Bound::None, true),
        ] {
            assert_eq!(row(figure, bound).is_good(), good, "{figure} {bound}");
        }
    }

    #[test]
    fn a_line_has_at_most_eighty_columns() {
        for figure in [0.0, 123.4] {
            let line = row(figure, Bound::AtLeast(100.5)).line(false);
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
