//! Whether a client has gone, or has only said all that it has to say. Both look alike on the wire, where its sending
//! side is closed; who closes it right behind a request waits for the answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How soon behind its last byte a client that wants the answer closes its sending side.
const RIGHT_BEHIND: Duration = Duration::from_secs(1);
/// What is read to see the end, and may be the beginning of another request, bytes.
const AHEAD: usize = 256;

/// What server and watcher share. Both run in one task, so the lock is free, and one waker is enough.
struct Shared<S> {
    stream: S,
    /// What the watcher has read, and the server hasn't.
    ahead: Vec<u8>,
    /// When the last byte came.
    last: Instant,
    /// Whether the client closed its sending side in time to be waited for.
    said_all: bool,
}

/// A connection that can be watched while nobody reads it.
pub struct Watched<S>(Arc<Mutex<Shared<S>>>);

/// Watches it.
pub struct Watcher<S>(Arc<Mutex<Shared<S>>>);

/// Takes a connection.
pub fn watch<S>(stream: S) -> (Watched<S>, Watcher<S>) {
    let shared = Shared { stream, ahead: Vec::new(), last: Instant::now(), said_all: false };
    let shared = Arc::new(Mutex::new(shared));
    (Watched(shared.clone()), Watcher(shared))
}

impl<S: AsyncRead + Unpin> Watcher<S> {
    /// Until the client has gone, as far as that can be seen while `busy`: at other times the server reads.
    pub async fn gone(&self, busy: impl Fn() -> bool) {
        std::future::poll_fn(|cx| if busy() { self.0.lock().poll_gone(cx) } else { Poll::Pending }).await;
    }
}

impl<S: AsyncRead + Unpin> Shared<S> {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.said_all || !self.ahead.is_empty() {
            return Poll::Pending;
        }
        let mut bytes = [0; AHEAD];
        let mut read = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)) {
            Err(_) => Poll::Ready(()),
            Ok(()) if read.filled().is_empty() && self.last.elapsed() > RIGHT_BEHIND => Poll::Ready(()),
            Ok(()) => {
                self.said_all = read.filled().is_empty();
                self.ahead.extend_from_slice(read.filled());
                self.last = Instant::now();
                // The server may wait for just that.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock();
        if !shared.ahead.is_empty() {
            let most = shared.ahead.len().min(into.remaining());
            into.put_slice(shared.ahead.drain(..most).as_slice());
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut shared.stream).poll_read(cx, into))?;
        if into.filled().len() > before {
            shared.last = Instant::now();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.lock().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.lock().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_closes_right_behind_a_request_is_waited_for_and_who_closes_later_has_gone() {
        for (after, gone) in [(RIGHT_BEHIND / 2, false), (RIGHT_BEHIND * 2, true)] {
            let (mut client, server) = tokio::io::duplex(64);
            let (mut stream, watcher) = watch(server);
            client.write_all(b"GET").await.unwrap();
            let mut head = [0; 3];
            stream.read_exact(&mut head).await.unwrap();
            tokio::time::sleep(after).await;
            client.shutdown().await.unwrap();
            let seen = tokio::time::timeout(RIGHT_BEHIND * 3, watcher.gone(|| true)).await.is_ok();
            assert_eq!(seen, gone, "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_to_see_the_end_is_not_lost() {
        let (mut client, server) = tokio::io::duplex(64);
        let (mut stream, watcher) = watch(server);
        client.write_all(b"another").await.unwrap();
        let waited = tokio::time::timeout(RIGHT_BEHIND * 3, watcher.gone(|| true)).await;
        assert!(waited.is_err(), "it is there");
        client.write_all(b" request").await.unwrap();
        client.shutdown().await.unwrap();
        let mut read = String::new();
        stream.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "another request");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_watched_while_the_server_reads() {
        let (client, server) = tokio::io::duplex(64);
        let (_watched, watcher) = watch(server);
        drop(client);
        tokio::time::advance(RIGHT_BEHIND * 2).await;
        assert!(tokio::time::timeout(RIGHT_BEHIND, watcher.gone(|| false)).await.is_err());
        watcher.gone(|| true).await;
    }
}
