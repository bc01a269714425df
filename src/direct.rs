//! Calls to one API server, past kube's client and the pool of connections below it.
//!
//! kube's client takes each call through a queue and a task of its own, which is of use only where a service can't be
//! cloned. The pool begins another task with each answer, to wait until the connection is free, and for two tasks to be
//! woken at once the runtime wakes a second thread. Here a connection is given back when its answer was read, and
//! whether it is still good is seen when it is used again: docs/performance.md has what that is worth.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::HttpConnector;
use kube::Config;
use kube::client::{Body, ConfigExt as _};
use parking_lot::Mutex;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};

/// Why there is no answer.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Sends requests to one API server, and reads the whole answers.
pub type Client = BoxCloneSyncService<Request<Body>, Response<Bytes>, BoxError>;

/// What bounds the calls.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// Most of an answer that is read, bytes.
    pub answer: usize,
}

/// Who we are in audit logs.
pub const AGENT: HeaderValue = HeaderValue::from_static(concat!("kyma-bindings/", env!("CARGO_PKG_VERSION")));

/// How long a connection is kept for the next call. An API server ends one that has been idle for 90 s, and a call
/// that crosses with that end fails.
const IDLE: Duration = Duration::from_mins(1);
/// How soon a peer is asked whether it is still there where nothing else is said; thrice without an answer is no.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Makes TCP connections, TLS or not on top of them.
pub fn connector<R>(resolver: R) -> HttpConnector<R> {
    let mut http = HttpConnector::new_with_resolver(resolver);
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE / 3));
    http.set_keepalive_retries(Some(3));
    http
}

/// A client with the address and the credentials of `config`, whose connections `connector` makes. Calls have no
/// deadline, and proxies play no part.
///
/// # Errors
/// When the credentials can't be used.
pub fn client<C>(config: &Config, connector: C, bounds: Bounds) -> kube::Result<Client>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: hyper_util::client::legacy::connect::Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    let https = config.rustls_https_connector_with_connector(connector)?;
    let server = config.cluster_url.clone();
    let host = server.host().unwrap_or_default();
    let host = server.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let host = HeaderValue::try_from(host).map_err(|error| kube::Error::HttpError(error.into()))?;
    let pool = Arc::new(Pool { https, server, host, bounds, idle: Mutex::default() });
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .service(service_fn(move |request| exchange(pool.clone(), request)));
    Ok(Client::new(service))
}

/// Connections to one server.
struct Pool<C> {
    https: C,
    server: Uri,
    host: HeaderValue,
    bounds: Bounds,
    /// Those that wait for their next call, and since when.
    idle: Mutex<Vec<(Instant, SendRequest<Body>)>>,
}

impl<C> Pool<C>
where
    C: Service<Uri> + Clone,
    C::Response: Read + Write + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
{
    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        idle.retain(|(since, sender)| since.elapsed() < IDLE && !sender.is_closed());
        let ready = idle.iter().rposition(|(_, sender)| sender.is_ready())?;
        Some(idle.remove(ready).1)
    }

    fn give_back(&self, sender: SendRequest<Body>) {
        self.idle.lock().push((Instant::now(), sender));
    }

    async fn connect(&self) -> Result<SendRequest<Body>, BoxError> {
        let connection = async {
            let stream = self.https.clone().oneshot(self.server.clone()).await.map_err(Into::into)?;
            let (sender, connection) = http1::handshake(stream).await?;
            // How it ends is told to whoever sends.
            tokio::spawn(async move { drop(connection.await) });
            Ok(sender)
        };
        let timed = tokio::time::timeout(self.bounds.connect, connection).await;
        timed.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }
}

async fn exchange<C>(pool: Arc<Pool<C>>, mut request: Request<Body>) -> Result<Response<Bytes>, BoxError>
where
    C: Service<Uri> + Clone,
    C::Response: Read + Write + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
{
    request.headers_mut().insert(HOST, pool.host.clone());
    request.headers_mut().insert(USER_AGENT, AGENT);
    // What HTTP/1.1 says to a server itself (RFC 9112, section 3.2.1).
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    loop {
        let (mut sender, used) = match pool.take() {
            Some(sender) => (sender, true),
            None => (pool.connect().await?, false),
        };
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            // The connection had ended while it waited: nothing was sent.
            Err(mut error) => match error.take_message().filter(|_| used) {
                Some(unsent) => {
                    request = unsent;
                    continue;
                }
                None => return Err(error.into_error().into()),
            },
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, pool.bounds.answer).collect().await?.to_bytes();
        pool.give_back(sender);
        return Ok(Response::from_parts(head, body));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::LengthLimitError;
    use hyper_util::client::legacy::connect::dns::GaiResolver;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const BOUNDS: Bounds = Bounds { connect: Duration::from_secs(5), answer: 100 };

    /// A server that gives each connection up after so many answers of so many bytes, and how many it had.
    async fn server(answers: usize, bytes: usize) -> (Client, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let had = Arc::<AtomicUsize>::default();
        let count = had.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
                    for _ in 0..answers {
                        if stream.read(&mut [0; 4096]).await.unwrap() > 0 {
                            stream.write_all(answer.as_bytes()).await.unwrap();
                        }
                    }
                });
            }
        });
        let config = Config::new(url.parse().unwrap());
        (client(&config, connector(GaiResolver::new()), BOUNDS).unwrap(), had)
    }

    async fn call(client: &Client) -> Result<usize, BoxError> {
        let request = Request::get("/api?x=y").body(Body::empty())?;
        let answered = client.clone().oneshot(request).await?;
        assert_eq!(answered.status(), 200);
        Ok(answered.into_body().len())
    }

    #[tokio::test]
    async fn a_connection_serves_one_call_after_the_other() {
        let (client, had) = server(9, 100).await;
        for _ in 0..9 {
            assert_eq!(call(&client).await.unwrap(), 100);
        }
        assert_eq!(had.load(Ordering::Relaxed), 1);
        let both = futures::future::join(call(&client), call(&client)).await;
        assert!(
            both.0.is_ok() && both.1.is_ok(),
            "the first has ended, and each has one of its own: {both:?}"
        );
        assert_eq!(had.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn one_that_has_ended_is_not_used_again() {
        let (client, had) = server(1, 1).await;
        for number in 1..=5 {
            assert_eq!(call(&client).await.unwrap(), 1, "{number}");
            assert_eq!(had.load(Ordering::Relaxed), number);
        }
    }

    #[tokio::test]
    async fn an_answer_beyond_the_bound_is_an_error_and_its_connection_ends() {
        let (client, had) = server(9, 101).await;
        for number in 1..=2 {
            assert!(call(&client).await.unwrap_err().is::<LengthLimitError>());
            assert_eq!(had.load(Ordering::Relaxed), number);
        }
    }
}
