//! Who is let in with a password, and who without one.

use std::sync::Arc;

use anyhow::anyhow;
use e2e::osb::answer;
use e2e::stage::SOON;
use e2e::{Operator, Stage, WorkDir, eventually};
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::mounted::Mounted;
use crate::world::{program, stage};

/// Name of the file with the users.
const FILE: &str = "htpasswd";

/// Users with passwords of little cost, as lines of a file.
pub fn htpasswd(users: &[(&str, &str)]) -> String {
    let line = |(user, password): &(&str, &str)| format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap());
    users.iter().map(line).collect()
}

/// The same as a mounted file.
fn mounted(content: &str) -> Mounted {
    Mounted::new(&[(FILE, content)])
}

async fn with_passwords(stage: &Stage<'_>, users: &Mounted) -> Operator {
    let file = users.path(FILE);
    let args = ["--auth", "basic", "--htpasswd-file", &file, "--allow-basic-without-tls"];
    stage.operator(program(), &args).await.unwrap()
}

fn path(instance: &str, binding: &str) -> String {
    format!("/v2/service_instances/{instance}/service_bindings/{binding}")
}

#[tokio::test]
async fn nobody_gets_in_without_the_right_password() {
    let (stage, instance) = stage("basic").await;
    let users = mounted(&htpasswd(&[("anna", "correct-horse-battery"), ("bert", "staple-of-bert-1")]));
    let operator = with_passwords(&stage, &users).await;
    let stranger = operator.osb();
    let here = path(&instance, "basic-1");

    let get = |osb: &e2e::Osb| {
        osb.bare(Method::GET, &here).header("X-Broker-API-Request-Identity", "req-of-mallory")
    };
    let ways = "Basic realm=\"kyma-bindings\", charset=\"UTF-8\"";
    for (osb, status) in [
        (stranger.clone(), 401),
        (stranger.clone().with_basic("anna", "incorrect-horse-battery"), 401),
        (stranger.clone().with_basic("bert", "correct-horse-battery"), 401),
        (stranger.clone().with_basic("mallory", "correct-horse-battery"), 401),
        (stranger.clone().with_authorization("Bearer some-token-of-mallory"), 401),
        (stranger.clone().with_authorization("Basic !"), 401),
    ] {
        // Without the version header: who asks is looked at first.
        let refused = answer(get(&osb)).await.unwrap();
        assert_eq!(refused.status, status, "{}", refused.description());
        assert_eq!(refused.headers["www-authenticate"], ways);
        assert_eq!(refused.headers["cache-control"], "no-store");
        assert!(!refused.description().is_empty());
    }
    let twice = stranger.clone().with_basic("anna", "correct-horse-battery");
    let twice = answer(get(&twice).basic_auth("anna", Some("correct-horse-battery"))).await.unwrap();
    assert_eq!((twice.status, twice.description()), (400, "there must be exactly one header Authorization"));
    let nothing = stranger.request(Method::GET, "/v2/nothing", None).await.unwrap();
    assert_eq!(nothing.status, 404, "what isn't there needs no password");

    for (user, password) in [("anna", "correct-horse-battery"), ("bert", "staple-of-bert-1")] {
        let osb = stranger.clone().with_basic(user, password);
        let bound = osb.bound(&instance, &format!("basic-{user}")).await.unwrap();
        assert_eq!(bound.status, 201, "{}", bound.description());
        assert_eq!(answer(get(&osb)).await.unwrap().status, 412, "let in, and then asked for the version");
    }
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    let failures = "kyma_bindings_authentication_failures_total";
    for (labels, count) in [
        (r#"scheme="basic",reason="password""#, 3),
        (r#"scheme="unknown",reason="missing""#, 1),
        (r#"scheme="unknown",reason="repeated""#, 1),
    ] {
        let line = format!("{failures}{{{labels}}} {count}");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    operator.terminate().await.unwrap();
    let log = operator.log();
    let said = log.lines().filter(|line| line.contains("a request was not authenticated"));
    assert_eq!(said.filter(|line| line.contains("req-of-mallory")).count(), 7);
    for piece in ["horse", "staple-of", "some-token", "Y29ycmVjd", "bm5hOmNvcnJlY3Q", "$2b$"] {
        assert!(!log.contains(piece) && !metrics.contains(piece), "{piece} is in the log or the metrics");
    }
}

#[tokio::test]
async fn strangers_are_refused_before_their_body_is_read() {
    let (stage, instance) = stage("unread").await;
    let users = mounted(&htpasswd(&[("anna", "right")]));
    let operator = with_passwords(&stage, &users).await;
    let address = operator.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let here = path(&instance, "unread-1");
    // The client waits to be told to go on, and would be if anybody read on.
    let head = format!(
        "PUT {here} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    tokio::time::timeout(SOON, stream.read_exact(&mut start)).await.unwrap().unwrap();
    assert_eq!(std::str::from_utf8(&start).unwrap(), "HTTP/1.1 401");
}

#[tokio::test]
async fn a_password_changed_on_disk_counts_without_a_restart() {
    let (stage, instance) = stage("password-changed").await;
    let mut users = mounted(&htpasswd(&[("anna", "old")]));
    let operator = with_passwords(&stage, &users).await;
    let with = |user: &str, password: &str| operator.osb().with_basic(user, password);
    let status =
        async |osb: &e2e::Osb| osb.fetch(&instance, "password-changed-1").await.map(|answer| answer.status);
    let becomes = async |osb: e2e::Osb, wanted: u16| {
        eventually(&format!("status {wanted}"), SOON, async || match status(&osb).await? {
            seen if seen == wanted => Ok(()),
            seen => Err(anyhow!("{seen}")),
        })
        .await
        .unwrap();
    };
    assert_eq!(status(&with("anna", "old")).await.unwrap(), 404, "let in: there is no such binding");
    // Both for a while, as a rotation without downtime does it.
    users.swap(&[(FILE, &htpasswd(&[("anna", "old"), ("anna-2", "new")]))]);
    becomes(with("anna-2", "new"), 404).await;
    assert_eq!(status(&with("anna", "old")).await.unwrap(), 404);
    users.swap(&[(FILE, &htpasswd(&[("anna-2", "new")]))]);
    becomes(with("anna", "old"), 401).await;

    // What can't be used changes nothing.
    users.swap(&[(FILE, "anna-2:new-in-clear-text\n")]);
    eventually("the log to say what is wrong", SOON, async || {
        let log = operator.log();
        let said = log.contains("the hash in line 1 must be bcrypt") && log.contains("stays");
        if said { Ok(()) } else { Err("nothing") }
    })
    .await
    .unwrap();
    assert!(!operator.log().contains("new-in-clear"));
    assert_eq!(status(&with("anna-2", "new")).await.unwrap(), 404);
    users.swap(&[(FILE, &htpasswd(&[("carl", "again")]))]);
    becomes(with("carl", "again"), 404).await;

    // Nobody is in it any more.
    users.swap(&[(FILE, "# nobody\n")]);
    becomes(with("carl", "again"), 401).await;
    users.swap(&[(FILE, &htpasswd(&[("carl", "again")]))]);
    becomes(with("carl", "again"), 404).await;
}

#[tokio::test]
async fn many_wrong_passwords_do_not_keep_out_who_is_known() {
    let (stage, instance) = stage("flood").await;
    let users = mounted(&format!("anna:{}\n", bcrypt::hash("right", 8).unwrap()));
    let operator = with_passwords(&stage, &users).await;
    let (instance, anna) = (instance.as_str(), operator.osb().with_basic("anna", "right"));
    assert_eq!(anna.fetch(instance, "flood-1").await.unwrap().status, 404, "let in");
    let stranger = operator.osb();
    // Half of them the same.
    let wrong = (0..300).chain(std::iter::repeat_n(300, 300)).map(|number| {
        let osb = stranger.clone().with_basic("anna", &format!("wrong-{number}"));
        async move { osb.fetch(instance, "flood-1").await.unwrap() }
    });
    let known = async {
        for _ in 0..100 {
            assert_eq!(anna.fetch(instance, "flood-1").await.unwrap().status, 404, "let in meanwhile");
        }
    };
    let (wrong, ()) = tokio::join!(futures::future::join_all(wrong), known);
    for answer in &wrong {
        assert!(matches!(answer.status, 401 | 429), "{}", answer.status);
        assert_eq!(answer.status == 429, answer.headers.contains_key("retry-after"));
    }
    assert!(wrong.iter().any(|answer| answer.status == 429), "more wait than may wait");
}

#[tokio::test]
async fn without_passwords_only_this_machine_is_served() {
    let (stage, instance) = stage("local").await;
    let dir = Arc::new(WorkDir::new("open").unwrap());
    let control = stage.control().kubeconfig_path();
    let refused = Operator::launch(&dir, program(), control, &["--listen", "0.0.0.0:0"]).await;
    let message = format!("{:#}", refused.err().expect("it does not start"));
    assert!(
        message.contains("--auth none is accepted only where --listen is a loopback address"),
        "{message}"
    );

    let operator = stage.operator(program(), &[]).await.unwrap();
    assert!(operator.log().contains("requests are not authenticated"));
    let here = path(&instance, "local-1");
    let with_host = async |host: &str| {
        let request = operator.osb().bare(Method::GET, &here).header("X-Broker-API-Version", "2.17");
        answer(request.header("Host", host)).await.unwrap()
    };
    for host in ["rebound.example", "localhost.rebound.example:8080", "10.0.0.1"] {
        let refused = with_host(host).await;
        assert_eq!(refused.status, 403, "{host}");
        assert!(refused.description().contains("Host must be localhost"), "{}", refused.description());
    }
    for host in ["localhost", "localhost:8080", "127.0.0.1", "[::1]:80"] {
        assert_eq!(with_host(host).await.status, 404, "{host}: let in");
    }
}

#[tokio::test]
async fn passwords_are_not_taken_over_plain_http_unless_told_so() {
    let users = mounted(&htpasswd(&[("anna", "right")]));
    let (stage, _) = stage("plain").await;
    let dir = Arc::new(WorkDir::new("plain").unwrap());
    let file = users.path(FILE);
    let start = async |args: &[&str]| {
        let started = Operator::launch(&dir, program(), stage.control().kubeconfig_path(), args).await;
        format!("{:#}", started.err().expect("it does not start"))
    };
    let message = start(&["--auth", "basic", "--htpasswd-file", &file]).await;
    assert!(message.contains("--allow-basic-without-tls"), "{message}");
    let missing = format!("{file}-missing");
    let message = start(&["--auth", "basic", "--allow-basic-without-tls", "--htpasswd-file", &missing]).await;
    assert!(message.contains("--htpasswd-file") && message.contains("can't be read"), "{message}");
    let nobody = mounted("# nobody\n");
    let file = nobody.path(FILE);
    let message = start(&["--auth", "basic", "--allow-basic-without-tls", "--htpasswd-file", &file]).await;
    assert!(message.contains("it has no user"), "{message}");
}
