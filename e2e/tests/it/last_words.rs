//! What a process says at its start and at its end: in one form, by name, and at once. Nothing here needs a cluster.

use std::process::{Output, Stdio};
use std::sync::Arc;

use e2e::operator::AS_OPERATOR;
use e2e::stage::SOON;
use e2e::{Operator, WorkDir, eventually};
use serde_json::Value;
use tokio::process::Command;

use crate::mounted::Mounted;
use crate::world::program;

/// Nobody is there.
const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: nobody
contexts: [{name: nobody, context: {cluster: nobody, user: nobody}}]
clusters: [{name: nobody, cluster: {server: 'https://127.0.0.1:9'}}]
users: [{name: nobody, user: {token: none}}]
";

const LISTEN: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// Runs it until it ends by itself.
async fn run(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    command.args([AS_OPERATOR, "run"]).args(LISTEN).args(args).stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stderr, .. } = tokio::time::timeout(SOON, command.output()).await.unwrap().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// The last line as JSON.
fn last(said: &str) -> Value {
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[tokio::test]
async fn text_has_no_colours_where_nobody_sees_them_and_says_why_it_ends() {
    let (code, said) = run(&["--auth", "none", "--kubeconfig", "nothere"]).await;
    assert_eq!(code, Some(1));
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let last = said.lines().last().unwrap();
    let why = "--kubeconfig nothere can't be read: No such file or directory";
    assert!(last.contains(" ERROR ") && last.contains(why), "{said}");
}

#[tokio::test]
async fn the_line_that_says_why_it_ends_is_json_where_the_others_are() {
    for (args, words) in [
        (vec!["--auth", "none", "--kubeconfig", "nothere"], "--kubeconfig nothere can't be read"),
        (vec!["--auth", "jwt"], "--jwt-issuer and --jwt-audience must be given with --auth jwt"),
        (vec!["--auth", "none", "--role", "king"], "invalid value 'king' for '--role"),
        (vec!["--auth", "none", "--lease-duration", "1s"], "must be in this order"),
    ] {
        let (code, said) = run(&[&["--log-format", "json"], &args[..]].concat()).await;
        let last = last(&said);
        assert_eq!((code, &last["level"]), (Some(1), &"ERROR".into()), "{said}");
        assert!(last["msg"].as_str().unwrap().contains(words), "{words} is not in: {said}");
        assert!(last["time"].is_string() && last["target"].is_string(), "{said}");
        assert!(said.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{said}");
    }
}

#[tokio::test]
async fn a_catalog_is_told_by_its_paths() {
    let plan = "plans: [{id: p, name: n, description: d, fre: true}]";
    let text = format!("services: [{{id: s, name: kyma, description: d, bindabel: true, {plan}}}]");
    let good = text.replace("name: n,", "name: 'n',");
    let files = Mounted::new(&[("wrong", &text), ("good", &good), ("kubeconfig", KUBECONFIG)]);
    let (wrong, good, kubeconfig) = (files.path("wrong"), files.path("good"), files.path("kubeconfig"));
    let args = ["--auth", "none", "--log-format", "json", "--kubeconfig", &kubeconfig, "--catalog", &wrong];
    let (code, said) = run(&args).await;
    let why = last(&said)["msg"].as_str().unwrap().to_owned();
    assert_eq!(code, Some(1), "{said}");
    assert!(why.contains("services[0].plans[0].name must be a text, and is false to YAML"), "{said}");

    let dir = Arc::new(WorkDir::new("catalog").unwrap());
    let args = ["--role", "broker", "--catalog", &good];
    let operator = Operator::launch(&dir, program(), kubeconfig.as_ref(), &args).await.unwrap();
    let named = r#""keys":"services[0].bindabel, services[0].plans[0].fre""#;
    assert!(operator.log().contains(named), "{}", operator.log());
}

/// A certificate for that time, in years from now, with its key.
fn certificate(from: i32, to: i32) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_is_a_warning_at_the_start_and_when_it_is_read_again() {
    let (expired, early) = (certificate(2001, 2002), certificate(2190, 2191));
    let files = |(certificate, key): &(String, String)| {
        [("cert", certificate.clone()), ("key", key.clone()), ("kubeconfig", KUBECONFIG.to_owned())]
    };
    let of = |files: &[(&'static str, String); 3]| files.clone().map(|(name, text)| (name, text));
    let first = of(&files(&expired));
    let mut mounted = Mounted::new(&first.each_ref().map(|(name, text)| (*name, text.as_str())));
    let (cert, key, kubeconfig) = (mounted.path("cert"), mounted.path("key"), mounted.path("kubeconfig"));
    let dir = Arc::new(WorkDir::new("expired").unwrap());
    let args = ["--role", "broker", "--tls-cert", &cert, "--tls-key", &key];
    let operator = Operator::launch(&dir, program(), kubeconfig.as_ref(), &args).await.unwrap();
    let warned = |words: &str| operator.log().lines().any(|l| l.contains(r#""WARN""#) && l.contains(words));
    assert!(warned("--tls-cert: the certificate has expired at 2002-01-01T00:00:00Z"), "{}", operator.log());
    let second = of(&files(&early));
    mounted.swap(&second.each_ref().map(|(name, text)| (*name, text.as_str())));
    eventually("the next one to be judged", SOON, async || {
        let said = warned("--tls-cert: the certificate is not valid before 2190-01-01T00:00:00Z");
        if said { Ok(()) } else { Err(operator.log()) }
    })
    .await
    .unwrap();
}
