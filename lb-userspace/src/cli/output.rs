//! Tables for people, JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: Format,
    /// Standard output is a terminal.
    pub(super) terminal: bool,
    color: bool,
}

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Warning,
    Bad,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        // https://no-color.org: present and not empty.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { format, terminal, color: terminal && !unwanted }
    }

    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// The document as JSON, or what `table` makes of it.
    pub(super) fn print<T: Serialize>(self, document: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let text = if self.is_json() { serde_json::to_string(document)? } else { table(document) };
        self.say(&text)
    }

    /// A line on standard output.
    pub(super) fn say(self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", text.trim_end())?;
        Ok(stdout.flush()?)
    }

    /// A table with these columns; those of `numbers` are set to the right.
    pub(super) fn table(self, header: &[&str], numbers: &[usize]) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(header.iter().map(Cell::new));
        if self.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if numbers.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// Text in the colour of its meaning.
    pub(super) fn paint(self, text: &str, tone: Tone) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        format!("\x1b[1;{code}m{text}\x1b[0m")
    }
}

/// A cell in the colour of its meaning.
pub(super) fn cell(text: impl ToString, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Good => cell.fg(Color::Green),
        Tone::Warning => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red).add_attribute(Attribute::Bold),
    }
}

/// The word for a value in configuration and JSON: "round-robin".
pub(super) fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
