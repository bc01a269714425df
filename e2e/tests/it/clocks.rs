//! The controller's clock is not that of the clusters.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::stage::{SOON, prove, prove_refused};
use e2e::{Operator, Stage, WorkDir, eventually};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::Api;

use crate::lifecycle::objects;
use crate::world::{program, stage, world};

async fn launch(stage: &Stage<'_>, args: &[&str], off_by: i64) -> Operator {
    let dir = Arc::new(WorkDir::new("clocks").unwrap());
    let args = [&stage.args()[..], args].concat();
    let (off_by, kubeconfig) = (off_by.to_string(), stage.control().kubeconfig_path());
    let envs = [("KYMA_BINDINGS_CLOCK_OFF_BY", off_by.as_str())];
    let operator = Operator::launch_with(&dir, program(), kubeconfig, &args, &envs).await.unwrap();
    operator.ready().await.unwrap();
    operator
}

/// When the token in a kubeconfig ends, as its cluster wrote into it.
fn end_of_token(kubeconfig: &str) -> Timestamp {
    let token = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap();
    let claims = URL_SAFE_NO_PAD.decode(token.trim_matches('"').split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    Timestamp::from_second(claims["exp"].as_i64().unwrap()).unwrap()
}

#[tokio::test]
async fn a_fast_clock_ends_a_binding_early_by_no_more_than_it_is_fast() {
    // Nearly the whole life of a binding, so that its end can be waited for; and sweeps all the while.
    const FAST: i64 = 575;
    let (stage, instance) = stage("fast").await;
    let sweeping = ["--role", "controller", "--create-timeout", "3s", "--sweep-interval", "1s"];
    let _controller = launch(&stage, &sweeping, FAST).await;
    let broker = launch(&stage, &["--role", "broker"], 0).await;
    let made = broker.osb().bind(&instance, "fast-1", Some(600)).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.description());
    let kubeconfig = made.kubeconfig().unwrap();
    let ends: Timestamp = made.body["metadata"]["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(ends, end_of_token(kubeconfig), "what the cluster granted is what is said");
    prove(kubeconfig).await.unwrap();

    let bindings = stage.bindings();
    eventually("the binding to end", Duration::from_mins(2), async || {
        match bindings.get_opt("fast-1").await.map_err(|e| e.to_string())? {
            Some(binding) if binding.metadata.deletion_timestamp.is_none() => {
                prove(kubeconfig).await.map_err(|e| format!("it has not ended, and {e:#}"))?;
                Err("it works".to_owned())
            }
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    let early = ends.duration_since(Timestamp::now());
    assert!(early <= SignedDuration::from_secs(FAST), "it ended {early:?} early");
    stage.gone("fast-1", SOON).await.unwrap();
    prove_refused(kubeconfig).await.unwrap();
}

#[tokio::test]
async fn a_slow_clock_hands_out_nothing_and_says_why() {
    let (stage, instance) = stage("late").await;
    let controller = launch(&stage, &["--role", "controller"], -300).await;
    let broker = launch(&stage, &["--role", "broker", "--create-timeout", "3s"], 0).await;
    // To it the token lives longer than was asked for, as one of a lying cluster would.
    let refused = broker.osb().bind(&instance, "late-1", None).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.description().contains("longer than was asked"), "{}", refused.description());
    assert!(stage.secrets().get_opt("kyma-binding-late-1").await.unwrap().is_none());
    controller.terminate().await.unwrap();
    assert_eq!(objects(&world().await.managed, "late-1").await, 0, "what was made for it is removed");

    let _controller = launch(&stage, &["--role", "controller"], 0).await;
    let made = broker.osb().bound(&instance, "late-1").await.unwrap();
    prove(made.kubeconfig().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_lease_is_kept_whatever_the_clocks_say() {
    let (stage, _) = stage("clocks").await;
    let election = ["--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry-period=300ms"];
    let leases: Api<Lease> = Api::namespaced(stage.control().client(), &stage.namespace);
    let read = async || leases.get("kyma-bindings").await.unwrap().spec.unwrap();
    // To the second one, the first has not renewed for five minutes, nor will for five more.
    for (name, first, second) in [("behind", -300, 300), ("ahead", 300, -300)] {
        let holder = launch(&stage, &election, first).await;
        eventually("the first to lead", SOON, async || holder.leads().await.then_some(()).ok_or("not yet"))
            .await
            .unwrap();
        let other = launch(&stage, &election, second).await;
        let LeaseSpec { lease_transitions: before, renew_time: mut renewed, .. } = read().await;
        // Far more renewals than a lease lasts.
        for _ in 0..20 {
            renewed = eventually("a renewal", SOON, async || {
                let now = read().await.renew_time;
                if now == renewed { Err("the old one") } else { Ok(now) }
            })
            .await
            .unwrap();
        }
        assert!(holder.leads().await && !other.leads().await, "{name}");
        assert_eq!(read().await.lease_transitions, before, "{name}");
        holder.kill().await.unwrap();
        eventually("the second to lead", SOON, async || other.leads().await.then_some(()).ok_or("not yet"))
            .await
            .unwrap();
        other.terminate().await.unwrap();
    }
}
