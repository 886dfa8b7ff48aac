//! The stream under a session: a socket, plain or within TLS, whose replies are read along.

use std::convert::Infallible;
use std::future::Ready;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::sqlstate::Replies;

/// A connected socket of whatever kind.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// How bytes travel.
pub(super) enum Transport {
    Plain(Box<dyn Duplex>),
    Tls(Box<dyn TlsStream + Unpin + Send>),
}

/// The stream of one session.
pub(super) struct SessionStream {
    transport: Transport,
    replies: Replies,
    /// Whether it is shut down only when the other side has closed it.
    ends_with_server: bool,
    is_shut_down: bool,
}

impl SessionStream {
    /// A stream on which TLS was negotiated where it is wanted, and nothing else was said.
    pub(super) fn new(transport: Transport, replies: Replies) -> Self {
        Self { transport, replies, ends_with_server: false, is_shut_down: false }
    }

    /// A stream for one request to cancel a statement. It has been shut down when the server has closed it, which
    /// it does behind the signal to the session (PostgreSQL 17, 53.2.8): a later statement is out of its reach.
    pub(super) fn for_cancelling(transport: Transport) -> Self {
        Self { ends_with_server: true, ..Self::new(transport, Replies::default()) }
    }

    fn transport(&mut self) -> Pin<&mut dyn Duplex> {
        Pin::new(match &mut self.transport {
            Transport::Plain(socket) => socket as &mut dyn Duplex,
            Transport::Tls(stream) => stream as &mut dyn Duplex,
        })
    }
}

impl AsyncRead for SessionStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = self.transport().poll_read(context, buffer);
        self.replies.feed(&buffer.filled()[before..]);
        outcome
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.transport().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut_down {
            ready!(self.transport().poll_shutdown(context))?;
            self.is_shut_down = true;
        }
        while self.ends_with_server {
            let mut bytes = [0; 16];
            let mut buffer = ReadBuf::new(&mut bytes);
            // A stream that was reset has ended as well.
            let outcome = ready!(self.transport().poll_read(context, &mut buffer));
            self.ends_with_server = outcome.is_ok() && !buffer.filled().is_empty();
        }
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for SessionStream {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.transport {
            Transport::Plain(_) => ChannelBinding::none(),
            Transport::Tls(stream) => stream.channel_binding(),
        }
    }
}

/// Tells the driver that its stream is encrypted already, or is not to be.
pub(super) struct Negotiated;

impl TlsConnect<SessionStream> for Negotiated {
    type Stream = SessionStream;
    type Error = Infallible;
    type Future = Ready<Result<SessionStream, Infallible>>;

    fn connect(self, stream: SessionStream) -> Self::Future {
        std::future::ready(Ok(stream))
    }
}
