//! Tables for people: one row a thing, no borders, columns that scripts can cut.

use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Row, Table as Grid, Width,
    presets,
};

use crate::output::{Output, one_line, printable};

const CELL_CHARS_MAX: usize = 1000;
/// Columns of running text, which are broken where the terminal is narrow. All others stay whole:
/// an id in two halves cannot be copied, and a line that the terminal breaks can.
const TEXTS: [&str; 7] = ["DETAIL", "ERROR", "BODY", "DESCRIPTION", "ABOUT", "ACTIONS", "SHUT OFF"];
/// So wide they stay at least; where there is less room, rows are left to the terminal to break.
const TEXT_WIDTH_MIN: u16 = 24;
const GAP: u16 = 2;

/// A table in the making.
pub(crate) struct Table {
    grid: Grid,
    colored: bool,
    width: Option<u16>,
}

impl Table {
    /// A table with these headings, fitted to where it is written.
    pub(crate) fn new(headings: &[&str], output: &Output) -> Table {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING);
        let colored = output.data_paint().on;
        if colored {
            grid.enforce_styling();
        } else {
            grid.force_no_tty();
        }
        match output.width {
            Some(width) => {
                grid.set_content_arrangement(ContentArrangement::Dynamic);
                grid.set_width(width);
            }
            None => {
                grid.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        grid.set_header(headings.iter().map(|heading| {
            let cell = Cell::new(heading);
            if colored { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
        grid.style_text_only();
        for (column, heading) in grid.column_iter_mut().zip(headings) {
            column.set_padding((0, GAP));
            if output.width.is_some() {
                column.set_constraint(match TEXTS.contains(heading) {
                    true => ColumnConstraint::LowerBoundary(Width::Fixed(TEXT_WIDTH_MIN)),
                    false => ColumnConstraint::ContentWidth,
                });
            }
        }
        Table { grid, colored, width: output.width }
    }

    /// Adds a row; a cell that is a status word gets its colour.
    pub(crate) fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let colored = self.colored;
        let row: Row = cells
            .into_iter()
            .map(|text| {
                let text = one_line(text.as_ref(), CELL_CHARS_MAX);
                let cell = Cell::new(&text);
                match color(&text) {
                    Some(color) if colored => cell.fg(color),
                    _ => cell,
                }
            })
            .collect::<Vec<Cell>>()
            .into();
        self.grid.add_row(row);
    }

    /// The text, without blanks at the ends of lines.
    pub(crate) fn text(mut self) -> String {
        let widths = self.grid.column_max_content_widths();
        let columns = self.grid.column_iter_mut().zip(widths);
        let least: u16 = columns
            .map(|(column, width)| match column.constraint() {
                Some(ColumnConstraint::LowerBoundary(_)) => width.min(TEXT_WIDTH_MIN),
                _ => width,
            })
            .fold(0, |sum, width| sum.saturating_add(width).saturating_add(GAP));
        if self.width.is_some_and(|width| least > width.saturating_add(GAP)) {
            self.grid.set_content_arrangement(ContentArrangement::Disabled);
            for column in self.grid.column_iter_mut() {
                column.remove_constraint();
            }
        }
        let lines: Vec<String> = self.grid.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

fn color(text: &str) -> Option<Color> {
    match text {
        "success" | "healthy" => Some(Color::Green),
        "failure" | "stuck" | "unreachable" => Some(Color::Red),
        "cancelled" | "rolled_back" | "waiting" | "paused" | "degraded" | "draining" => {
            Some(Color::Yellow)
        }
        "running" => Some(Color::Cyan),
        _ => None,
    }
}

/// Names and values in two columns, without headings.
pub(crate) fn details(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let lines: Vec<String> = rows
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            let indent = " ".repeat(width + 2);
            let value = printable(value).replace('\n', &format!("\n{indent}"));
            format!("{name:width$}  {value}")
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Format;

    #[test]
    fn on_a_narrow_terminal_texts_are_broken_and_ids_are_not() {
        let table = |width| {
            let mut output = Output::into(std::io::sink(), std::io::sink(), Format::Table);
            output.width = Some(width);
            let mut table = Table::new(&["RUN", "ERROR"], &output);
            table.row(["01a1fc83-4be7-7ea3-96a5-182fcdc71605", "the disk of this machine is full"]);
            table.text()
        };
        assert_eq!(table(80), table(200));
        let broken = "\
RUN                                   ERROR
01a1fc83-4be7-7ea3-96a5-182fcdc71605  the disk of this machine
                                      is full";
        assert_eq!(table(64), broken);
        assert_eq!(table(40), table(80));
    }
}
