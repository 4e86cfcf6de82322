//! One connection: how long it may be silent, and the response to a request that hyper cannot parse.
//!
//! hyper's own timeout for headers starts at the end of the previous request, so it would limit idle connections too.
//! And hyper answers an unparsable request with a bare status. So both are handled outside hyper: [`Wire`] sees the
//! bytes, [`Talk`] the requests and responses.

use std::fmt::Display;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::browsers;
use super::error::ApiError;

/// How many of the first bytes of a request are kept, in case hyper cannot parse it.
const FIRST_BYTES: usize = 2;
/// The first bytes of a TLS client: a handshake record of any version (RFC 8446 §5.1).
const TLS: [u8; FIRST_BYTES] = [0x16, 0x03];
/// How many bytes of an unparsable request are read and discarded, so that its client sees the response and not a
/// reset.
const DRAINED_BYTES_MAX: usize = 1024 * 1024;

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the headers of a request, from its first byte on, or from the beginning of a connection.
    pub(super) head: Duration,
    /// For another request, and for a client that does not read its response.
    pub(super) idle: Duration,
}

/// The state of a connection.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// Requests whose answers hyper has not taken yet.
    open: AtomicUsize,
    /// How many of them Waypost has answered.
    answered: AtomicUsize,
    /// Changes with each request, each response, and each write that had to wait for the client.
    steps: AtomicUsize,
    /// There has been a request.
    begun: AtomicBool,
    /// HTTP/2, whose clients also send bytes outside of requests.
    multiplexed: AtomicBool,
    /// Bytes came while no request was open.
    heard: AtomicBool,
    /// The client reads no more bytes.
    stalled: AtomicBool,
    /// Bytes of an answer may be on their way.
    answering: AtomicBool,
}

/// What a connection is doing, which decides the limit that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request's headers are awaited, the first or one that has begun.
    Head,
    /// Nothing is in progress, or everything waits for the client.
    Idle,
    /// A request is being read or answered, which has limits of its own.
    Busy,
}

impl Talk {
    /// Notes a request. Hold the returned value until the request is answered.
    pub(super) fn begin(self: &Arc<Self>, version: http::Version) -> Open {
        self.begun.store(true, Relaxed);
        self.multiplexed.store(version == http::Version::HTTP_2, Relaxed);
        self.heard.store(false, Relaxed);
        self.answering.store(true, Relaxed);
        self.open.fetch_add(1, Relaxed);
        self.step();
        Open(Arc::clone(self))
    }

    fn step(&self) {
        self.steps.fetch_add(1, Relaxed);
    }

    fn is_open(&self) -> bool {
        self.open.load(Relaxed) > 0
    }

    /// Tells whether everything waits for the client, which can hold responses back over HTTP/2 without
    /// stalling the connection.
    fn is_held_back(&self) -> bool {
        let open = self.open.load(Relaxed);
        self.multiplexed.load(Relaxed) && open > 0 && self.answered.load(Relaxed) == open
    }

    fn phase(&self) -> Phase {
        let is_heard = self.heard.load(Relaxed) && !self.multiplexed.load(Relaxed);
        match (self.stalled.load(Relaxed) || self.is_held_back(), self.is_open()) {
            (true, _) => Phase::Idle,
            (false, true) => Phase::Busy,
            (false, false) if is_heard || !self.begun.load(Relaxed) => Phase::Head,
            (false, false) => Phase::Idle,
        }
    }

    /// Tells whether anything that hyper writes now is a response of its own, because all of ours have been
    /// sent.
    fn is_between_answers(&self) -> bool {
        !self.is_open() && !self.answering.load(Relaxed)
    }

    /// Notes that hyper has nothing more to write.
    fn flushed(&self) {
        if !self.is_open() {
            self.answering.store(false, Relaxed);
        }
    }

    /// Notes whether the client took what was written.
    fn wrote(&self, is_taken: bool) {
        if self.stalled.load(Relaxed) == is_taken {
            self.stalled.store(!is_taken, Relaxed);
            self.step();
        }
    }
}

/// A request that is not answered yet.
pub(super) struct Open(Arc<Talk>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.step();
    }
}

/// An answer's body, which ends its request when hyper has taken all of it.
pub(super) struct Answer {
    body: Body,
    open: Open,
}

impl Answer {
    pub(super) fn of(response: Response, open: Open) -> http::Response<Self> {
        open.0.answered.fetch_add(1, Relaxed);
        open.0.step();
        response.map(|body| Self { body, open })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.open.0.answered.fetch_sub(1, Relaxed);
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        // A stream that goes on is not silent. What the client has no window for, hyper does not ask for.
        self.open.0.step();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Drives a connection to its end, or drops it when it has been silent for too long.
pub(super) async fn attend<E: Display>(
    connection: impl Future<Output = Result<(), E>>,
    talk: Arc<Talk>,
    patience: Patience,
) -> Result<(), String> {
    let mut connection = pin!(connection);
    let mut watch = Watch::new(&talk, patience);
    let mut alarm = pin!(tokio::time::sleep_until(watch.since + patience.head));
    std::future::poll_fn(|context| {
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(ended.map_err(|error| error.to_string()));
        }
        watch.look();
        match watch.poll(alarm.as_mut(), context) {
            Poll::Ready(()) => Poll::Ready(Err(format!("it was silent for too long ({:?})", watch.phase))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What a connection is doing, and since when.
struct Watch<'a> {
    talk: &'a Talk,
    patience: Patience,
    phase: Phase,
    steps: usize,
    since: Instant,
}

impl<'a> Watch<'a> {
    fn new(talk: &'a Talk, patience: Patience) -> Self {
        Self { talk, patience, phase: Phase::Head, steps: 0, since: Instant::now() }
    }

    fn look(&mut self) {
        let (phase, steps) = (self.talk.phase(), self.talk.steps.load(Relaxed));
        if phase != self.phase || steps != self.steps {
            (self.phase, self.steps, self.since) = (phase, steps, Instant::now());
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Head => Some(self.since + self.patience.head),
            Phase::Idle => Some(self.since + self.patience.idle),
            Phase::Busy => None,
        }
    }

    /// Is ready once the deadline is over. The alarm may fire early, because resetting it for each request would cost
    /// more.
    fn poll(&self, mut alarm: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline() else { return Poll::Pending };
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// The bytes of a connection, below hyper.
pub(super) struct Wire<S> {
    stream: S,
    talk: Arc<Talk>,
    first: [u8; FIRST_BYTES],
    /// What is sent in place of hyper's own response, as the last response of a connection.
    last_words: Option<Bytes>,
    drained: usize,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, talk: Arc<Talk>) -> Self {
        Self { stream, talk, first: [0; FIRST_BYTES], last_words: None, drained: 0 }
    }

    /// Replaces a response that hyper generated by itself.
    fn takes_over(&mut self, head: &[u8]) -> bool {
        if self.last_words.is_none() && self.talk.is_between_answers() {
            self.last_words = explain(head, self.first);
        }
        self.last_words.is_some()
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn poll_last_words(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(words) = self.last_words.as_mut().filter(|words| words.has_remaining()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, words))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            words.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = &buffer.filled()[before..];
        if !read.is_empty() && !self.talk.is_open() && !self.talk.heard.swap(true, Relaxed) {
            self.first = std::array::from_fn(|place| read.get(place).copied().unwrap_or_default());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.takes_over(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.talk.wrote(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if parts.first().is_some_and(|head| self.takes_over(head)) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.talk.wrote(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_last_words(context))?;
        self.talk.flushed();
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        // TLS buffers a part of the bytes that it accepted until the client reads on.
        self.talk.wrote(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_last_words(context))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        if self.last_words.is_none() {
            return Poll::Ready(Ok(()));
        }
        // Unread bytes of the client would turn the close into a reset, and the client would lose the response.
        let mut sink = [0; 4096];
        while self.drained < DRAINED_BYTES_MAX {
            let mut sink = ReadBuf::new(&mut sink);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut sink)) {
                Ok(()) if !sink.filled().is_empty() => self.drained += sink.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Adds the body of our errors to a response that is only hyper's status line; returns `None` for anything
/// else.
fn explain(head: &[u8], first: [u8; FIRST_BYTES]) -> Option<Bytes> {
    let lines = head.strip_prefix(b"HTTP/1.")?.strip_suffix(b"\r\n\r\n")?;
    let lines = std::str::from_utf8(lines).ok().filter(|lines| lines.contains("\r\ncontent-length: 0"))?;
    let status: StatusCode = lines.split(' ').nth(1)?.parse().ok()?;
    let body = ApiError::unreadable(status, first == TLS).body();
    let body = serde_json::to_string(&body).expect("a body has texts alone");
    let mut answer = String::with_capacity(head.len() + body.len() + 64);
    for line in ["HTTP/1.", lines].concat().split("\r\n") {
        if !line.starts_with("content-length:") {
            answer.push_str(line);
            answer.push_str("\r\n");
        }
    }
    answer.push_str(&browsers::lines());
    answer
        .push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    Some(answer.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An HTTP/2 client that opened no window for its responses kept its connection forever, and all responses in
    /// memory.
    #[test]
    fn answers_that_only_the_client_holds_back_are_no_work() {
        let talk = Arc::<Talk>::default();
        let answer = |open| Answer::of(Response::new(Body::empty()), open);
        let (first, second) = (talk.begin(http::Version::HTTP_2), talk.begin(http::Version::HTTP_2));
        let first = answer(first);
        assert_eq!(talk.phase(), Phase::Busy, "one is still to be answered");
        let second = answer(second);
        assert_eq!(talk.phase(), Phase::Idle);
        drop((first, second));
        assert_eq!((talk.phase(), talk.is_open()), (Phase::Idle, false));
        // Over HTTP/1, a response that is not read stalls the connection.
        let only = answer(talk.begin(http::Version::HTTP_11));
        assert_eq!(talk.phase(), Phase::Busy);
        drop(only);
    }
}
