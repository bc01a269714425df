//! What a request's body has left when its answer is there. Clients lose an answer that comes while they
//! send: some take the end of their stream for a failure (HTTP/2), others find the connection reset (HTTP/1.1).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;

/// Most bytes that are read to be dropped; of a body that says it is longer, none is.
const MOST: u64 = 128 * 1024;
/// Longest wait for them.
const LONGEST: Duration = Duration::from_secs(2);

/// A body on loan to whoever answers; what is dropped before its end comes back.
pub struct Lent<B> {
    body: Option<B>,
    home: Arc<Mutex<Option<B>>>,
}

/// Where it comes back.
pub struct Lender<B>(Arc<Mutex<Option<B>>>);

/// Lends a body.
pub fn lend<B>(body: B) -> (Lent<B>, Lender<B>) {
    let home = Arc::default();
    (Lent { body: Some(body), home: Arc::clone(&home) }, Lender(home))
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        *self.home.lock() = self.body.take();
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Lent<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> Lender<B> {
    /// Reads what has come back, within bounds, and looks at none of it.
    pub async fn drain(self) {
        let left =
            self.0.lock().take().filter(|body| !body.is_end_stream() && body.size_hint().lower() <= MOST);
        let Some(mut body) = left else { return };
        let all = async {
            let mut read = 0;
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.data_ref().map_or(0, |data| data.len() as u64);
                if read > MOST {
                    return;
                }
            }
        };
        // Who sends more, or more slowly, has to do without the answer.
        let _ = tokio::time::timeout(LONGEST, all).await;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// So many pieces of 1 KiB, of which those that were read are counted, and then nothing for ever, or the end.
    struct Pieces {
        left: u64,
        announced: bool,
        ends: bool,
        read: Arc<AtomicU64>,
    }

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.left {
                0 if self.ends => Poll::Ready(None),
                0 => Poll::Pending,
                _ => {
                    self.left -= 1;
                    self.read.fetch_add(1, Ordering::Relaxed);
                    Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; 1024])))))
                }
            }
        }

        fn size_hint(&self) -> SizeHint {
            if self.announced { SizeHint::with_exact(self.left * 1024) } else { SizeHint::default() }
        }
    }

    /// How many pieces are read after `taken` were, and how long that takes.
    async fn drained(left: u64, announced: bool, ends: bool, taken: usize) -> (u64, Duration) {
        let read = Arc::new(AtomicU64::new(0));
        let (mut body, lender) = lend(Pieces { left, announced, ends, read: read.clone() });
        for _ in 0..taken {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        let began = tokio::time::Instant::now();
        lender.drain().await;
        (read.load(Ordering::Relaxed), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_body_is_read_to_its_end() {
        for announced in [true, false] {
            assert_eq!(drained(128, announced, true, 0).await, (128, Duration::ZERO));
            assert_eq!(drained(128, announced, true, 100).await, (128, Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_read_than_is_small_and_no_longer_than_a_moment() {
        assert_eq!(drained(129, true, true, 0).await, (0, Duration::ZERO), "it says so");
        assert_eq!(drained(1000, false, true, 0).await, (129, Duration::ZERO), "it does not say so");
        assert_eq!(drained(3, false, false, 0).await, (3, LONGEST), "it does not end");
    }

    #[tokio::test]
    async fn a_body_that_is_kept_does_not_come_back() {
        let (lent, lender) = lend(Pieces { left: 1, announced: true, ends: true, read: Arc::default() });
        lender.drain().await;
        assert_eq!(lent.size_hint().exact(), Some(1024));
    }
}
