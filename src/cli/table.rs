//! What commands print of users, tenants, events, keys and service tokens: tables for people, JSON for programs.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::Outcome;
use super::streams::{StandardOutput, notify};
use crate::domain::{PageSize, Timestamp};
use crate::service::directory::pieces::{Cursor, Found, Listed};
use crate::storage::StorageError;

/// How many entries are in memory at once.
const PAGE: usize = 500;

/// Who reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Table,
    Json,
}

impl Form {
    /// JSON where it is asked for, and where standard output is no terminal.
    pub(super) fn of(json: bool) -> Self {
        if json || !io::stdout().is_terminal() { Self::Json } else { Self::Table }
    }
}

/// One entry of a list. Its JSON has the contract's names.
pub(super) trait Row: Serialize {
    /// What the columns of a table are called.
    const COLUMNS: &'static [&'static str];

    /// What is in them, one text each.
    fn cells(&self) -> Vec<String>;

    /// What is told of an entry that is printed alone, with what it is called.
    fn lines(&self) -> Vec<(&'static str, String)> {
        Self::COLUMNS.iter().copied().zip(self.cells()).collect()
    }
}

/// Prints one entry: for people, a line for each thing told of it.
pub(super) fn print_one<R: Row>(form: Form, row: &R) -> Outcome {
    let text = match form {
        Form::Json => serde_json::to_string_pretty(row)? + "\n",
        Form::Table => {
            let lines = row.lines();
            let width = lines.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
            let line = |(name, text): &(&str, String)| format!("{name:<width$}  {}\n", printable(text));
            lines.iter().map(line).collect()
        }
    };
    Ok(StandardOutput.write_all(text.as_bytes())?)
}

/// Prints a list that is short enough to be at hand.
pub(super) fn print_all<R: Row>(form: Form, rows: &[R]) -> Outcome {
    let mut printer = Printer::new::<R>(form);
    printer.print(rows)?;
    Ok(printer.finish()?)
}

/// Prints at most `most` entries of a list, which `page` gets: about so many, from behind a place on. A page may
/// be short, or empty, and not be the last. Holds one page at a time, however long the list is.
pub(super) async fn print_list<T: Listed, R: Row>(
    form: Form,
    most: usize,
    show: impl Fn(&T) -> R,
    mut page: impl AsyncFnMut(PageSize, Option<Cursor>) -> Result<Found<T>, StorageError>,
) -> Outcome {
    let mut printer = Printer::new::<R>(form);
    let (mut left, mut after) = (most, None);
    loop {
        let size = PageSize::requested(i32::try_from(left.min(PAGE)).unwrap_or(i32::MAX))?;
        let Found { entries, next } = page(size, after).await?;
        printer.print(&entries.iter().map(&show).collect::<Vec<_>>())?;
        left -= entries.len();
        if next.is_none() || left == 0 {
            printer.finish()?;
            if next.is_some() {
                notify("identity: there are more; --all lists all of them");
            }
            return Ok(());
        }
        after = next;
    }
}

/// Writes a list as it comes.
struct Printer {
    form: Form,
    out: BufWriter<StandardOutput>,
    columns: &'static [&'static str],
    /// Those of all rows up to now: a later page may be wider, and stays so.
    widths: Vec<usize>,
    is_empty: bool,
}

impl Printer {
    fn new<R: Row>(form: Form) -> Self {
        let widths = R::COLUMNS.iter().map(|name| name.width()).collect();
        Self { form, out: BufWriter::new(StandardOutput), columns: R::COLUMNS, widths, is_empty: true }
    }

    fn print<R: Row>(&mut self, rows: &[R]) -> io::Result<()> {
        match self.form {
            Form::Json => {
                for row in rows {
                    self.out.write_all(if self.is_empty { b"[\n  " } else { b",\n  " })?;
                    serde_json::to_writer(&mut self.out, row)?;
                    self.is_empty = false;
                }
            }
            Form::Table => {
                let cells = |row: &R| row.cells().iter().map(|cell| printable(cell)).collect::<Vec<_>>();
                let rows: Vec<_> = rows.iter().map(cells).collect();
                for row in &rows {
                    let widened = self.widths.iter().zip(row).map(|(width, cell)| cell.width().max(*width));
                    self.widths = widened.collect();
                }
                if self.is_empty {
                    self.line(&self.columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
                    self.is_empty = false;
                }
                rows.iter().try_for_each(|row| self.line(row))?;
            }
        }
        self.out.flush()
    }

    fn line(&mut self, cells: &[String]) -> io::Result<()> {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&self.widths) {
            line += cell;
            // `format!` would count characters, of which some take two columns and some none.
            line.extend(std::iter::repeat_n(' ', (width - cell.width()) + 2));
        }
        writeln!(self.out, "{}", line.trim_end())
    }

    fn finish(mut self) -> io::Result<()> {
        match (self.form, self.is_empty) {
            (Form::Json, true) => self.out.write_all(b"[]\n")?,
            (Form::Json, false) => self.out.write_all(b"\n]\n")?,
            (Form::Table, _) => {}
        }
        self.out.flush()
    }
}

/// The text without what a terminal acts on: control characters, and those that turn the direction of writing.
pub(super) fn printable(text: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if acts(c) { '\u{fffd}' } else { c }).collect()
}

/// The time as RFC 3339 writes it, to the microsecond.
pub(super) fn precise(time: Timestamp) -> String {
    let micros = u64::try_from(time.as_unix_micros()).unwrap_or(0);
    humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(micros)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_printed() {
        assert_eq!(
            printable("Ze\u{308} \u{1b}[2J\u{202e}\u{7f}\u{65e5}"),
            "Ze\u{308} \u{fffd}[2J\u{fffd}\u{fffd}\u{65e5}"
        );
    }

    #[test]
    fn a_time_is_printed_to_the_microsecond() {
        assert_eq!(
            precise(Timestamp::from_unix_micros(1_700_000_000_000_001)),
            "2023-11-14T22:13:20.000001Z"
        );
        assert_eq!(precise(Timestamp::from_unix_micros(-1)), "1970-01-01T00:00:00.000000Z");
    }
}
