//! What there is before the first request: instances in every state, and bindings likewise.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use e2e::fake::{Death, Fake};
use e2e::issuer::Issuer;
use e2e::stage::SOON;
use e2e::{Cluster, Operator, Osb, Stage, eventually};
use jiff::Timestamp;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::Broker;
use crate::auth::htpasswd;
use crate::jwt::claims;
use crate::mounted::Mounted;
use crate::world::{claim, control_with_runtimes, program, world};

/// Unexpired bindings of an instance.
const LIMIT: &str = "4";

pub struct Given {
    pub brokers: HashMap<Broker, Osb>,
    /// Operations that are under way, and tokens.
    pub saved: HashMap<&'static str, String>,
    stage: Stage<'static>,
    _operators: Vec<Operator>,
    _fakes: Vec<Fake>,
    _mounted: [Mounted; 2],
}

impl Given {
    pub async fn prepare() -> Self {
        let stage = Stage::new(control_with_runtimes().await, "contract").await.unwrap();
        let managed = &world().await.managed;
        let dead = Fake::start(Death::Refused).await.unwrap();
        instances(&stage, managed, &dead).await;
        claim("c-claimed-1").await;

        let timeouts = ["--create-timeout", "3s", "--async-after", "1s"];
        let args =
            [&timeouts[..], &["--max-bindings-per-instance", LIMIT, "--bindable-plans", "aws"]].concat();
        let operator = stage.operator(program(), &args).await.unwrap();
        let osb = operator.osb();
        let mut saved = HashMap::new();
        for (instance, binding) in [
            ("ready", "c-bound-1"),
            ("ready", "c-expired-1"),
            ("full", "c-full-1"),
            ("full", "c-full-2"),
            ("full", "c-full-3"),
            ("full", "c-full-4"),
            ("suspended", "c-suspended-1"),
            ("dying", "c-deleting-1"),
            ("dying", "c-dying-1"),
            ("dying", "c-over-1"),
            ("mended", "c-mended-1"),
            ("dying", "c-dying-2"),
        ] {
            let made = osb.bound(&format!("i-{instance}"), binding).await.unwrap();
            assert_eq!(made.status, 201, "{binding}: {}", made.description());
        }
        stage.apply("c-rejected-1", "i-full", None).await.unwrap();
        stage.condition("c-rejected-1", "Accepted", "False", "LimitReached").await.unwrap();
        suspend(&stage, "suspended").await;
        stage.condition("c-suspended-1", "Ready", "False", "InstanceSuspended").await.unwrap();
        for runtime in ["r-dying", "r-mended"] {
            stage.rotate(runtime, Some(dead.kubeconfig())).await.unwrap();
        }
        for (name, instance) in [("deleting", "dying"), ("mended", "mended")] {
            let binding = format!("/v2/service_instances/i-{instance}/service_bindings/c-{name}-1");
            let path = format!("{binding}?service_id=s&plan_id=p&accepts_incomplete=true");
            let deleting = osb.request(reqwest::Method::DELETE, &path, None).await.unwrap();
            assert_eq!(deleting.status, 202, "{}", deleting.description());
            saved.insert(name, deleting.body["operation"].as_str().unwrap().to_owned());
        }

        let catalog = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/catalog.yaml");
        let catalog = ["--role", "broker", "--catalog", catalog.to_str().unwrap()];
        let with_catalog = stage.operator(program(), &[&timeouts[..], &catalog].concat()).await.unwrap();
        let severed = severed(&stage).await;
        let users = Mounted::new(&[("htpasswd", &htpasswd(&[("anna", "right")]))]);
        let file = users.path("htpasswd");
        let basic = ["--auth", "basic", "--htpasswd-file", &file, "--allow-basic-without-tls"];
        let issuer = Issuer::start().await.unwrap();
        let keys = Mounted::new(&[("keys", &issuer.jwks().to_string())]);
        let file = keys.path("keys");
        let jwt = ["--auth", "jwt", "--jwt-issuer", issuer.url(), "--jwt-jwks-file", &file];
        let closed = [&["--role", "broker", "--jwt-audience", "kyma-bindings"], &basic[..], &jwt].concat();
        let closed = stage.operator(program(), &closed).await.unwrap();
        for (name, scope) in [("token", "broker:write"), ("scopeless", "broker:read")] {
            let claims = claims(&issuer, &json!({"scope": scope, "exp": Timestamp::now().as_second() + 600}));
            saved.insert(name, issuer.token(&issuer.header(), &claims).unwrap());
        }
        let busy = busy(&stage).await;
        let brokers = HashMap::from([
            (Broker::Plain, osb),
            (Broker::WithCatalog, with_catalog.osb()),
            (Broker::Severed, severed.osb()),
            (Broker::Closed, closed.osb()),
            (Broker::Busy, busy.osb()),
        ]);
        stage.rotate("r-mended", Some(&managed.admin_kubeconfig())).await.unwrap();
        stage.gone("c-mended-1", SOON).await.unwrap();
        expire(&stage, "c-over-1").await;
        expire(&stage, "c-expired-1").await;
        Self {
            brokers,
            saved,
            stage,
            _operators: vec![operator, with_catalog, severed, closed, busy],
            _fakes: vec![dead],
            _mounted: [users, keys],
        }
    }

    /// No request may have left an object that its answer doesn't account for.
    pub async fn check_what_is_left(&self) {
        let bindings = self.stage.bindings().list(&ListParams::default()).await.unwrap();
        let mut left: Vec<_> = bindings.items.into_iter().filter_map(|b| b.metadata.name).collect();
        left.sort_unstable();
        let accounted = [
            "c-bound-1",
            "c-deleting-1",
            "c-dying-1",
            "c-dying-2",
            "c-endless-1",
            "c-expired-1",
            "c-full-1",
            "c-full-2",
            "c-full-3",
            "c-full-4",
            "c-originator-1",
            "c-over-1",
            "c-rejected-1",
            "c-successor-1",
        ];
        assert_eq!(left, accounted);
        let by = self.stage.bindings().get("c-originator-1").await.unwrap().spec.created_by;
        assert_eq!(by.as_deref(), Some(r#"cf {"user_id":"u"}"#));
    }
}

async fn instances(stage: &Stage<'_>, managed: &Cluster, dead: &Fake) {
    let good = managed.admin_kubeconfig();
    let provisioned = json!({"state": "Ready", "provisioningCompleted": true});
    for (name, kubeconfig, status) in [
        ("ready", good.as_str(), &provisioned),
        ("full", &good, &provisioned),
        ("suspended", &good, &provisioned),
        ("dying", &good, &provisioned),
        ("mended", &good, &provisioned),
        ("trial", &good, &provisioned),
        ("ambiguous", &good, &provisioned),
        ("dead", dead.kubeconfig(), &provisioned),
        ("refused", "clusters: of no use", &provisioned),
        ("provisioning", &good, &json!({"state": "Pending"})),
        ("failed", &good, &json!({"state": "Failed"})),
    ] {
        let (instance, runtime) = (format!("i-{name}"), format!("r-{name}"));
        stage.register(&instance, &runtime, kubeconfig).await.unwrap();
        stage.runtime(&instance, &runtime, status.clone()).await.unwrap();
    }
    stage.register("i-ambiguous", "r-ambiguous-2", &good).await.unwrap();
    let plan = json!({"metadata": {"labels": {"kyma-project.io/broker-plan-name": "trial"}}});
    patch(stage, "trial", &plan).await;
}

/// Changes what describes an instance: Secret and Runtime.
async fn patch(stage: &Stage<'_>, name: &str, change: &Value) {
    let (params, patch) = (PatchParams::default(), Patch::Merge(change));
    stage.instance_secrets().patch(&format!("kubeconfig-r-{name}"), &params, &patch).await.unwrap();
    let runtimes: Api<DynamicObject> = stage.runtimes();
    runtimes.patch(&format!("r-{name}"), &params, &patch).await.unwrap();
}

async fn suspend(stage: &Stage<'_>, name: &str) {
    let suspended = json!({"metadata": {"annotations": {"bindings.kyma-project.io/suspended": "true"}}});
    patch(stage, name, &suspended).await;
}

/// The status may say that a binding ends earlier, so its time is over now.
async fn expire(stage: &Stage<'_>, name: &str) {
    let over = json!({"status": {"expiresAt": "2026-01-01T00:00:00Z"}});
    stage.bindings().patch_status(name, &PatchParams::default(), &Patch::Merge(&over)).await.unwrap();
}

/// A broker whose control plane was cut off after its start.
async fn severed(stage: &Stage<'_>) -> Operator {
    let nobody = Fake::start(Death::Refused).await.unwrap();
    let kubeconfig: PathBuf = stage.control().dir().join("severed.yaml");
    std::fs::write(&kubeconfig, nobody.kubeconfig()).unwrap();
    let dir = std::sync::Arc::new(e2e::WorkDir::new("severed").unwrap());
    Operator::launch(&dir, program(), &kubeconfig, &["--role", "broker"]).await.unwrap()
}

/// A broker that takes one request at once, and has one whose binding is never ready.
async fn busy(stage: &Stage<'_>) -> Operator {
    let args = ["--role", "broker", "--max-in-flight", "1", "--create-timeout", "60s"];
    let operator = stage.operator(program(), &args).await.unwrap();
    let osb = operator.osb();
    tokio::spawn({
        let osb = osb.clone();
        // A probe below may have the only place.
        async move { while osb.bind("i-dead", "c-endless-1", None).await.is_ok_and(|it| it.status == 429) {} }
    });
    eventually("the broker to be busy", SOON, async || {
        match osb.fetch("i-dead", "c-endless-1").await?.status {
            429 => Ok(()),
            status => Err(anyhow!("it answers with {status}")),
        }
    })
    .await
    .unwrap();
    operator
}
