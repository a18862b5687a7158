//! Tables that fit 80 columns: no frames, cells wrapped where they have to be.

use comfy_table::{Attribute, CellAlignment, Color, ContentArrangement, TableStyle};
use console::AnsiCodeIterator;

use super::{
    WIDTH,
    text::{Text, kept_together, let_apart},
};

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table. Print it by [`super::Output::line`], which leaves its colours out where nobody would see them.
#[derive(Debug)]
pub(crate) struct Table(comfy_table::Table);

/// One cell: its text, and how it looks on a terminal.
#[derive(Clone, Debug)]
pub(crate) struct Cell(comfy_table::Cell);

impl Table {
    /// The columns' headings.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(TableStyle::new());
        table.set_content_arrangement(ContentArrangement::Dynamic).enforce_styling();
        table.set_width(u16::try_from(WIDTH).unwrap_or(u16::MAX));
        table.set_header(
            columns.iter().map(|(heading, _)| comfy_table::Cell::new(heading).add_attribute(Attribute::Bold)),
        );
        for (column, (_, align)) in table.column_iter_mut().zip(columns) {
            // Two blanks between columns, none before the first and behind the last.
            column.set_padding((0, 2));
            column.set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        Self(table)
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.0.add_row(cells.into_iter().map(|cell| cell.0));
    }
}

impl Cell {
    fn of(text: impl Into<Text>) -> comfy_table::Cell {
        comfy_table::Cell::new(kept_together(text.into().as_str()))
    }

    pub(crate) fn new(text: impl Into<Text>) -> Self {
        Self(Self::of(text))
    }

    pub(crate) fn good(text: impl Into<Text>) -> Self {
        Self(Self::of(text).fg(Color::Green))
    }

    pub(crate) fn notice(text: impl Into<Text>) -> Self {
        Self(Self::of(text).fg(Color::Yellow))
    }

    pub(crate) fn bad(text: impl Into<Text>) -> Self {
        Self(Self::of(text).fg(Color::Red).add_attribute(Attribute::Bold))
    }

    /// What is not known, or not there.
    pub(crate) fn none() -> Self {
        Self(comfy_table::Cell::new("-").add_attribute(Attribute::Dim))
    }
}

impl From<Table> for Text {
    fn from(table: Table) -> Self {
        let lines: Vec<String> = table.0.lines().map(|line| trimmed(&let_apart(&line))).collect();
        Self::made_of_escaped(lines.join("\n"))
    }
}

/// Without the blanks at its end, also where the end of a style stands behind them.
fn trimmed(line: &str) -> String {
    let parts: Vec<(&str, bool)> = AnsiCodeIterator::new(line).collect();
    let is_text = |(part, is_style): &(&str, bool)| !is_style && !part.trim_end().is_empty();
    let last = parts.iter().rposition(is_text);
    let kept = parts.iter().enumerate().map(|(index, (part, is_style))| match last {
        _ if *is_style => part,
        Some(last) if index < last => part,
        Some(last) if index == last => part.trim_end(),
        _ => "",
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_has_blanks_at_its_end_with_colours_or_without() {
        let mut table = Table::new(&[("name", Align::Left), ("state", Align::Left), ("", Align::Left)]);
        table.row([Cell::new("a b"), Cell::bad("missing"), Cell::new("")]);
        table.row([Cell::new("a"), Cell::none(), Cell::new("with a text")]);
        let coloured = Text::from(table);
        let coloured = coloured.as_str();
        assert!(coloured.contains("\u{1b}[1mname"), "{coloured:?}");
        let plain = console::strip_ansi_codes(coloured);
        assert_eq!(plain, "name  state\na b   missing\na     -        with a text");
        assert!(
            coloured.lines().all(|line| line.matches("\u{1b}[0m").count() >= line.matches("\u{1b}[1m").count().min(1))
        );
    }
}
