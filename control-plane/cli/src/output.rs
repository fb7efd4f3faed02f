//! Where a command writes: data to stdout, everything else to stderr.
//!
//! A reader that closes early is no error: what it does not want is dropped.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};

use crate::arguments::{ColorChoice, Format, Globals};

/// The two streams and how to write to them.
pub(crate) struct Output {
    data: Box<dyn Write>,
    notes: Box<dyn Write>,
    /// Table or JSON.
    pub(crate) format: Format,
    data_paint: Paint,
    note_paint: Paint,
    /// The width that tables are fitted into; none where stdout is no terminal.
    pub(crate) width: Option<u16>,
    /// Whether stderr can redraw its lines.
    pub(crate) live: bool,
}

impl Output {
    /// The streams of this process.
    pub(crate) fn of_process(globals: &Globals) -> Output {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colored = |terminal: bool| match globals.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !plain,
        };
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let table = comfy_table::Table::new();
        Output {
            data_paint: Paint { on: colored(stdout.is_terminal()) },
            note_paint: Paint { on: colored(stderr.is_terminal()) },
            width: if stdout.is_terminal() { table.width() } else { None },
            live: stderr.is_terminal() && !dumb,
            data: Box::new(io::LineWriter::new(stdout)),
            notes: Box::new(stderr),
            format: globals.output,
        }
    }

    /// Streams that end in these writers, without colours.
    #[cfg(test)]
    pub(crate) fn into(
        data: impl Write + 'static,
        notes: impl Write + 'static,
        format: Format,
    ) -> Output {
        Output {
            data: Box::new(data),
            notes: Box::new(notes),
            format,
            data_paint: Paint::default(),
            note_paint: Paint::default(),
            width: None,
            live: false,
        }
    }

    /// Whether JSON is asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes lines to stdout.
    pub(crate) fn data(&mut self, text: &str) -> io::Result<()> {
        let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        let written = self
            .data
            .write_all(text.as_bytes())
            .and_then(|()| self.data.write_all(end.as_bytes()))
            .and_then(|()| self.data.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// Writes lines to stderr. Nobody can be told that this failed.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = self.notes.write_all(format!("{text}\n").as_bytes());
        let _ = self.notes.flush();
    }

    /// The colours of stdout.
    pub(crate) fn data_paint(&self) -> Paint {
        self.data_paint
    }

    /// The colours of stderr.
    pub(crate) fn note_paint(&self) -> Paint {
        self.note_paint
    }
}

/// Puts colours on text, or leaves it as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paint {
    /// Whether colours are wanted.
    pub(crate) on: bool,
}

impl Paint {
    /// For what failed.
    pub(crate) fn red(self, text: impl Display) -> String {
        self.wrap("31", text)
    }

    /// For what went well.
    pub(crate) fn green(self, text: impl Display) -> String {
        self.wrap("32", text)
    }

    /// For what wants attention.
    pub(crate) fn yellow(self, text: impl Display) -> String {
        self.wrap("33", text)
    }

    /// For what goes on.
    pub(crate) fn cyan(self, text: impl Display) -> String {
        self.wrap("36", text)
    }

    /// For what is beside the point.
    pub(crate) fn dim(self, text: impl Display) -> String {
        self.wrap("2", text)
    }

    /// For headings.
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.wrap("1", text)
    }

    fn wrap(self, code: &str, text: impl Display) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}

/// Text that comes from elsewhere, over lines, without characters that could steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// One line of text that comes from elsewhere: control characters, which could steer the
/// terminal, become spaces, and what is too long is cut.
pub(crate) fn one_line(text: &str, width_max: usize) -> String {
    let mut line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(width_max).collect();
    if text.trim().chars().nth(width_max).is_some() {
        line.pop();
        line.push('…');
    }
    line
}
