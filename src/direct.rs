//! Ways to an API server without kube's own client, which takes each call through a queue and a task of its own: that
//! is of use only where a service can't be cloned.

use std::error::Error as StdError;
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::{
    self,
    connect::{Connection, HttpConnector},
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::{Body, ConfigExt as _};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder};

/// Why there is no answer.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Sends requests to one API server.
pub type Client = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;

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

/// A client with the address and the credentials of `config`, whose connections are made by `connector` within
/// `connect`, TLS included. Calls have no deadline, and proxies play no part.
///
/// # Errors
/// When the credentials can't be used.
pub fn client<C>(config: &Config, connector: C, connect: Duration) -> kube::Result<Client>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    let mut timed = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    // A timeout of reads would end connections that wait for their next call.
    timed.set_connect_timeout(Some(connect));
    let http = legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build::<_, Body>(timed);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service))
}
