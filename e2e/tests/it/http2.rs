//! HTTP/2 that nobody can abuse, in frames that no client would send.

use e2e::Osb;
use e2e::pki::Pki;
use e2e::stage::SOON;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::bounds::metric;
use crate::mounted::Mounted;
use crate::tls::{address, connect, files, with_tls};
use crate::world::stage;

// Types of frames, flags and a reason of RFC 9113, sections 6 and 7.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A GET of / of the static table (RFC 7541, appendix A), with a literal authority.
const GET: &[u8] = &[0x82, 0x87, 0x84, 0x41, 1, b'a'];
/// x: y, as a literal without index.
const FIELD: &[u8] = &[0, 1, b'x', 1, b'y'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// So many requests, each with another frame behind it.
fn requests(count: u32, kind: u8, payload: u32) -> Vec<u8> {
    let pair = |number: u32| {
        let stream = number * 2 + 1;
        let head = frame(HEADERS, END_STREAM | END_HEADERS, stream, GET);
        [head, frame(kind, 0, stream, &payload.to_be_bytes())].concat()
    };
    (0..count).flat_map(pair).collect()
}

/// The reason with which the server ends the connection; `None` if it gives none.
async fn end(stream: &mut (impl AsyncRead + Unpin)) -> Option<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.ok()?;
        if head[3] == GOAWAY {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
}

#[tokio::test]
async fn a_flood_costs_its_connection_alone() {
    let (stage, instance) = stage("floods").await;
    let pki = Pki::generate("front").unwrap();
    let mounted = Mounted::new(&files(&pki.server().unwrap()));
    let operator = with_tls(&stage, &mounted, &[]).await;
    let osb = Osb::trusting(operator.url(), pki.ca_pem()).unwrap();
    let endless: Vec<u8> = (0..20).flat_map(|_| frame(CONTINUATION, 0, 1, FIELD)).collect();
    for (what, flood) in [
        ("requests that are taken back", requests(64, RST_STREAM, CANCEL)),
        // Each window grows beyond what is legal, so the server has to reset its stream.
        ("requests that must be refused", requests(150, WINDOW_UPDATE, i32::MAX as u32)),
        ("a head without an end", [frame(HEADERS, END_STREAM, 1, GET), endless].concat()),
    ] {
        let mut stream = connect(address(&operator), &pki, "h2").await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let all = [preface.as_slice(), &frame(SETTINGS, 0, 0, &[]), &flood].concat();
        // One record of TLS, so that the server sees all of it at once, before it can answer.
        assert!(all.len() < 16 * 1024);
        stream.write_all(&all).await.unwrap();
        let reason = tokio::time::timeout(SOON, end(&mut stream)).await.expect("it is ended");
        assert_eq!(reason, Some(ENHANCE_YOUR_CALM), "{what}");
        assert_eq!(osb.fetch(&instance, "floods-1").await.unwrap().status, 404, "others are served");
    }
    metric(&operator, "kyma_bindings_http_requests_in_flight 0").await;
    metric(&operator, "kyma_bindings_connections_ended_total{listener=\"api\",reason=\"flood\"} 3").await;
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_under_way() {
    let (stage, instance) = stage("untaken").await;
    let pki = Pki::generate("front").unwrap();
    let mounted = Mounted::new(&files(&pki.server().unwrap()));
    let operator = with_tls(&stage, &mounted, &["--max-in-flight", "2"]).await;
    let osb = Osb::trusting(operator.url(), pki.ca_pem()).unwrap();
    let stream = connect(address(&operator), &pki, "h2").await;
    let mut lazy = h2::client::Builder::new();
    // No byte of a body may be sent.
    lazy.initial_window_size(0);
    let (client, connection) = lazy.handshake::<_, &[u8]>(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let ask = async |url: &str| {
        let request = http::Request::get(url).header("X-Broker-API-Version", "2.17").body(()).unwrap();
        let mut client = client.clone().ready().await.unwrap();
        client.send_request(request, true).unwrap().0.await.unwrap()
    };
    let mut untaken = Vec::new();
    for _ in 0..3 {
        untaken.push(ask(&format!("{}/docs/swagger-ui-bundle.js", operator.url())).await);
    }
    let here = osb.url(&instance, "untaken-1");
    for _ in 0..2 {
        assert_eq!(osb.fetch(&instance, "untaken-1").await.unwrap().status, 404);
        // What anybody may have takes no place, and what is answered soon none either.
        metric(&operator, &format!("kyma_bindings_http_requests_in_flight {}", untaken.len() - 3)).await;
        untaken.push(ask(&here).await);
    }
    assert!(untaken[3..].iter().all(|answer| answer.status() == 404), "let in: there is no such binding");
    assert_eq!(osb.fetch(&instance, "untaken-1").await.unwrap().status, 429);
    driver.abort();
    metric(&operator, "kyma_bindings_http_requests_in_flight 0").await;
    assert_eq!(osb.fetch(&instance, "untaken-1").await.unwrap().status, 404);
}
