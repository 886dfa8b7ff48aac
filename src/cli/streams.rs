//! Standard output and standard error. Whoever reads them may stop at any time, as `| head` does.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};

/// Standard output was closed by its reader.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
struct OutputClosed;

/// Standard output. Once its reader is gone, it fails with an error of which [`is_output_closed`] holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StandardOutput;

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes).map_err(recognised)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().map_err(recognised)
    }
}

fn recognised(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe { io::Error::new(error.kind(), OutputClosed) } else { error }
}

/// Whether a command ended because nobody read its output to the end, which is no failure.
pub(super) fn is_output_closed(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    let cause = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    cause.is_some_and(|cause| cause.is::<OutputClosed>())
}

/// Writes a line to standard error, where somebody reads it.
pub(super) fn notify(line: impl Display) {
    // As one piece: other processes may write there as well.
    _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
