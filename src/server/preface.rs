//! The bytes that an HTTP/2 connection begins with (RFC 9113, 3.4).
//!
//! They are read before hyper gets the connection, which waits for them without bound and cannot
//! tell that it still waits. So a silent socket costs little, and one that speaks HTTP/1 or
//! rubbish is closed at its first wrong byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What a client that knows that the server speaks HTTP/2 sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why a connection did not become an HTTP/2 connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPreface {
    /// The client sent something else, such as HTTP/1.
    #[error("the client does not speak HTTP/2 with prior knowledge")]
    OtherProtocol,
    /// The client closed the connection before the preface was complete.
    #[error("the client closed the connection")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the preface off `stream`, with no bound in time. Dropping the future closes the connection.
///
/// # Errors
/// [`NoPreface`] as soon as a byte differs, the client closes, or reading fails.
pub(super) async fn expect<T: AsyncRead + Unpin>(mut stream: T) -> Result<AfterPreface<T>, NoPreface> {
    let mut expected: &'static [u8] = PREFACE;
    while !expected.is_empty() {
        let mut buffer = [0; PREFACE.len()];
        match stream.read(&mut buffer[..expected.len()]).await? {
            0 => return Err(NoPreface::Closed),
            read => expected = expected.strip_prefix(&buffer[..read]).ok_or(NoPreface::OtherProtocol)?,
        }
    }
    Ok(AfterPreface { replay: PREFACE, stream })
}

/// A connection whose preface was read, and which gives it again to the first reader.
#[derive(Debug)]
pub(super) struct AfterPreface<T> {
    replay: &'static [u8],
    stream: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for AfterPreface<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.replay.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let (now, later) = self.replay.split_at(self.replay.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.replay = later;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for AfterPreface<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
