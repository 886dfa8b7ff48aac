//! Writes lines to a pipe, a file or a terminal on a thread of its own, so that a reader that falls behind, or
//! does not read at all, blocks only that thread.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::metrics::{self, Counter, Registry};

/// The most bytes that wait to be written, not counting those that are being written: some ten thousand
/// lines of the log, so that a reader may pause for a second under full load.
const CAPACITY: usize = 4 * 1024 * 1024;

/// The most bytes in one write, unless a line is longer: POSIX keeps a write of up to PIPE_BUF bytes to a pipe
/// together, so that lines of several processes do not mix. This is the PIPE_BUF of Linux.
const MAX_WRITE: usize = 4096;

/// How long the thread waits after the first line for others to write with it. Under load, one wake-up of the
/// thread serves many lines.
const GATHERING: Duration = Duration::from_millis(1);

/// The pause before a write is repeated that found a non-blocking descriptor full.
const RETRY: Duration = Duration::from_millis(10);

/// The most memory that the thread keeps for its next write.
const KEPT_BUFFER: usize = 64 * 1024;

/// A bounded queue of lines, and the thread that writes them. Lines that do not fit are dropped and counted.
/// Cheap to clone; the thread ends when the last clone is dropped and the queue is empty.
#[derive(Clone)]
pub struct LineWriter(Arc<Handle>);

/// Ends the thread when dropped.
struct Handle(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// There are lines to write, or there will be no more.
    filled: Condvar,
    /// Everything was written.
    emptied: Condvar,
    dropped: DroppedLines,
}

#[derive(Default)]
struct State {
    /// Lines, each with its end.
    waiting: Vec<u8>,
    is_writing: bool,
    is_closed: bool,
    /// Lines dropped since the last report.
    unreported: u64,
}

/// How many lines were dropped. All clones count the same.
#[derive(Clone, Debug, Default)]
pub struct DroppedLines(Counter);

impl DroppedLines {
    /// The number since the process started.
    pub fn count(&self) -> u64 {
        self.0.get()
    }

    /// Adds the metric to those of the process.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Lines of the log that were dropped because standard error was not read in time";
        metrics::register(registry, "log_lines_dropped", help, self.0.clone());
    }
}

impl LineWriter {
    /// Writes to the descriptor of `target`. `report` is told how many lines were dropped since its last
    /// call, as soon as there is room again; a line that it writes here comes where the dropped ones are
    /// missing.
    ///
    /// # Errors
    /// When the system has no descriptor or no thread left.
    pub fn start(target: impl AsFd, report: impl Fn(u64) + Send + 'static) -> io::Result<Self> {
        // A descriptor of its own: the locks of `std::io::stderr` would be held while a write blocks.
        let target = File::from(target.as_fd().try_clone_to_owned()?);
        Self::start_on(target, report)
    }

    fn start_on(
        target: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let lines = Self(Arc::new(Handle(Arc::clone(&queue))));
        thread::Builder::new().name("lines".to_owned()).spawn(move || queue.work(target, &report))?;
        Ok(lines)
    }

    /// Queues one or more whole lines, or drops them when there is no room. Never waits.
    pub fn push(&self, lines: &[u8]) {
        self.0.0.push(lines);
    }

    /// Waits until everything queued is written, `limit` at most.
    pub fn flush(&self, limit: Duration) {
        let queue = &self.0.0;
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        // What is not written by then never will be.
        drop(queue.emptied.wait_timeout_while(queue.lock(), limit, is_busy));
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> DroppedLines {
        self.0.0.dropped.clone()
    }
}

impl fmt::Debug for LineWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineWriter(…)")
    }
}

/// Each write is a line.
impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.filled.notify_one();
    }
}

impl Queue {
    // Nothing panics under the lock, so the state behind a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, lines: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + lines.len() > CAPACITY {
            self.drop_lines(&mut state, lines);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(lines);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn drop_lines(&self, state: &mut State, lines: &[u8]) {
        let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        state.unreported += count;
        self.dropped.0.inc_by(count);
    }

    fn work(&self, mut target: impl Write, report: &impl Fn(u64)) {
        let mut lines = Vec::new();
        let mut is_broken = false;
        while self.take(&mut lines) {
            // Where writing fails, a report would fail too, and be reported.
            if !is_broken {
                self.report(report);
            }
            let written = write_lines(&mut target, &lines);
            is_broken = written < lines.len();
            let mut state = self.lock();
            self.drop_lines(&mut state, &lines[written..]);
            state.is_writing = false;
            drop(state);
            self.emptied.notify_all();
            lines.clear();
            lines.shrink_to(KEPT_BUFFER);
        }
    }

    /// Waits for lines and takes all there are into `lines`, which is empty. False when there will be no more.
    fn take(&self, lines: &mut Vec<u8>) -> bool {
        let is_idle = |state: &mut State| state.waiting.is_empty() && !state.is_closed;
        let mut state = self.lock();
        if is_idle(&mut state) {
            drop(self.filled.wait_while(state, is_idle));
            thread::sleep(GATHERING);
            state = self.lock();
        }
        std::mem::swap(&mut state.waiting, lines);
        state.is_writing = !lines.is_empty();
        state.is_writing
    }

    fn report(&self, report: &impl Fn(u64)) {
        let dropped = std::mem::take(&mut self.lock().unreported);
        if dropped > 0 {
            report(dropped);
        }
    }
}

/// Writes `lines`, and returns how many bytes of them were written: all, or the whole writes before an error.
fn write_lines(target: &mut impl Write, lines: &[u8]) -> usize {
    let mut written = 0;
    while written < lines.len() {
        let rest = &lines[written..];
        let length = length_of_write(rest);
        if write_all(target, &rest[..length]).is_err() {
            break;
        }
        written += length;
    }
    written
}

/// The whole lines at the start of `lines` that go into one write.
fn length_of_write(lines: &[u8]) -> usize {
    let is_end = |byte: &u8| *byte == b'\n';
    let first = &lines[..lines.len().min(MAX_WRITE)];
    let end = first.iter().rposition(is_end).or_else(|| lines.iter().position(is_end));
    end.map_or(lines.len(), |end| end + 1)
}

/// As [`Write::write_all`], which gives up where a non-blocking descriptor is full.
fn write_all(target: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match target.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const NEVER: Duration = Duration::from_secs(600);

    /// A target whose writes each wait until the test lets them through.
    struct Gate {
        passes: Receiver<io::Result<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Open once the test has let go of it.
            self.passes.recv().unwrap_or(Ok(()))?;
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A writer that reports into itself, what lets its writes through, and what was written.
    fn gated() -> (LineWriter, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let (pass, passes) = channel();
        let (sender, written) = channel();
        let (this, writer) = channel::<LineWriter>();
        let report = move |dropped| {
            let writer = writer.recv().unwrap();
            writer.push(format!("{dropped} dropped\n").as_bytes());
        };
        let lines = LineWriter::start_on(Gate { passes, written: sender }, report).unwrap();
        for _ in 0..3 {
            this.send(lines.clone()).unwrap();
        }
        (lines, pass, written)
    }

    #[test]
    fn lines_are_written_whole_in_their_order_and_together_as_far_as_a_pipe_keeps_them_together() {
        let (lines, pass, written) = gated();
        let all: Vec<String> =
            (0..500).map(|number| format!("{number}{}\n", "x".repeat(number * 10))).collect();
        for line in &all {
            lines.push(line.as_bytes());
        }
        drop(pass);
        lines.flush(NEVER);
        let writes: Vec<Vec<u8>> = written.try_iter().collect();
        assert_eq!(writes.concat(), all.concat().into_bytes());
        assert!(writes.len() < all.len());
        for write in writes {
            let is_one_line = write.iter().filter(|byte| **byte == b'\n').count() == 1;
            assert!(write.ends_with(b"\n") && (write.len() <= MAX_WRITE || is_one_line));
        }
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_counted_and_their_number_is_written_where_they_are_missing() {
        let (lines, pass, written) = gated();
        let first = "first\n".as_bytes();
        lines.push(first);
        pass.send(Ok(())).unwrap();
        assert_eq!(written.recv().unwrap(), first);
        // The next write hangs, with `second` in it.
        lines.push(b"second\n");
        while !lines.0.0.lock().waiting.is_empty() {
            thread::yield_now();
        }
        let line = [vec![b'x'; CAPACITY / 4 - 1], vec![b'\n']].concat();
        for _ in 0..10 {
            lines.push(&line);
        }
        assert_eq!(lines.dropped().count(), 6);
        drop(pass);
        lines.flush(NEVER);
        lines.push(b"last\n");
        lines.flush(NEVER);
        let all = written.try_iter().collect::<Vec<_>>().concat();
        assert_eq!(all, [b"second\n".to_vec(), line.repeat(4), b"6 dropped\nlast\n".to_vec()].concat());
        assert_eq!(lines.dropped().count(), 6);
    }

    #[test]
    fn a_reader_who_does_not_read_holds_up_neither_a_line_nor_the_end() {
        let (lines, _pass, _written) = gated();
        for _ in 0..100 {
            lines.push(&[b"x".repeat(100_000), b"\n".to_vec()].concat());
        }
        lines.flush(Duration::from_millis(10));
        assert!(lines.dropped().count() > 0);
    }

    #[test]
    fn what_cannot_be_written_counts_as_dropped_and_is_told_when_writing_works_again() {
        let (lines, pass, written) = gated();
        pass.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        lines.push(b"one\n");
        lines.flush(NEVER);
        assert_eq!(lines.dropped().count(), 1);
        drop(pass);
        lines.push(b"two\n");
        lines.flush(NEVER);
        lines.push(b"three\n");
        lines.flush(NEVER);
        let all = written.try_iter().collect::<Vec<_>>().concat();
        assert_eq!(String::from_utf8(all).unwrap(), "two\nthree\n1 dropped\n");
    }

    #[test]
    fn what_was_queued_is_written_although_the_writer_was_let_go() {
        let (pass, passes) = channel();
        let (sender, written) = channel();
        let lines = LineWriter::start_on(Gate { passes, written: sender }, |_| {}).unwrap();
        lines.push(b"one\n");
        drop((lines, pass));
        // Ends when the thread does.
        assert_eq!(written.iter().collect::<Vec<_>>().concat(), b"one\n");
    }
}
