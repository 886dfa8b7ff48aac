//! How far an import is, on standard error: one line that is written over on a terminal, a line now and then
//! elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use crate::service::moving::Counts;

/// How often a terminal is told, and how often a log.
const ON_TERMINAL: Duration = Duration::from_millis(200);
const IN_LOG: Duration = Duration::from_secs(10);

pub(super) struct Progress {
    total: Option<u64>,
    is_terminal: bool,
    began: Instant,
    shown: Instant,
}

impl Progress {
    pub(super) fn new(total: Option<u64>) -> Self {
        let now = Instant::now();
        Self { total, is_terminal: stderr().is_terminal(), began: now, shown: now }
    }

    pub(super) fn show(&mut self, counts: &Counts) {
        if self.shown.elapsed() < if self.is_terminal { ON_TERMINAL } else { IN_LOG } {
            return;
        }
        self.shown = Instant::now();
        let rows = counts.rows();
        let rate = rows as f64 / self.began.elapsed().as_secs_f64();
        let part = match self.total {
            Some(total) => format!("{rows} of {total} rows"),
            None => format!("{rows} rows"),
        };
        let line = format!("{part}, {rate:.0} a second, {} refused", counts.refusals());
        // Nothing is lost when nobody reads it.
        let _ = match (self.is_terminal, self.total) {
            (true, Some(total)) => write!(stderr(), "\r{} {line}\x1b[K", bar(rows, total)),
            (true, None) => write!(stderr(), "\r{line}\x1b[K"),
            (false, _) => writeln!(stderr(), "identity: {line}"),
        };
    }

    pub(super) fn finish(&self) {
        if self.is_terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn bar(rows: u64, total: u64) -> String {
    const WIDTH: usize = 30;
    let done = (rows as f64 / total.max(1) as f64).min(1.0) * WIDTH as f64;
    let done = done as usize;
    format!("[{}{}]", "#".repeat(done), "-".repeat(WIDTH - done))
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn the_bar_fills_and_does_not_overflow() {
        for (rows, total, full) in [(0, 10, 0), (5, 10, 15), (10, 10, 30), (11, 10, 30), (0, 0, 0)] {
            assert_eq!(bar(rows, total), format!("[{}{}]", "#".repeat(full), "-".repeat(30 - full)));
        }
    }
}
