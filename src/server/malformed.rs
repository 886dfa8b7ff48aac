//! Notices the streams that h2 resets because their requests break a rule of HTTP/2, such as one whose
//! `:authority` is no host name.
//!
//! h2 resets these streams before hyper sees a request, and reports them to nobody. What shows them is the
//! RST_STREAM frame with PROTOCOL_ERROR (RFC 9113, 6.4 and 8.1.1) among the bytes that it writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The length of a frame's header (RFC 9113, 4.1).
const HEADER_BYTES: usize = 9;

/// The type of a frame that resets a stream, and the length of its payload, which is the error code
/// (RFC 9113, 6.4).
const RST_STREAM: u8 = 0x3;
const ERROR_CODE_BYTES: usize = 4;

const PROTOCOL_ERROR: [u8; ERROR_CODE_BYTES] = 1_u32.to_be_bytes();

/// The stream under an HTTP/2 connection of a server. Calls `on_reset` for each stream that the server resets
/// with PROTOCOL_ERROR.
#[derive(Debug)]
pub(super) struct WatchResets<T, F> {
    stream: T,
    frames: Frames,
    on_reset: F,
}

impl<T, F: FnMut()> WatchResets<T, F> {
    /// Wraps a stream to which nothing has been written yet.
    pub(super) fn new(stream: T, on_reset: F) -> Self {
        Self { stream, frames: Frames::default(), on_reset }
    }

    fn written(&mut self, bytes: &[u8]) {
        for _ in 0..self.frames.follow(bytes) {
            (self.on_reset)();
        }
    }
}

impl<T: AsyncRead + Unpin, F: Unpin> AsyncRead for WatchResets<T, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin, F: FnMut() + Unpin> AsyncWrite for WatchResets<T, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.written(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        let mut left = count;
        for slice in slices {
            let written = left.min(slice.len());
            self.written(&slice[..written]);
            left -= written;
        }
        Poll::Ready(Ok(count))
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

/// Follows the frames in a sequence of bytes that comes in pieces of any size. Payloads are passed over.
#[derive(Debug, Default)]
struct Frames {
    /// The start of the current frame: its header, and the error code if it is an RST_STREAM.
    start: [u8; HEADER_BYTES + ERROR_CODE_BYTES],
    /// How many bytes of `start` are known.
    known: usize,
    /// How many bytes of the current frame's payload are still to be passed over.
    payload_left: usize,
}

impl Frames {
    /// Goes on with `bytes`, and returns how many frames that reset a stream with PROTOCOL_ERROR end in them.
    fn follow(&mut self, mut bytes: &[u8]) -> usize {
        let mut resets = 0;
        while !bytes.is_empty() {
            let (payload, rest) = bytes.split_at(self.payload_left.min(bytes.len()));
            self.payload_left -= payload.len();
            let (start, rest) = rest.split_at((self.start_length() - self.known).min(rest.len()));
            self.start[self.known..self.known + start.len()].copy_from_slice(start);
            self.known += start.len();
            bytes = rest;
            // Of an RST_STREAM, more is wanted as soon as its header is known.
            if self.known == self.start_length() {
                resets += usize::from(self.is_reset() && self.start[HEADER_BYTES..] == PROTOCOL_ERROR);
                self.payload_left = if self.is_reset() { 0 } else { self.payload_length() };
                self.known = 0;
            }
        }
        resets
    }

    /// How many bytes of the current frame have to be known.
    fn start_length(&self) -> usize {
        HEADER_BYTES + if self.is_reset() { ERROR_CODE_BYTES } else { 0 }
    }

    /// Whether the current frame is known to be an RST_STREAM.
    fn is_reset(&self) -> bool {
        self.known >= HEADER_BYTES && self.start[3] == RST_STREAM && self.payload_length() == ERROR_CODE_BYTES
    }

    fn payload_length(&self) -> usize {
        let [high, middle, low, ..] = self.start;
        u32::from_be_bytes([0, high, middle, low]) as usize
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const DATA: u8 = 0x0;
    const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    /// Three streams that are reset with PROTOCOL_ERROR, among frames that look like it in part.
    fn frames() -> Vec<u8> {
        let reset = frame(RST_STREAM, &PROTOCOL_ERROR);
        [
            frame(0x4, &[]),
            reset.clone(),
            frame(DATA, &reset.repeat(30)),
            frame(RST_STREAM, &CANCEL),
            frame(DATA, &PROTOCOL_ERROR),
            reset.repeat(2),
            frame(0x8, &PROTOCOL_ERROR),
        ]
        .concat()
    }

    #[test]
    fn resets_are_found_wherever_the_bytes_are_split() {
        let bytes = frames();
        for first in 0..=bytes.len() {
            for size in [1, 2, 3, 5, 8, 13, 100, bytes.len()] {
                let mut frames = Frames::default();
                let (start, rest) = bytes.split_at(first);
                let pieces = std::iter::once(start).chain(rest.chunks(size));
                let resets: usize = pieces.map(|piece| frames.follow(piece)).sum();
                assert_eq!(resets, 3, "split at {first}, then every {size}");
            }
        }
    }

    #[tokio::test]
    async fn only_what_was_written_counts_in_one_piece_or_in_several() {
        let (client, server) = tokio::io::duplex(7);
        let mut resets = 0;
        let mut watched = WatchResets::new(server, || resets += 1);
        let bytes = frames();
        let reading = tokio::spawn(async move {
            let mut client = client;
            tokio::io::copy(&mut client, &mut tokio::io::sink()).await.unwrap()
        });
        let (first, second) = bytes.split_at(20);
        let mut slices = [IoSlice::new(first), IoSlice::new(second)];
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let count = watched.write_vectored(left).await.unwrap();
            IoSlice::advance_slices(&mut left, count);
        }
        watched.write_all(&bytes).await.unwrap();
        drop(watched);
        assert_eq!(resets, 6);
        assert_eq!(reading.await.unwrap(), 2 * bytes.len() as u64);
    }
}
