//! Tables for people: one row a thing, no borders, columns that scripts can cut.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Row, Table as Grid, presets};

use crate::output::{Output, one_line, printable};

const CELL_CHARS_MAX: usize = 1000;

/// A table in the making.
pub(crate) struct Table {
    grid: Grid,
    colored: bool,
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
        for column in grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Table { grid, colored }
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
    pub(crate) fn text(self) -> String {
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
