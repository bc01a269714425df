use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// A connection on which one answer is never read ends, however busy it is besides.
static LARGE: [u8; 100_000] = [b'x'; 100_000];

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut_off() {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let router = Router::new()
        .route("/large", get(async || axum::body::Bytes::from_static(&LARGE)))
        .route("/empty", get(async || axum::http::StatusCode::NO_CONTENT));
    let server = tokio::spawn(over_http2(theirs, router, CancellationToken::new()));
    let mut client = h2::client::Builder::new();
    // As little as can be, and never more.
    client.initial_window_size(1);
    let (client, connection) = client.handshake::<_, axum::body::Bytes>(ours).await.unwrap();
    tokio::spawn(connection);
    let ask = async |path: &str| {
        let request = Request::get(format!("http://here{path}")).body(()).unwrap();
        client.clone().ready().await?.send_request(request, true)?.0.await
    };
    let unread = ask("/large").await.unwrap();
    let busy = async {
        while ask("/empty").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(WRITE * 2, busy).await.expect("the connection ends");
    assert_eq!(server.await.unwrap(), Some(Ending::Unread));
    drop(unread);
}

#[tokio::test(start_paused = true)]
async fn only_what_we_end_is_counted() {
    let large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "v".repeat(4 * MAX_HEAD as usize));
    let whole = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    for (sent, stays, ending) in [
        ("", false, None),
        ("GET / HT", false, None),
        (whole, false, None),
        ("\x16\x03\x01 no HTTP\r\n\r\n", true, Some(Ending::Malformed)),
        (&large, true, Some(Ending::HeadTooLarge)),
        ("", true, Some(Ending::Timeout)),
        ("GET / HT", true, Some(Ending::Timeout)),
        (whole, true, Some(Ending::Idle)),
    ] {
        let (mut ours, theirs) = tokio::io::duplex(8 * MAX_HEAD as usize);
        let router = Router::new().route("/", get(async || "here"));
        let server = tokio::spawn(over_http1(theirs, router, CancellationToken::new()));
        ours.write_all(sent.as_bytes()).await.unwrap();
        if !stays {
            ours.shutdown().await.unwrap();
        }
        assert_eq!(server.await.unwrap(), ending, "{:?}", sent.get(..9));
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::<Metrics>::default();
    let server = Server { name: "api", listener, tls: None, connections: 1, metrics: metrics.clone() };
    let stop = CancellationToken::new();
    let router = Router::new().route("/", get(async || "here"));
    let running = tokio::spawn(server.serve(router, stop.clone(), Duration::ZERO));
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"here") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
    };
    let mut first = TcpStream::connect(address).await.unwrap();
    ask(&mut first).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    {
        let mut waits = pin!(ask(&mut second));
        tokio::select! {
            () = &mut waits => panic!("served beyond the bound"),
            // Were it not bounded, the answer would be there before this one.
            () = ask(&mut first) => {}
        }
        for line in ["connections{listener=\"api\"} 1\n", "connections_limit{listener=\"api\"} 1\n"] {
            assert!(metrics.render().contains(&format!("kyma_bindings_{line}")), "{line}");
        }
        drop(first);
        waits.await;
    }
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn every_answer_says_that_its_type_is_not_to_be_guessed() {
    for path in ["/", "/nothing"] {
        let (mut ours, theirs) = tokio::io::duplex(1024);
        let router = Router::new().route("/", get(async || "here"));
        let server = tokio::spawn(over_http1(theirs, router, CancellationToken::new()));
        let message = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        ours.write_all(message.as_bytes()).await.unwrap();
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("\r\nx-content-type-options: nosniff\r\n"), "{answer}");
        assert_eq!(server.await.unwrap(), None);
    }
}

/// Who says all it has to say at once gets its answer, however long that takes; who goes later is not waited for.
#[tokio::test(start_paused = true)]
async fn a_client_that_goes_is_told_from_one_that_has_said_all() {
    for (after, answered) in [(Duration::ZERO, true), (Duration::from_secs(5), false)] {
        let (mut ours, theirs) = tokio::io::duplex(1024);
        let slow = async || {
            tokio::time::sleep(Duration::from_secs(9)).await;
            "here"
        };
        let router = Router::new().route("/", get(slow));
        let server = tokio::spawn(over_http1(theirs, router, CancellationToken::new()));
        ours.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
        tokio::time::sleep(after).await;
        ours.shutdown().await.unwrap();
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.ends_with("here"), answered, "{after:?}: {answer}");
        assert_eq!(server.await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_so_also_behind_another_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(async || "here"));
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        over_http1(stream, router, CancellationToken::new()).await
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"here") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    let large = format!("GET / HTTP/1.1\r\nHost: here\r\nx: {}\r\n\r\n", "v".repeat(100 * 1024));
    let _ = stream.write_all(large.as_bytes()).await;
    assert_eq!(server.await.unwrap(), Some(Ending::HeadTooLarge));
}
