//! TLS on the listener: renewed without a failed request.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::anyhow;
use e2e::osb::client_trusting;
use e2e::pki::{Identity, Pki};
use e2e::stage::SOON;
use e2e::{Operator, Osb, Stage, eventually};
use futures::StreamExt as _;
use reqwest::{Method, Version};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::auth::htpasswd;
use crate::mounted::Mounted;
use crate::world::{program, stage};

const CERT: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Certificate and key as files.
pub fn files(identity: &Identity) -> [(&str, &str); 2] {
    [(CERT, &identity.cert_pem), (KEY, &identity.key_pem)]
}

/// An operator with such files.
pub async fn with_tls(stage: &Stage<'_>, mounted: &Mounted, args: &[&str]) -> Operator {
    let (cert, key) = (mounted.path(CERT), mounted.path(KEY));
    stage.operator(program(), &[&["--tls-cert", &cert, "--tls-key", &key], args].concat()).await.unwrap()
}

/// The address of an operator.
pub fn address(operator: &Operator) -> &str {
    operator.url().strip_prefix("https://").unwrap()
}

/// A connection that has chosen the protocol.
pub async fn connect(address: &str, pki: &Pki, protocol: &str) -> TlsStream<TcpStream> {
    connect_with(address, pki, protocol, rustls::ALL_VERSIONS).await
}

/// The same, by one of these versions of TLS.
async fn connect_with(
    address: &str,
    pki: &Pki,
    protocol: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_protocol_versions(versions);
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Waits until new connections are made with that certificate.
async fn in_use(operator: &Operator, pki: &Pki, identity: &Identity) {
    let wanted = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap();
    eventually("the certificate to be in use", SOON, async || {
        let stream = connect(address(operator), pki, "http/1.1").await;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
        if shown.as_ref() == Some(&wanted) { Ok(()) } else { Err("another one is") }
    })
    .await
    .unwrap();
}

/// Sends requests until it is over; each must be let in and answered.
async fn requests(osb: Osb, instance: &str, over: &AtomicBool, count: &AtomicUsize) {
    while !over.load(Ordering::Relaxed) {
        let answer = osb.fetch(instance, "renewed-1").await.expect("no request fails");
        assert_eq!(answer.status, 404, "let in: there is no such binding");
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_under_load_without_a_failed_request() {
    let (stage, instance) = stage("certificate-renewed").await;
    let pki = Pki::generate("front").unwrap();
    let [first, second, third] = [(); 3].map(|()| pki.server().unwrap());
    let mut mounted = Mounted::new(&files(&first));
    let operator = with_tls(&stage, &mounted, &[]).await;
    let (over, count) = (AtomicBool::new(false), [(); 3].map(|()| AtomicUsize::new(0)));
    let client = || client_trusting(pki.ca_pem()).unwrap();
    let clients = [
        client(),
        client().http1_only(),
        // A connection for each request.
        client().http1_only().pool_max_idle_per_host(0),
    ];
    let load = clients.into_iter().zip(&count).map(|(client, count)| {
        requests(Osb::over(operator.url(), client.build().unwrap()), &instance, &over, count)
    });
    let renewals = async {
        in_use(&operator, &pki, &first).await;
        mounted.swap(&files(&second));
        in_use(&operator, &pki, &second).await;
        // Not a pair: what was there stays, and is said.
        mounted.swap(&[(CERT, &third.cert_pem), (KEY, &first.key_pem)]);
        eventually("the log to say what is wrong", SOON, async || {
            let said = operator.log().contains("--tls-key must hold the key of that certificate");
            if said { Ok(()) } else { Err("nothing") }
        })
        .await
        .unwrap();
        in_use(&operator, &pki, &second).await;
        mounted.swap(&files(&third));
        in_use(&operator, &pki, &third).await;
        let before = count.each_ref().map(|count| count.load(Ordering::Relaxed));
        eventually("each client to go on", SOON, async || {
            let now = count.each_ref().map(|count| count.load(Ordering::Relaxed));
            if now.iter().zip(before).all(|(now, before)| *now > before + 3) {
                Ok(())
            } else {
                Err("not yet")
            }
        })
        .await
        .unwrap();
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(futures::future::join_all(load), renewals);
    assert!(!operator.log().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn passwords_travel_over_tls_by_both_protocols() {
    let (stage, instance) = stage("tls").await;
    let pki = Pki::generate("front").unwrap();
    let mounted = Mounted::new(&files(&pki.server().unwrap()));
    let users = Mounted::new(&[("htpasswd", &htpasswd(&[("anna", "right")]))]);
    let args = ["--auth", "basic", "--htpasswd-file", &users.path("htpasswd")];
    let operator = with_tls(&stage, &mounted, &args).await;
    let osb = Osb::trusting(operator.url(), pki.ca_pem()).unwrap();
    assert_eq!(osb.fetch(&instance, "tls-1").await.unwrap().status, 401);
    let anna = osb.clone().with_basic("anna", "right");
    assert_eq!(anna.bound(&instance, "tls-1").await.unwrap().status, 201);

    let client = || client_trusting(pki.ca_pem()).unwrap();
    let url = osb.url(&instance, "tls-1");
    for (client, version) in [(client(), Version::HTTP_2), (client().http1_only(), Version::HTTP_11)] {
        let request = client.build().unwrap().request(Method::GET, &url).basic_auth("anna", Some("right"));
        let answer = request.header("X-Broker-API-Version", "2.17").send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    }
    let stranger = Osb::trusting(operator.url(), Pki::generate("other").unwrap().ca_pem()).unwrap();
    assert!(stranger.fetch(&instance, "tls-1").await.is_err(), "the certificate is checked in this test");
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    let failures = r#"kyma_bindings_tls_handshake_failures_total{reason="failed"} 1"#;
    assert!(metrics.contains(failures), "{metrics}");
}

#[tokio::test]
async fn who_speaks_without_tls_is_told_so() {
    let (stage, instance) = stage("plain-http").await;
    let pki = Pki::generate("front").unwrap();
    let mounted = Mounted::new(&files(&pki.server().unwrap()));
    let operator = with_tls(&stage, &mounted, &[]).await;
    let plain = Osb::new(&format!("http://{}", address(&operator)));
    // With a body that is larger than what is read of it at once, too.
    let large = Some(" ".repeat(48 * 1024));
    for body in [None, large] {
        let path = format!("/v2/service_instances/{instance}/service_bindings/plain-http-1");
        let told = plain.request(Method::PUT, &path, body).await.unwrap();
        assert_eq!((told.status, told.headers["x-content-type-options"].as_bytes()), (400, &b"nosniff"[..]));
        assert!(told.description().contains("https://"), "{}", told.description());
    }
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    let failures = r#"kyma_bindings_tls_handshake_failures_total{reason="plain_http"} 2"#;
    assert!(metrics.contains(failures), "{metrics}");
}

/// Exit status and status of HTTP of so many PUTs by the distribution's curl, each with a body of 20 KiB.
async fn curl(url: &str, body: &Path, more: &[&str], count: usize) -> Vec<(Option<i32>, String)> {
    let put = async |_| {
        let data = format!("@{}", body.display());
        let common = ["-sS", "-k", "--http2", "-X", "PUT", "--data-binary", &data, "-o", "/dev/null"];
        let mut curl = tokio::process::Command::new("curl");
        let ended =
            curl.args(common).args(["-w", "%{http_version} %{http_code}"]).args(more).arg(url).output();
        let ended = ended.await.unwrap();
        (ended.status.code(), String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned())
    };
    futures::stream::iter(0..count).map(put).buffer_unordered(4).collect().await
}

#[tokio::test]
async fn curl_gets_each_refusal_that_comes_before_its_body_was_read() {
    let (stage, instance) = stage("early").await;
    let pki = Pki::generate("front").unwrap();
    let mounted = Mounted::new(&files(&pki.server().unwrap()));
    let users = Mounted::new(&[("htpasswd", &htpasswd(&[("anna", "right")]))]);
    let args = ["--auth", "basic", "--htpasswd-file", &users.path("htpasswd")];
    let operator = with_tls(&stage, &mounted, &args).await;
    let dir = e2e::WorkDir::new("early").unwrap();
    let body = dir.path().join("body");
    std::fs::write(&body, "x".repeat(20 * 1024)).unwrap();
    let osb = Osb::trusting(operator.url(), pki.ca_pem()).unwrap();
    let (here, odd) = (osb.url(&instance, "early-1"), osb.url(&instance, "ODD"));
    let version = ["-H", "X-Broker-API-Version: 2.17"];
    let user = ["-u", "anna:right"];
    let both = [version, user].concat();
    let packed = [&both[..], &["-H", "Content-Encoding: gzip"]].concat();
    for (url, more, status) in [
        (&here, &version[..], "401"),
        (&here, &user[..], "412"),
        (&odd, &both[..], "400"),
        (&here, &packed[..], "415"),
        (&here.replace("/v2/", "/v9/"), &both[..], "404"),
    ] {
        let answers = curl(url, &body, more, 100).await;
        let lost: Vec<_> =
            answers.iter().filter(|answer| **answer != (Some(0), format!("2 {status}"))).collect();
        assert!(lost.is_empty(), "{status}: {} of {} are lost: {:?}", lost.len(), answers.len(), lost[0]);
    }
}

#[tokio::test]
async fn only_versions_of_tls_that_are_safe_are_spoken() {
    let (stage, _) = stage("versions").await;
    let pki = Pki::generate("front").unwrap();
    let mounted = Mounted::new(&files(&pki.server().unwrap()));
    let operator = with_tls(&stage, &mounted, &[]).await;
    for (version, number) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let stream = connect_with(address(&operator), &pki, "h2", &[version]).await;
        assert_eq!(stream.get_ref().1.protocol_version(), Some(number));
    }
    // No library offers the others any more: version, random, no session, one suite, no compression,
    // and ECDSA for signatures.
    let rest = [0, 0, 2, 0xc0, 0x14, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3];
    for minor in 0..=3 {
        let hello = [&[3, minor], &[0; 32][..], &rest].concat();
        let length = u8::try_from(hello.len()).unwrap();
        let record = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length], hello.as_slice()].concat();
        let mut stream = TcpStream::connect(address(&operator)).await.unwrap();
        stream.write_all(&record).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        // A fatal alert (RFC 8446, section 6): protocol_version; for that of TLS 1.2, its suite.
        let because = if minor < 3 { 70 } else { 40 };
        assert_eq!((answer[0], &answer[5..]), (21, &[2, because][..]), "3.{minor}");
    }
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    let (stage, _) = stage("silent").await;
    let pki = Pki::generate("front").unwrap();
    let mounted = Mounted::new(&files(&pki.server().unwrap()));
    let operator = with_tls(&stage, &mounted, &[]).await;
    let no_handshake = async {
        let mut stream = TcpStream::connect(address(&operator)).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let no_request = async {
        let mut stream = connect(address(&operator), &pki, "http/1.1").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let half_a_head = async {
        let mut stream = connect(address(&operator), &pki, "http/1.1").await;
        stream.write_all(b"GET /v2/catalog HTTP/1.1\r\nHost: local").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let all = async { tokio::join!(no_handshake, no_request, half_a_head) };
    tokio::time::timeout(SOON, all).await.expect("the server ends these connections");
    eventually("no connection to be open", SOON, async || {
        let (_, metrics) = operator.admin("/metrics").await?;
        let (none, timeout) = (
            metrics.contains("kyma_bindings_connections{listener=\"api\"} 0\n"),
            metrics.contains("kyma_bindings_tls_handshake_failures_total{reason=\"timeout\"} 1\n"),
        );
        if none && timeout { Ok(()) } else { Err(anyhow!(metrics)) }
    })
    .await
    .unwrap();
}
