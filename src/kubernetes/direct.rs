//! Calls to one API server, past kube's client and the pool of connections below it.
//!
//! kube's client takes each call through a queue and a task of its own, which is of use only where a service can't be
//! cloned. The pool begins another task with each answer, to wait until the connection is free, and for two tasks to be
//! woken at once the runtime wakes a second thread. Here a connection is given back when its answer was read, and
//! whether it is still good is seen when it is used again: docs/performance.md has what that is worth.

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use kube::Config;
use kube::client::{Body, ConfigExt as _};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
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
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    let https = config.rustls_https_connector_with_connector(connector)?;
    let server = config.cluster_url.clone();
    let host = HeaderValue::try_from(host(&server)).map_err(|error| kube::Error::HttpError(error.into()))?;
    let pool = Arc::new(Pool {
        connector: BoxCloneSyncService::new(https.and_then(handshake)),
        server,
        host,
        bounds,
        idle: Mutex::default(),
        freed: Notify::new(),
    });
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .service(service_fn(move |request| exchange(pool.clone(), request)));
    Ok(Client::new(service))
}

/// Without a port that goes without saying, as all clients say it.
fn host(server: &Uri) -> String {
    let host = server.host().unwrap_or_default();
    let usual = if server.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    match server.port_u16().filter(|port| *port != usual) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Body>, BoxError>
where
    S: Read + Write + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(stream).await?;
    // How it ends is told to whoever sends.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Connections to one server.
struct Pool {
    connector: BoxCloneSyncService<Uri, SendRequest<Body>, BoxError>,
    server: Uri,
    host: HeaderValue,
    bounds: Bounds,
    idle: Mutex<Idle>,
    freed: Notify,
}

/// Those that wait for their next call.
#[derive(Default)]
struct Idle {
    /// Since when.
    senders: Vec<(Instant, SendRequest<Body>)>,
    /// Whether somebody comes to close them.
    awaited: bool,
}

impl Idle {
    fn close_old(&mut self) {
        self.senders.retain(|(since, sender)| since.elapsed() < IDLE && !sender.is_closed());
    }
}

impl Pool {
    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        idle.close_old();
        let ready = idle.senders.iter().rposition(|(_, sender)| sender.is_ready())?;
        Some(idle.senders.remove(ready).1)
    }

    fn give_back(self: &Arc<Self>, sender: SendRequest<Body>) {
        let mut idle = self.idle.lock();
        idle.senders.push((Instant::now(), sender));
        if !std::mem::replace(&mut idle.awaited, true) {
            tokio::spawn(close_idle(Arc::downgrade(self)));
        }
        self.freed.notify_one();
    }

    /// A connection, and whether it is new. While a new one is made, one that becomes free is as good.
    async fn checkout(self: &Arc<Self>) -> Result<(SendRequest<Body>, bool), BoxError> {
        if let Some(sender) = self.take() {
            return Ok((sender, false));
        }
        let (made, mut new) = oneshot::channel();
        let pool = self.clone();
        tokio::spawn(async move {
            // Who asked for it may have found another, or have given up.
            if let Err(Ok(unwanted)) = made.send(pool.connect().await) {
                pool.give_back(unwanted);
            }
        });
        loop {
            tokio::select! {
                made = &mut new => return Ok((made??, true)),
                () = self.freed.notified() => if let Some(sender) = self.take() {
                    return Ok((sender, false));
                }
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Body>, BoxError> {
        let connecting = self.connector.clone().oneshot(self.server.clone());
        let timed = tokio::time::timeout(self.bounds.connect, connecting).await;
        timed.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }
}

/// Closes what nobody uses, as long as there is anything.
async fn close_idle(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        idle.close_old();
        if idle.senders.is_empty() {
            idle.awaited = false;
            return;
        }
    }
}

async fn exchange(pool: Arc<Pool>, mut request: Request<Body>) -> Result<Response<Bytes>, BoxError> {
    request.headers_mut().insert(HOST, pool.host.clone());
    // What HTTP/1.1 says to a server itself (RFC 9112, section 3.2.1).
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    loop {
        let (mut sender, new) = pool.checkout().await?;
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            // The connection had ended while it waited: nothing was sent.
            Err(mut error) => match error.take_message().filter(|_| !new) {
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

    /// How many connections a server has had, and how many have ended.
    #[derive(Default)]
    struct Had {
        begun: AtomicUsize,
        ended: AtomicUsize,
    }

    impl Had {
        fn begun(&self) -> usize {
            self.begun.load(Ordering::Relaxed)
        }
    }

    /// A server that gives each connection up after so many answers of so many bytes.
    async fn server(answers: usize, bytes: usize) -> (Client, Arc<Had>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let had = Arc::<Had>::default();
        let count = had.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.begun.fetch_add(1, Ordering::Relaxed);
                let count = count.clone();
                tokio::spawn(async move {
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
                    for _ in 0..answers {
                        if stream.read(&mut [0; 4096]).await.unwrap() == 0 {
                            break;
                        }
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                    count.ended.fetch_add(1, Ordering::Relaxed);
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
        assert_eq!(had.begun(), 1);
        let both = futures::future::join(call(&client), call(&client)).await;
        assert!(
            both.0.is_ok() && both.1.is_ok(),
            "the first has ended, and each has one of its own: {both:?}"
        );
        assert_eq!(had.begun(), 3);
    }

    #[tokio::test]
    async fn one_that_has_ended_is_not_used_again() {
        let (client, had) = server(1, 1).await;
        for number in 1..=5 {
            assert_eq!(call(&client).await.unwrap(), 1, "{number}");
            assert_eq!(had.begun(), number);
        }
    }

    #[tokio::test]
    async fn an_answer_beyond_the_bound_is_an_error_and_its_connection_ends() {
        let (client, had) = server(9, 101).await;
        for number in 1..=2 {
            assert!(call(&client).await.unwrap_err().is::<LengthLimitError>());
            assert_eq!(had.begun(), number);
        }
    }

    #[tokio::test]
    async fn what_nobody_uses_is_closed() {
        let (client, had) = server(9, 1).await;
        call(&client).await.unwrap();
        // It goes on by itself whenever nothing else happens.
        tokio::time::pause();
        tokio::time::sleep(IDLE * 2).await;
        assert_eq!(had.ended.load(Ordering::Relaxed), 1);
        call(&client).await.unwrap();
        drop(client);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(had.ended.load(Ordering::Relaxed), 2, "as is what nobody can use");
    }

    #[tokio::test]
    async fn what_becomes_free_is_taken_before_a_new_one_is_made() {
        let (client, had) = server(9, 1).await;
        let all = futures::future::join_all((0..9).map(|_| call(&client))).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        let before = had.begun();
        let all = futures::future::join_all((0..9).map(|_| call(&client))).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(had.begun(), before, "what was made for those before serves these");
    }

    #[test]
    fn a_host_has_its_port_where_it_is_unusual() {
        for (server, said) in [
            ("https://a:443/x", "a"),
            ("https://a:6443", "a:6443"),
            ("http://a:443", "a:443"),
            ("https://[::1]:1", "[::1]:1"),
            ("https://b", "b"),
        ] {
            assert_eq!(host(&server.parse().unwrap()), said);
        }
    }
}
