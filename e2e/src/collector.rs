//! The collector of traces of this process. Each operator has a place of its own there, and what it has sent is searched
//! for credentials when the operator has ended.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use crate::canary;

const KIND: &str = "spans";
/// How much of one operator is kept until its end, bytes. More is searched when it comes: for what is known by then.
const MOST: usize = 16 << 20;

/// By the numbers of their places, what operators have sent that have not ended.
static SENT: Mutex<Option<HashMap<usize, Sent>>> = Mutex::new(None);

/// What was sent to one place.
#[derive(Debug, Default)]
struct Sent {
    bodies: Vec<Bytes>,
    size: usize,
    /// What was found in bodies that are not kept.
    found: BTreeSet<String>,
}

impl Sent {
    fn take(&mut self, body: Bytes) {
        self.size += body.len();
        self.bodies.push(body);
        if self.size > MOST {
            self.found.append(&mut canary::look(KIND, &self.bodies));
            (self.bodies, self.size) = (Vec::new(), 0);
        }
    }
}

/// What is sent to a place of its own. It is searched when it is dropped, for what is known by then.
#[derive(Debug)]
pub struct Collected {
    number: usize,
    endpoint: String,
}

impl Collected {
    /// A new place.
    ///
    /// # Errors
    /// When the collector can't be started.
    pub fn begin() -> Result<Self> {
        static URL: OnceLock<std::io::Result<String>> = OnceLock::new();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let url = URL.get_or_init(start).as_ref();
        let url = url.map_err(|error| anyhow!("the collector of traces: {error}"))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        SENT.lock().get_or_insert_default().insert(number, Sent::default());
        Ok(Self { number, endpoint: format!("{url}/{number}") })
    }

    /// What to set `OTEL_EXPORTER_OTLP_ENDPOINT` to.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What was sent, as it was.
    #[must_use]
    pub fn bodies(&self) -> Vec<Bytes> {
        let sent = SENT.lock();
        sent.as_ref()
            .and_then(|sent| sent.get(&self.number))
            .map(|sent| sent.bodies.clone())
            .unwrap_or_default()
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        let sent = SENT.lock().as_mut().and_then(|sent| sent.remove(&self.number));
        if let Some(Sent { bodies, mut found, .. }) = sent {
            found.append(&mut canary::look(KIND, &bodies));
            canary::judge(KIND, &found);
        }
    }
}

/// Starts it in a thread of its own: it serves all tests, and their runtimes end with them.
fn start() -> std::io::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}", listener.local_addr()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream));
        }
    };
    let thread = std::thread::Builder::new().name("collector".to_owned());
    thread.spawn(move || {
        let ended: std::io::Result<()> = runtime.block_on(serve);
        eprintln!("the collector of traces has ended: {ended:?}");
    })?;
    Ok(url)
}

async fn serve(stream: TcpStream) {
    let service = service_fn(async |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        let mut response = Response::new(String::new());
        // What is cut off was not sent.
        if let (Some(number), Ok(body)) = (number(head.uri.path()), body.collect().await) {
            let mut sent = SENT.lock();
            if let Some(sent) = sent.as_mut().and_then(|sent| sent.get_mut(&number)) {
                sent.take(body.to_bytes());
            }
        } else {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
        Ok::<_, Infallible>(response)
    });
    // Whoever hangs up first has said enough.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// The number in a path such as `/7/v1/traces`.
fn number(path: &str) -> Option<usize> {
    path.strip_prefix('/')?.strip_suffix("/v1/traces")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const TOKEN: &str = "bmFtZWQtaW4tYS1zcGFu.YnV0LW9ubHktaGVyZQ.c2lnbmVkLWJ5LWEtY29sbGVjdG9y";

    #[tokio::test]
    async fn what_an_operator_sends_is_searched_when_it_has_ended() {
        canary::begin();
        let [leaks, other] = [Collected::begin().unwrap(), Collected::begin().unwrap()];
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for (place, text) in [(&leaks, &TOKEN[9..25]), (&other, &TOKEN[9..24])] {
            let body = [b"\xff\x0a\x10", text.as_bytes(), b"\x12\xff"].concat();
            let sent = http.post(format!("{}/v1/traces", place.endpoint())).body(body.clone()).send();
            assert_eq!(sent.await.unwrap().status(), 200);
            assert_eq!(place.bodies(), [body]);
        }
        // Learnt after it was sent.
        canary::learn("a token", TOKEN);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(leaks))).is_err());
        drop(other);
    }

    #[test]
    fn what_is_too_much_to_be_kept_is_searched_when_it_comes() {
        canary::begin();
        let token = format!("{TOKEN}x-of-too-much");
        canary::learn("a long token", &token);
        let mut sent = Sent::default();
        sent.take(Bytes::from(token));
        assert_eq!((sent.bodies.len(), sent.found.len()), (1, 0));
        sent.take(Bytes::from(vec![b' '; MOST]));
        assert!(sent.bodies.is_empty() && sent.found.contains("a long token"), "{:?}", sent.found);
    }
}
