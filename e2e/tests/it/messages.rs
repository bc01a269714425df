//! Messages of HTTP as no library would send them, and clients that stop sending.

use e2e::Operator;
use e2e::issuer::Issuer;
use e2e::stage::SOON;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::auth::htpasswd;
use crate::mounted::Mounted;
use crate::world::{program, stage};

/// Sends a message, and the end of all messages if `ends`; gives back all that is answered until the server ends the
/// connection.
async fn said_to(operator: &Operator, message: &str, ends: bool) -> String {
    let mut stream = TcpStream::connect(operator.url().strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(message.as_bytes()).await.unwrap();
    if ends {
        stream.shutdown().await.unwrap();
    }
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.expect("it ends").unwrap();
    answer
}

#[tokio::test]
async fn a_message_must_name_its_host_and_its_end_whoever_is_let_in() {
    let (stage, instance) = stage("messages").await;
    let users = Mounted::new(&[("htpasswd", &htpasswd(&[("anna", "right")]))]);
    let issuer = Issuer::start().await.unwrap();
    let keys = Mounted::new(&[("keys", &issuer.jwks().to_string())]);
    let (file, keys) = (users.path("htpasswd"), keys.path("keys"));
    let basic = ["--auth", "basic", "--htpasswd-file", &file, "--allow-basic-without-tls"];
    let jwt =
        ["--auth", "jwt", "--jwt-issuer", issuer.url(), "--jwt-audience", "us", "--jwt-jwks-file", &keys];
    for args in [&[] as &[&str], &basic, &jwt] {
        let operator = stage.operator(program(), &[&["--role", "broker"], args].concat()).await.unwrap();
        let here = format!("/v2/service_instances/{instance}/service_bindings/messages-1");
        let ask = async |version: &str, fields: &str| {
            let head =
                format!("PUT {here} HTTP/{version}\r\nX-Broker-API-Version: 2.17\r\nConnection: close\r\n");
            said_to(&operator, &format!("{head}{fields}\r\n"), false).await
        };
        let chunked = "Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
        for (fields, word) in [
            ("", "one header Host"),
            ("Host: localhost\r\nHost: localhost\r\n", "one header Host"),
            ("Host: \r\n", "one header Host"),
            ("Host: local host\r\n", "one header Host"),
            ("Host: anna@localhost\r\n", "one header Host"),
            (&chunked.replace("chunked", "gzip, chunked"), "must be chunked"),
            (&chunked.replace("chunked", "chunked\r\nTransfer-Encoding: chunked"), "must be chunked"),
        ] {
            let answer = ask("1.1", fields).await;
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains(word),
                "{args:?} {fields}: {answer}"
            );
            assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
        }
        // No client that knows URLs sends these.
        for region in ["..", "%2e%2e", "%2E."] {
            let head =
                format!("GET /oauth/{region}{here} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let answer = said_to(&operator, &head, false).await;
            assert!(
                answer.starts_with("HTTP/1.1 404 ") && answer.contains("a region in the path"),
                "{answer}"
            );
        }
        // Without a body of ours: where it ends isn't known.
        let unknown = ask("1.1", &chunked.replace("chunked", "gzip")).await;
        assert!(unknown.starts_with("HTTP/1.1 400 "), "{unknown}");
        let status = if args.is_empty() { "400" } else { "401" };
        for good in ["Host: localhost\r\n", chunked] {
            let answer = ask("1.1", good).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{args:?} {good}: {answer}");
            assert!(!answer.contains("one header Host") && !answer.contains("must be chunked"), "{answer}");
        }
    }
}

#[tokio::test]
async fn who_stops_sending_right_behind_its_request_is_answered() {
    let (stage, instance) = stage("half").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let here = format!("/v2/service_instances/{instance}/service_bindings/half-1");
    let fields = "Host: localhost\r\nX-Broker-API-Version: 2.17\r\n";
    let body = r#"{"service_id":"s","plan_id":"p"}"#;
    let put = format!("PUT {here} HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len());
    let get = format!("GET {here} HTTP/1.1\r\n{fields}\r\n");
    let delete = format!("DELETE {here}?service_id=s&plan_id=p HTTP/1.1\r\n{fields}\r\n");
    for (message, status) in [(&put, "201"), (&get, "200"), (&delete, "200"), (&get, "404")] {
        let answer = said_to(&operator, message, true).await;
        let wanted = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&wanted), "{wanted}: {}", answer.lines().next().unwrap_or("nothing"));
    }
    // A body that ends before it should is no request.
    let cut = said_to(&operator, &put.replace(body, "{"), true).await;
    assert!(cut.is_empty() || cut.starts_with("HTTP/1.1 400 "), "{cut}");
}
