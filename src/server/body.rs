//! Bodies of answers, which hold on to something until they are written.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// Most bytes given away at once. HTTP/2 takes what it is given, however little of it a client lets
/// it send; more is asked for only when that is sent.
const PIECE: usize = 16 * 1024;

/// A body, and what is dropped with it: when the last piece was taken, or nobody wants it any more.
pub struct Outgoing<T> {
    body: Body,
    rest: Bytes,
    _held: T,
}

impl<T: Send + Unpin + 'static> Outgoing<T> {
    /// The same body, holding on to something.
    pub fn holding(body: Body, held: T) -> Body {
        Body::new(Self { body, rest: Bytes::new(), _held: held })
    }
}

impl<T: Unpin> HttpBody for Outgoing<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let most = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(most)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_comes_in_pieces_and_is_held_until_it_is_gone() {
        let (content, held) = (Bytes::from(vec![b'x'; PIECE * 2 + 1]), Arc::new(()));
        let mut body = Outgoing::holding(Body::from(content.clone()), held.clone());
        let mut seen = Vec::new();
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            seen.extend_from_slice(&piece);
            let left = content.len() - seen.len();
            assert!(piece.len() <= PIECE);
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(left as u64), left == 0));
            assert_eq!(Arc::strong_count(&held), 2, "held");
        }
        assert_eq!(seen, content);
        drop(body);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
