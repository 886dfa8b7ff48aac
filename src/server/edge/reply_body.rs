//! The body of a reply, whose bytes count as unread until they are written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::{Body, Frame};
use prost::bytes::Bytes;
use tonic::Status;

use super::deadline::DeadlineBody;
use crate::rpc::status;
use crate::server::budgets::{Exhausted, StreamSlot};
use crate::server::call::{Call, ReplyBytes};

/// How much of a message is given to h2 at once. h2 takes a piece when at least one byte of it may be sent.
const PIECE_BYTES: usize = 16 * 1024;

/// Messages up to this size are given in one piece. Of a larger one, the last piece is a single byte, so
/// that all of the message may be sent when the trailers follow: after those, h2 holds what is left of a
/// stream for as long as the client likes, and nothing resets it. Of the smaller ones, that may be so much.
const WHOLE_BYTES: usize = 1024;

/// A frame that the handler's body gave, or its failure.
type Given = Result<Frame<Bytes>, Status>;

/// Gives the frames of `rest`, each charged to the call when it comes.
#[derive(Default)]
pub(super) struct ReplyBody {
    call: Option<Arc<Call>>,
    /// What is left of the message that is being given.
    message: Option<ReplyBytes>,
    in_pieces: bool,
    /// The frame after that, if it has come already.
    ahead: Option<Given>,
    rest: Option<DeadlineBody>,
    /// Held until the stream ends.
    _slot: Option<StreamSlot>,
}

impl ReplyBody {
    /// Takes what `body` has ready of a reply with one message: the message in its encoded form and the
    /// trailers after it, so that nothing is left that would have to be encoded later. Of a stream, which
    /// has a `slot`, only the first message.
    ///
    /// # Errors
    /// [`Exhausted`] when there is no room for the message.
    pub(super) fn of_ready(
        mut body: DeadlineBody,
        call: Option<Arc<Call>>,
        slot: Option<StreamSlot>,
        cx: &mut Context<'_>,
    ) -> Result<Self, Exhausted> {
        if body.is_end_stream() {
            return Ok(Self::default());
        }
        let is_stream = slot.is_some();
        if let (Some(call), false) = (&call, is_stream) {
            // The handler has ended, and the request with it.
            call.release_headers();
        }
        let mut reply = Self { call, _slot: slot, ..Self::default() };
        match Pin::new(&mut body).poll_frame(cx) {
            Poll::Pending => {}
            Poll::Ready(None) => return Ok(reply),
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                reply.take(frame.into_data().unwrap_or_default())?;
                if !is_stream && let Poll::Ready(next) = Pin::new(&mut body).poll_frame(cx) {
                    let is_last = next.as_ref().is_none_or(|next| match next {
                        Ok(frame) => frame.is_trailers(),
                        Err(_) => true,
                    });
                    reply.ahead = next;
                    if is_last {
                        return Ok(reply);
                    }
                }
            }
            Poll::Ready(Some(other)) => reply.ahead = Some(other),
        }
        reply.rest = Some(body);
        Ok(reply)
    }

    /// Charges a message, which is given from now on.
    fn take(&mut self, bytes: Bytes) -> Result<(), Exhausted> {
        self.in_pieces = bytes.len() > WHOLE_BYTES;
        self.message = Some(match &self.call {
            Some(call) => call.charge_reply(bytes)?,
            None => ReplyBytes::uncounted(bytes),
        });
        Ok(())
    }

    /// The next piece of the message that is being given.
    fn piece(&mut self) -> Option<ReplyBytes> {
        let mut message = self.message.take()?;
        let length = message.len();
        if !self.in_pieces || length <= 1 {
            return Some(message);
        }
        let piece = message.split_to(PIECE_BYTES.min(length - 1));
        self.message = Some(message);
        Some(piece)
    }

    /// Ends the stream with the refusal of what there was no room for.
    fn refuse(&mut self) -> Result<Frame<ReplyBytes>, Status> {
        self.rest = None;
        let mut trailers = HeaderMap::new();
        status::overloaded(status::RETRY_SOON).add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl Body for ReplyBody {
    type Data = ReplyBytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ReplyBytes>, Status>>> {
        if let Some(piece) = self.piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let given = match (self.ahead.take(), &mut self.rest) {
            (Some(given), _) => Some(given),
            (None, Some(rest)) => ready!(Pin::new(rest).poll_frame(cx)),
            (None, None) => None,
        };
        Poll::Ready(match given.map(|given| given.map(Frame::into_data)) {
            Some(Ok(Ok(bytes))) => match self.take(bytes) {
                Ok(()) => self.piece().map(|piece| Ok(Frame::data(piece))),
                Err(_) => Some(self.refuse()),
            },
            Some(Ok(Err(other))) => {
                self.rest = None;
                other.into_trailers().ok().map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none()
            && self.ahead.is_none()
            && self.rest.as_ref().is_none_or(DeadlineBody::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(length: usize) -> Vec<usize> {
        let mut body = ReplyBody::default();
        body.take(Bytes::from(vec![0; length])).unwrap();
        std::iter::from_fn(|| body.piece().map(|piece| piece.len())).collect()
    }

    #[test]
    fn a_small_message_is_one_piece_and_a_large_one_ends_with_a_single_byte() {
        assert_eq!(pieces(0), [0]);
        assert_eq!(pieces(1), [1]);
        assert_eq!(pieces(1_024), [1_024]);
        assert_eq!(pieces(1_025), [1_024, 1]);
        assert_eq!(pieces(16_384), [16_383, 1]);
        assert_eq!(pieces(16_385), [16_384, 1]);
        assert_eq!(pieces(40_000), [16_384, 16_384, 7_231, 1]);
    }
}
