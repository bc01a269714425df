//! Serving a router over HTTP/1.1 and, where a client of TLS chooses it, HTTP/2, with the timers and
//! bounds that `axum::serve` leaves out.

pub(crate) mod activity;
pub(crate) mod body;
pub(crate) mod close_reason;
pub(crate) mod hangup;
pub(crate) mod listen;
pub(crate) mod tls;
pub(crate) mod unread;

use std::convert::Infallible;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::ServiceExt as _;

use crate::server::activity::Activity;
use crate::server::close_reason::Ending;

use crate::server::body::Outgoing;
use crate::server::tls::HTTP_2;
use crate::support::reload::Current;
use crate::telemetry::metrics::Metrics;

/// Longest wait for a whole request head, also for the first byte of the next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time to write an answer's body; a client that doesn't read it is cut off, with all that it
/// asked for on the connection.
const WRITE: Duration = Duration::from_secs(30);
/// How long its end may take; then it is cut off.
const END: Duration = Duration::from_secs(5);
/// Most connections of the admin listener at once; further ones wait to be accepted.
pub const ADMIN_CONNECTIONS: usize = 256;
/// Largest request head that is read at all, bytes; what is larger than a router allows and still
/// is read is answered in JSON.
const MAX_HEAD: u32 = 64 * 1024;
/// Most fields of a head, likewise.
const MAX_FIELDS: usize = 256;
/// Most requests at once on one connection of HTTP/2.
const MAX_STREAMS: u32 = 100;
/// Streams reset by a client before anybody looked at them; more end the connection (CVE-2023-44487).
const MAX_UNSEEN_RESETS: usize = 20;
/// Streams that a client made us reset; more end the connection (CVE-2025-8671).
const MAX_OWN_RESETS: usize = 100;
/// Bytes of bodies that a client may send unasked: on one stream, and on a connection.
const WINDOWS: (u32, u32) = (64 * 1024, 1024 * 1024);
/// How often a client of HTTP/2 is asked whether it is there, and how long it has to say so.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// A listener and what it needs.
pub struct Server {
    /// Its word in the metrics.
    pub name: &'static str,
    /// Where it listens.
    pub listener: TcpListener,
    /// Its certificate; without one it speaks plain HTTP.
    pub tls: Option<Arc<Current<ServerConfig>>>,
    /// Most connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
}

impl Server {
    /// Serves until `stop`, then lets requests in flight end for at most `drain`.
    pub async fn serve(self, router: Router, stop: CancellationToken, drain: Duration) {
        let tasks = TaskTracker::new();
        let places = Arc::new(Semaphore::new(self.connections));
        self.metrics.connections_limit(self.name, self.connections);
        loop {
            // The semaphore is never closed.
            let place = tokio::select! {
                place = places.clone().acquire_owned() => place,
                () = stop.cancelled() => break,
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                // It is the client's affair when it is gone again.
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) =>
                {
                    continue;
                }
                Err(error) => {
                    // Out of file descriptors, mostly: those in use will be free again.
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.metrics.accept_failure(self.name);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Answers are small and waited for; holding them back for more never helps.
            let _ = stream.set_nodelay(true);
            let counted = self.metrics.connection(self.name);
            // A connection keeps the certificate with which it began.
            let tls = self.tls.as_ref().map(|current| TlsAcceptor::from(current.get()));
            let connection = connection(stream, tls, router.clone(), self.metrics.clone(), stop.clone());
            let (name, metrics) = (self.name, self.metrics.clone());
            tasks.spawn(async move {
                if let Some(ending) = connection.await {
                    metrics.connection_ended(name, ending.word());
                }
                drop((place, counted));
            });
        }
        drop(self.listener);
        tasks.close();
        if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
            // In no metric: nobody could read it any more.
            tracing::warn!(connections = tasks.len(), "requests in flight were cut off");
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Option<Ending> {
    let Some(tls) = tls else { return over_http1(stream, router, stop).await };
    let handshake = async {
        if tls::is_plain_http(&stream).await? { Ok(Err(stream)) } else { tls.accept(stream).await.map(Ok) }
    };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => shaken,
        () = stop.cancelled() => return None,
    };
    let failed = match shaken {
        Ok(Ok(Ok(stream))) if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) => {
            return over_http2(stream, router, stop).await;
        }
        Ok(Ok(Ok(stream))) => return over_http1(stream, router, stop).await,
        Ok(Ok(Err(stream))) => {
            let _ = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls::refuse_plain_http(stream)).await;
            "plain_http"
        }
        // Who only looks whether the port is open, as health checks do.
        Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => return None,
        Ok(Err(_)) => "failed",
        Err(_) => "timeout",
    };
    metrics.tls_failure(failed);
    None
}

async fn over_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    router: Router,
    stop: CancellationToken,
) -> Option<Ending> {
    let activity = Arc::new(Activity::default());
    let answers = activity.clone();
    let service = service_fn(move |request| answer(router.clone(), answers.clone(), request));
    let (stream, watcher) = hangup::watch(stream);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD as usize)
        // The buffer may grow beyond its bound by what is read at once.
        .max_header_size(MAX_HEAD as usize)
        .max_headers(MAX_FIELDS)
        // It then reads nothing while it answers: whether the client has gone is for us to see.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        ending = until_its_end(connection, &activity, &stop) => ending,
        () = watcher.gone(|| activity.is()) => None,
    }
}

async fn over_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    router: Router,
    stop: CancellationToken,
) -> Option<Ending> {
    let activity = Arc::new(Activity::default());
    let answers = activity.clone();
    let service = service_fn(move |request| answer(router.clone(), answers.clone(), request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(MAX_OWN_RESETS)
        .max_header_list_size(MAX_HEAD)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .serve_connection(TokioIo::new(stream), service);
    until_its_end(connection, &activity, &stop).await
}

async fn answer(
    router: Router,
    activity: Arc<Activity>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let under_way = activity.begin();
    let told_to_wait = expects_continue(request.headers());
    let mut body = None;
    let request = request.map(|incoming| {
        let (lent, lender) = unread::lend(incoming);
        body = Some(lender);
        Body::new(lent)
    });
    let mut response = router.oneshot(request).await?;
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Who waits to be told to send its body, or was waited for in vain, sends none.
    if let Some(body) = body.filter(|_| !told_to_wait && response.status() != StatusCode::REQUEST_TIMEOUT) {
        body.drain().await;
    }
    // Not in the body itself: nobody asks it for more while the client takes nothing.
    let overdue = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::time::sleep(WRITE).await;
        activity.unread.cancel();
    }));
    Ok(response.map(|body| Outgoing::holding(body, (under_way, overdue))))
}

/// Whether a client sends its body only when it is told to (RFC 9110, section 10.1.1).
fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Drives a connection until its client or we have had enough of it.
async fn until_its_end(
    connection: impl GracefulConnection<Error = hyper::Error>,
    activity: &Activity,
    stop: &CancellationToken,
) -> Option<Ending> {
    let mut connection = pin!(connection);
    let ending = |ended: Result<(), hyper::Error>| Ending::of(&ended.err()?, activity.was());
    let stopped = tokio::select! {
        ended = connection.as_mut() => return ending(ended),
        () = activity.unread.cancelled() => return Some(Ending::Unread),
        () = stop.cancelled() => true,
        () = activity.ceases() => false,
    };
    connection.as_mut().graceful_shutdown();
    if stopped {
        // Whoever stops us says how long that may take.
        tokio::select! {
            ended = connection => ending(ended),
            () = activity.unread.cancelled() => Some(Ending::Unread),
        }
    } else {
        let _ = tokio::time::timeout(END, connection).await;
        Some(Ending::Idle)
    }
}

#[cfg(test)]
mod tests;
