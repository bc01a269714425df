//! What goes on after a 202, and bindings that take over from others.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use e2e::fake::{Death, Fake};
use e2e::osb::Answer;
use e2e::stage::{SOON, prove, prove_refused};
use e2e::{Osb, eventually};
use reqwest::Method;
use serde_json::json;

use crate::world::{claim, program, stage, world};

const QUICK: [&str; 4] = ["--async-after", "1s", "--create-timeout", "10s"];

struct Async<'a> {
    osb: Osb,
    path: &'a str,
}

impl Async<'_> {
    async fn ask(&self, method: Method, tail: &str, body: Option<String>) -> Answer {
        self.osb.request(method, &format!("{}{tail}", self.path), body).await.unwrap()
    }

    async fn bind(&self) -> Answer {
        let body = json!({"service_id": "s", "plan_id": "p"}).to_string();
        self.ask(Method::PUT, "?accepts_incomplete=true", Some(body)).await
    }

    async fn unbind(&self) -> Answer {
        self.ask(Method::DELETE, "?service_id=s&plan_id=p&accepts_incomplete=true", None).await
    }

    async fn poll(&self, operation: &str) -> Answer {
        self.ask(Method::GET, &format!("/last_operation?operation={operation}"), None).await
    }

    async fn until(&self, operation: &str, what: &str, done: impl Fn(&Answer) -> bool) -> Answer {
        let asked = eventually(what, Duration::from_mins(1), async || {
            let answer = self.poll(operation).await;
            if done(&answer) { Ok(answer) } else { Err(anyhow!("{} {}", answer.status, answer.body)) }
        });
        asked.await.unwrap()
    }
}

#[tokio::test]
async fn an_operation_outlives_the_process_that_began_it() {
    let (stage, instance) = stage("async").await;
    let good = world().await.managed.admin_kubeconfig();
    let dead = Fake::start(Death::Refused).await.unwrap();
    let path = format!("/v2/service_instances/{instance}/service_bindings/async-1");
    stage.rotate("r-async", Some(dead.kubeconfig())).await.unwrap();

    let first = stage.operator(program(), &QUICK).await.unwrap();
    let begun = Async { osb: first.osb(), path: &path }.bind().await;
    assert_eq!(begun.status, 202, "{}", begun.description());
    let bind = begun.body["operation"].as_str().unwrap().to_owned();
    first.kill().await.unwrap();

    let second = stage.operator(program(), &QUICK).await.unwrap();
    let broker = Async { osb: second.osb(), path: &path };
    let repeated = broker.bind().await;
    assert_eq!((repeated.status, repeated.body["operation"].as_str()), (202, Some(bind.as_str())));
    let cause = "the cluster to be named as the cause";
    let says = |words: &'static str| move |answer: &Answer| answer.description().contains(words);
    let standing = broker.until(&bind, cause, says("the managed cluster")).await;
    assert_eq!((standing.status, &standing.body["state"]), (200, &json!("in progress")));
    stage.rotate("r-async", Some(&good)).await.unwrap();
    broker.until(&bind, "the bind to succeed", |answer| answer.body["state"] == "succeeded").await;
    let made = broker.bind().await;
    assert_eq!(made.status, 200, "{}", made.description());
    prove(made.kubeconfig().unwrap()).await.unwrap();

    stage.rotate("r-async", Some(dead.kubeconfig())).await.unwrap();
    let going = broker.unbind().await;
    assert_eq!(going.status, 202, "{}", going.description());
    let unbind = going.body["operation"].as_str().unwrap().to_owned();
    assert_eq!(broker.poll(&bind).await.body["state"], "failed", "the bind is being undone");
    second.kill().await.unwrap();

    let third = stage.operator(program(), &QUICK).await.unwrap();
    let broker = Async { osb: third.osb(), path: &path };
    assert_eq!(broker.unbind().await.body["operation"], unbind.as_str());
    let standing = broker.poll(&unbind).await;
    assert_eq!((standing.status, &standing.body["state"]), (200, &json!("in progress")));
    assert_eq!(standing.headers["retry-after"], "2");
    stage.rotate("r-async", Some(&good)).await.unwrap();
    broker.until(&unbind, "the unbind to be done", |answer| answer.status == 410).await;
    prove_refused(made.kubeconfig().unwrap()).await.unwrap();
    assert_eq!(broker.poll(&bind).await.body["state"], "failed", "nothing is there any more");
}

#[tokio::test]
async fn a_refusal_after_the_202_is_kept_until_it_is_seen() {
    let (stage, instance) = stage("refused-late").await;
    let dead = Fake::start(Death::Refused).await.unwrap();
    let good = world().await.managed.admin_kubeconfig();
    let path = format!("/v2/service_instances/{instance}/service_bindings/refused-late-1");
    stage.rotate("r-refused-late", Some(dead.kubeconfig())).await.unwrap();
    let operator = stage.operator(program(), &QUICK).await.unwrap();
    let broker = Async { osb: operator.osb(), path: &path };
    let begun = broker.bind().await;
    assert_eq!(begun.status, 202, "{}", begun.description());
    let bind = begun.body["operation"].as_str().unwrap().to_owned();
    // Whoever looks at the cluster once it is back finds an account of that name.
    claim("refused-late-1").await;
    stage.rotate("r-refused-late", Some(&good)).await.unwrap();
    let failed = broker.until(&bind, "the bind to fail", |answer| answer.body["state"] == "failed").await;
    assert!(failed.description().contains("kyma-binding-refused-late-1"), "{}", failed.description());
    let refused = broker.bind().await;
    assert_eq!(refused.status, 409, "{}", refused.description());
    stage.gone("refused-late-1", Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_nothing_that_was_refused() {
    let (stage, instance) = stage("hangup").await;
    let dead = Fake::start(Death::Refused).await.unwrap();
    let good = world().await.managed.admin_kubeconfig();
    stage.rotate("r-hangup", Some(dead.kubeconfig())).await.unwrap();
    let operator = stage.operator(program(), &["--create-timeout", "60s"]).await.unwrap();
    let osb = operator.osb();
    let asked = Instant::now();
    let client = tokio::spawn(async move { osb.bind(&instance, "hangup-1", None).await.map(drop) });
    stage.condition("hangup-1", "Ready", "False", "ClusterUnreachable").await.unwrap();
    // Who stops sending within a second of its request may only have said all that it has to say.
    eventually("the request to be older than that", SOON, async || {
        if asked.elapsed() > Duration::from_secs(2) { Ok(()) } else { Err("not yet") }
    })
    .await
    .unwrap();
    client.abort();
    eventually("the access line", SOON, async || {
        let log = operator.log();
        let line = log.lines().find(|line| line.contains(r#""status":499"#) && line.contains("hangup-1"));
        line.map(drop).ok_or_else(|| anyhow!("none yet"))
    })
    .await
    .unwrap();
    claim("hangup-1").await;
    stage.rotate("r-hangup", Some(&good)).await.unwrap();
    stage.gone("hangup-1", SOON).await.unwrap();
}

#[tokio::test]
async fn a_successor_works_beside_its_predecessor_also_at_the_limit() {
    let (stage, instance) = stage("rotate").await;
    let operator = stage.operator(program(), &["--max-bindings-per-instance", "2"]).await.unwrap();
    let osb = operator.osb();
    let rotate = async |binding: &str, of: &str| {
        let path = format!("/v2/service_instances/{instance}/service_bindings/{binding}");
        let body = json!({"predecessor_binding_id": of}).to_string();
        osb.request(Method::PUT, &path, Some(body)).await.unwrap()
    };
    let first = osb.bind(&instance, "rotate-1", Some(900)).await.unwrap();
    assert_eq!(osb.bind(&instance, "rotate-other", None).await.unwrap().status, 201);
    assert_eq!(osb.bind(&instance, "rotate-more", None).await.unwrap().status, 400, "the limit is reached");

    let second = rotate("rotate-2", "rotate-1").await;
    assert_eq!(second.status, 201, "{}", second.description());
    prove(first.kubeconfig().unwrap()).await.unwrap();
    prove(second.kubeconfig().unwrap()).await.unwrap();
    let spec = stage.bindings().get("rotate-2").await.unwrap().spec;
    assert_eq!(spec.expiration_seconds, 900, "as the predecessor");
    assert_eq!((spec.service_id.as_deref(), spec.plan_id.as_deref()), (Some("kyma"), Some("aws")));

    let too_many = rotate("rotate-3", "rotate-2").await;
    assert_eq!(too_many.status, 400, "a place has two bindings at most: {}", too_many.description());
    assert_eq!(osb.unbind(&instance, "rotate-1").await.unwrap().status, 200);
    prove_refused(first.kubeconfig().unwrap()).await.unwrap();
    prove(second.kubeconfig().unwrap()).await.unwrap();
    assert_eq!(rotate("rotate-2", "rotate-1").await.status, 200, "repeated after its predecessor has gone");
    assert_eq!(rotate("rotate-3", "rotate-2").await.status, 201, "the chain goes on");
    assert_eq!(osb.bind(&instance, "rotate-more", None).await.unwrap().status, 400, "no place was won");
}
