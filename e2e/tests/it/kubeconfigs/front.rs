//! What stands before an API server in the field: Rancher, which serves it below a path, and proxies.

use std::convert::Infallible;
use std::sync::Arc;

use e2e::fake::acceptor;
use e2e::osb::client_trusting;
use e2e::pki::Pki;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The path of a cluster in Rancher.
const PATH: &str = "/k8s/clusters/c-m-abcdefgh";

/// Servers that pass on to one API server; they end with the runtime that they are made in.
pub struct Fronts {
    /// By HTTPS below a path.
    pub below_a_path: String,
    /// The authority of that.
    pub ca_pem: String,
    /// By HTTP with a token of its own, as `kubectl proxy` serves: kubectl sends none in the clear.
    pub in_the_clear: String,
    /// A proxy for `CONNECT`.
    pub proxy: String,
}

/// Whose requests are passed on.
struct Upstream {
    client: reqwest::Client,
    url: String,
    path: &'static str,
    /// Sent instead of what is in a request.
    token: Option<String>,
}

pub async fn start(url: &str, ca_pem: &str, token: &str) -> Fronts {
    let pki = Pki::generate("rancher").unwrap();
    let acceptor = acceptor(&pki).unwrap();
    let upstream = |path, token| {
        let client = client_trusting(ca_pem).unwrap().build().unwrap();
        Arc::new(Upstream { client, url: url.to_owned(), path, token })
    };
    let (path, clear) = (upstream(PATH, None), upstream("", Some(token.to_owned())));
    let tls = listen(move |stream| {
        let (acceptor, upstream) = (acceptor.clone(), path.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, upstream).await;
            }
        }
    });
    let plain = listen(move |stream| serve(stream, clear.clone()));
    let proxy = listen(|stream| async move { drop(tunnel(stream).await) });
    Fronts {
        below_a_path: format!("https://{}{PATH}", tls.await),
        ca_pem: pki.ca_pem().to_owned(),
        in_the_clear: format!("http://{}", plain.await),
        proxy: format!("http://{}", proxy.await),
    }
}

async fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, upstream: Arc<Upstream>) {
    let service = service_fn(move |request| {
        let upstream = upstream.clone();
        async move { Ok::<_, Infallible>(pass(&upstream, request).await) }
    });
    // Whoever hangs up first has seen enough.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn pass(upstream: &Upstream, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let asked = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    // As Rancher does: only what is below the path exactly.
    let Some(rest) = asked.strip_prefix(upstream.path).filter(|rest| !rest.starts_with("//")) else {
        return Response::builder().status(404).body(Full::default()).unwrap();
    };
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut onwards = upstream.client.request(head.method, format!("{}{rest}", upstream.url)).body(body);
    for name in [AUTHORIZATION, ACCEPT, CONTENT_TYPE] {
        if let Some(value) = head.headers.get(&name) {
            onwards = onwards.header(name, value);
        }
    }
    if let Some(token) = &upstream.token {
        onwards = onwards.bearer_auth(token);
    }
    let answer = onwards.send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    if let Some(kind) = answer.headers().get(CONTENT_TYPE) {
        response = response.header(CONTENT_TYPE, kind);
    }
    response.body(Full::new(answer.bytes().await.unwrap())).unwrap()
}

async fn tunnel(stream: TcpStream) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    let mut first = String::new();
    client.read_line(&mut first).await?;
    let mut line = String::new();
    while client.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let target = first.split(' ').nth(1).unwrap_or_default();
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
