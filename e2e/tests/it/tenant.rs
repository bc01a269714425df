//! A tenant of the control plane who may do all to `KymaBindings`, their status and annotations where no admission
//! policy is installed, and in some rows to Secrets there: how far each trick gets, at most.

use std::time::Duration;

use e2e::stage::{MANAGED_NAMESPACE, SOON, prove, prove_refused};
use e2e::{Operator, Osb, Stage, eventually};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kyma_bindings::api::binding::KymaBinding;
use serde_json::{Value, json};

use crate::lifecycle::objects;
use crate::tenant_secrets::{pre_made_secrets, swapped_secrets};
use crate::world::{program, stage, world};

const FORGET: &str = "bindings.kyma-project.io/forget";
/// The binding of somebody else, and a Secret that is none of ours.
const NEIGHBOUR: &str = "tenant-neighbour";
const FOREIGN: &str = "somebody-elses";

/// Rows that have tests of their own.
const ELSEWHERE: [(&str, &str); 6] = [
    ("deleted past the finalizer", "sweep::a_binding_deleted_past_our_finalizer_is_revoked_at_once"),
    ("two claims of one instance", "cluster_changes::two_secrets_that_claim_an_instance_are_refused_by_name"),
    (
        "an instance with another cluster",
        "cluster_changes::a_returned_instance_does_not_inherit_its_old_bindings",
    ),
    ("forget, of a dead cluster", "cluster_changes::a_person_can_say_to_forget_a_cluster"),
    (
        "all of it under the policy",
        "admission::a_tenant_with_all_rights_changes_no_status_finalizer_or_secret_of_ours",
    ),
    ("owners that are gone", "admission::the_controllers_of_kubernetes_do_their_part_under_the_policy"),
];

pub struct Tenancy {
    pub stage: Stage<'static>,
    pub instance: String,
    pub osb: Osb,
    pub operator: Operator,
    /// Kubeconfig, binding and Secret of somebody else.
    pub neighbour: (String, KymaBinding, Secret),
}

impl Tenancy {
    async fn settle() -> Self {
        let (stage, instance) = stage("tenant").await;
        let operator = Self::start(&stage).await;
        let osb = operator.osb();
        stage.apply(NEIGHBOUR, &instance, Some(7200)).await.unwrap();
        let kubeconfig = stage.ready(NEIGHBOUR).await.unwrap();
        let foreign =
            json!({"metadata": {"name": FOREIGN}, "stringData": {"kubeconfig": "its-own-business"}});
        let secrets = stage.secrets();
        secrets.create(&PostParams::default(), &serde_json::from_value(foreign).unwrap()).await.unwrap();
        let before = stage.bindings().get(NEIGHBOUR).await.unwrap();
        let secret = secrets.get(&format!("kyma-binding-{NEIGHBOUR}")).await.unwrap();
        Self { stage, instance, osb, operator, neighbour: (kubeconfig, before, secret) }
    }

    async fn start(stage: &Stage<'_>) -> Operator {
        let args = ["--create-timeout", "3s", "--sweep-interval", "1s", "--max-bindings-per-instance", "40"];
        stage.operator(program(), &args).await.unwrap()
    }

    /// After the operator has ended and another one has come, what it remembered is gone.
    async fn restart(&mut self) {
        self.operator.kill().await.unwrap();
        self.operator = Self::start(&self.stage).await;
        self.osb = self.operator.osb();
    }

    pub async fn bound(&self, name: &str) -> String {
        let made = self.osb.bind(&self.instance, name, None).await.unwrap();
        made.kubeconfig().unwrap().to_owned()
    }

    async fn forge(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.stage.bindings().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn patch(&self, name: &str, change: Value) {
        let bindings = self.stage.bindings();
        bindings.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    /// DELETE says that it is done, and it is.
    pub async fn ends(&self, name: &str, kubeconfig: &str) {
        let answer = self.osb.unbind(&self.instance, name).await.unwrap();
        assert_eq!(answer.status, 200, "{name}: {}", answer.description());
        prove_refused(kubeconfig).await.unwrap();
        assert_eq!(objects(&world().await.managed, name).await, 0, "{name}");
        self.stage.gone(name, SOON).await.unwrap();
    }

    /// Nobody else has lost anything, and the row is told of.
    pub async fn row(&self, name: &str, at_most: &str) {
        let (kubeconfig, before, secret) = &self.neighbour;
        prove(kubeconfig).await.unwrap();
        let now = self.stage.bindings().get(NEIGHBOUR).await.unwrap();
        assert_eq!((&now.status, &now.metadata.uid), (&before.status, &before.metadata.uid), "{name}");
        let secrets = self.stage.secrets();
        let mine = secrets.get(secret.metadata.name.as_ref().unwrap()).await.unwrap();
        assert_eq!(&mine, secret, "{name}");
        let foreign = secrets.get(FOREIGN).await.unwrap().data.unwrap();
        assert_eq!(foreign["kubeconfig"].0, b"its-own-business", "{name}");
        println!("✔ {name}: {at_most}");
    }
}

#[tokio::test]
async fn no_trick_of_a_tenant_reaches_more_than_its_own_binding() {
    let mut tenancy = Tenancy::settle().await;
    forged_statuses(&tenancy).await;
    forged_while_nobody_looked(&mut tenancy).await;
    taken_apart(&tenancy).await;
    odd_names_and_annotations(&tenancy).await;
    swapped_secrets(&tenancy).await;
    Box::pin(pre_made_secrets(&tenancy)).await;
    moved_labels(&tenancy).await;
    for (row, test) in ELSEWHERE {
        println!("✔ {row}: {test}");
    }
}

async fn forged_statuses(tenancy: &Tenancy) {
    let Tenancy { stage, osb, instance, .. } = tenancy;
    let kubeconfig = tenancy.bound("tenant-status").await;
    let right = stage.bindings().get("tenant-status").await.unwrap().status.unwrap();
    for (row, forged) in [
        ("another Secret's name", json!({"binding": {"name": FOREIGN}})),
        ("an expiry in 2099", json!({"expiresAt": "2099-01-01T00:00:00Z"})),
        ("another cluster's pin", json!({"runtimeId": "r-other", "clusterId": "other"})),
    ] {
        tenancy.forge("tenant-status", forged).await;
        eventually("the status to be set right", SOON, async || {
            let status = stage.bindings().get("tenant-status").await.unwrap().status.unwrap();
            let same = (&status.expires_at, &status.binding, &status.runtime_id, &status.cluster_id)
                == (&right.expires_at, &right.binding, &right.runtime_id, &right.cluster_id);
            if same { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await
        .unwrap();
        let fetched = eventually("the binding to be shown again", SOON, async || {
            let answer = osb.fetch(instance, "tenant-status").await.unwrap();
            if answer.status == 200 { Ok(answer) } else { Err(answer.status) }
        });
        assert_eq!(fetched.await.unwrap().kubeconfig().unwrap(), kubeconfig, "{row}");
        tenancy.row(row, "set right; its own kubeconfig is handed out, no other").await;
    }
    tenancy.forge("tenant-status", json!({"runtimeId": "r-other", "clusterId": "other"})).await;
    tenancy.ends("tenant-status", &kubeconfig).await;
    tenancy.row("another cluster's pin, then DELETE", "revoked where it was made").await;

    let kubeconfig = tenancy.bound("tenant-stalled").await;
    let stalled = json!({"conditions": [{"type": "Stalled", "status": "True", "reason": "AccessLost", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    tenancy.forge("tenant-stalled", stalled).await;
    eventually("the binding to be hidden", SOON, async || {
        match osb.fetch(instance, "tenant-stalled").await.unwrap().status {
            404 => Ok(()),
            status => Err(status),
        }
    })
    .await
    .unwrap();
    tenancy.ends("tenant-stalled", &kubeconfig).await;
    tenancy.row("Stalled on a live binding", "hidden until its end; DELETE revokes").await;

    let first = tenancy.bound("tenant-cleared").await;
    tenancy.forge("tenant-cleared", Value::Null).await;
    let second = stage.ready("tenant-cleared").await.unwrap();
    let (created, ends) = {
        let binding = stage.bindings().get("tenant-cleared").await.unwrap();
        (binding.created_at().unwrap(), binding.expires_at().unwrap())
    };
    assert!(ends.duration_since(created).as_secs() <= 2 * 600 + 60);
    tenancy.ends("tenant-cleared", &first).await;
    prove_refused(&second).await.unwrap();
    tenancy.row("a status taken away", "one more token, within twice the time; both end with DELETE").await;
}

async fn forged_while_nobody_looked(tenancy: &mut Tenancy) {
    let stage = &tenancy.stage;
    let kubeconfig = tenancy.bound("tenant-restart").await;
    let forged = json!({"binding": {"name": FOREIGN}, "expiresAt": "2099-01-01T00:00:00Z",
        "runtimeId": "r-other", "clusterId": "other"});
    let healthy = stage.bindings().get("tenant-restart").await.unwrap().status.unwrap();
    assert!(tenancy.operator.pause().await.unwrap());
    tenancy.forge("tenant-restart", forged).await;
    stage.bindings().delete("tenant-restart", &DeleteParams::default()).await.unwrap();
    let (cluster, runtime) = (healthy.cluster_id.unwrap(), healthy.runtime_id.unwrap());
    // One that says that it is ready, and was never made.
    stage.apply("tenant-ready", &tenancy.instance, None).await.unwrap();
    let finalizer = json!({"metadata": {"finalizers": ["bindings.kyma-project.io/cleanup"]}});
    tenancy.patch("tenant-ready", finalizer).await;
    let ready = json!({"binding": {"name": FOREIGN}, "expiresAt": "2099-01-01T00:00:00Z",
    "runtimeId": runtime, "clusterId": cluster, "phase": "Ready", "conditions": [
        {"type": "Ready", "status": "True", "reason": "Issued", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]});
    tenancy.forge("tenant-ready", ready).await;
    tenancy.restart().await;
    let stage = &tenancy.stage;
    stage.gone("tenant-restart", SOON).await.unwrap();
    prove_refused(&kubeconfig).await.unwrap();
    assert_eq!(objects(&world().await.managed, "tenant-restart").await, 0);
    tenancy.row("all of a status forged over a restart, then deleted", "revoked where it was made").await;

    stage.condition("tenant-ready", "Stalled", "True", "AccessLost").await.unwrap();
    assert_eq!(objects(&world().await.managed, "tenant-ready").await, 0);
    let answer = tenancy.osb.fetch(&tenancy.instance, "tenant-ready").await.unwrap();
    assert!(answer.kubeconfig().is_err() && answer.status != 200, "{}", answer.status);
    assert!(stage.secrets().get_opt("kyma-binding-tenant-ready").await.unwrap().is_none());
    stage.bindings().delete("tenant-ready", &DeleteParams::default()).await.unwrap();
    stage.gone("tenant-ready", SOON).await.unwrap();
    tenancy.row("Ready without a Secret", "nothing is made or handed out; it fails for good").await;
}

async fn taken_apart(tenancy: &Tenancy) {
    let Tenancy { stage, osb, instance, operator, .. } = tenancy;
    let kubeconfig = tenancy.bound("tenant-stripped").await;
    tenancy.patch("tenant-stripped", json!({"metadata": {"finalizers": null}})).await;
    eventually("the finalizer to be back", SOON, async || {
        let finalizers = stage.bindings().get("tenant-stripped").await.unwrap().metadata.finalizers;
        finalizers.map(drop).ok_or("not yet")
    })
    .await
    .unwrap();
    tenancy.ends("tenant-stripped", &kubeconfig).await;
    tenancy.row("a stripped finalizer", "put on again").await;

    let kubeconfig = tenancy.bound("tenant-past").await;
    assert!(operator.pause().await.unwrap());
    tenancy.forge("tenant-past", json!({"runtimeId": "r-other", "clusterId": "other"})).await;
    tenancy.patch("tenant-past", json!({"metadata": {"finalizers": null}})).await;
    stage.bindings().delete("tenant-past", &DeleteParams::default()).await.unwrap();
    operator.resume();
    eventually("the kubeconfig to be refused", SOON, async || prove_refused(&kubeconfig).await)
        .await
        .unwrap();
    stage.gone("tenant-past", SOON).await.unwrap();
    tenancy.row("a forged pin and no finalizer, then deleted", "revoked within seconds").await;

    let kubeconfig = tenancy.bound("tenant-forget").await;
    tenancy.patch("tenant-forget", json!({"metadata": {"annotations": {FORGET: "true"}}})).await;
    tenancy.ends("tenant-forget", &kubeconfig).await;
    tenancy.row("forget on a live binding, then DELETE", "revoked all the same: the cluster answers").await;

    let kubeconfig = tenancy.bound("tenant-kept").await;
    let finalizers =
        json!({"metadata": {"finalizers": ["example.com/mine", "bindings.kyma-project.io/cleanup"]}});
    tenancy.patch("tenant-kept", finalizers).await;
    assert_eq!(osb.unbind(instance, "tenant-kept").await.unwrap().status, 503);
    prove_refused(&kubeconfig).await.unwrap();
    tenancy.patch("tenant-kept", json!({"metadata": {"finalizers": null}})).await;
    stage.gone("tenant-kept", SOON).await.unwrap();
    tenancy.row("a finalizer of its own", "the object stays, its token doesn't").await;

    let kubeconfig = tenancy.bound("tenant-owned").await;
    let neighbour = &tenancy.neighbour.1;
    let owner = |kind: &str, version: &str, name: &str, uid: &str| json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "blockOwnerDeletion": true});
    let owners = [
        owner(
            "KymaBinding",
            "bindings.kyma-project.io/v1alpha1",
            NEIGHBOUR,
            neighbour.metadata.uid.as_ref().unwrap(),
        ),
        owner("Secret", "v1", FOREIGN, "00000000-0000-0000-0000-000000000000"),
    ];
    tenancy.patch("tenant-owned", json!({"metadata": {"ownerReferences": owners}})).await;
    let secret = stage.secrets().get("kyma-binding-tenant-owned").await.unwrap();
    assert_eq!(secret.metadata.owner_references.unwrap().len(), 1, "its Secret has its own owner alone");
    tenancy.ends("tenant-owned", &kubeconfig).await;
    tenancy.row("owners of all kinds", "its own binding goes; nothing of others is owned by it").await;
}

async fn odd_names_and_annotations(tenancy: &Tenancy) {
    let Tenancy { stage, instance, operator, osb, .. } = tenancy;
    let longest = format!("tenant-{}.{}", "x".repeat(116), "y".repeat(116));
    assert_eq!(longest.len(), 240);
    let kubeconfig = tenancy.bound(&longest).await;
    prove(&kubeconfig).await.unwrap();
    tenancy.ends(&longest, &kubeconfig).await;
    assert!(stage.apply(&"z".repeat(241), instance, None).await.is_err());
    tenancy.row("a name of 240 characters", "as any other; a longer one is refused by the API server").await;

    let odd = json!({"apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
        "metadata": {"name": "tenant-odd", "annotations": {
            "example.com/long": "ß".repeat(120_000),
            "bindings.kyma-project.io/traceparent": "00-\n\"}{-${jndi:x}-01",
            "bindings.kyma-project.io/tracestate": "x=".repeat(4_000),
            "bindings.kyma-project.io/request-id": "a\nlevel=ERROR msg=forged \u{1b}[31m",
            "bindings.kyma-project.io/decided-by": "somebody else",
            "bindings.kyma-project.io/access": "{\"runtimeId\": []}",
            "bindings.kyma-project.io/origin": "osb", FORGET: "TRUE",
        }},
        "spec": {"instanceId": instance, "createdBy": "<script>".repeat(20), "planId": "%s%n"},
    });
    let bindings = stage.bindings();
    let mut unseen = odd.clone();
    unseen["spec"]["createdBy"] = json!("\u{202e}\n");
    let unseen = serde_json::from_value(unseen).unwrap();
    assert!(bindings.create(&PostParams::default(), &unseen).await.is_err());
    bindings.create(&PostParams::default(), &serde_json::from_value(odd).unwrap()).await.unwrap();
    let kubeconfig = stage.ready("tenant-odd").await.unwrap();
    prove(&kubeconfig).await.unwrap();
    assert_eq!(osb.fetch(instance, "tenant-odd").await.unwrap().kubeconfig().unwrap(), kubeconfig);
    tenancy.ends("tenant-odd", &kubeconfig).await;
    for line in operator.log().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
    tenancy.row("annotations as long and odd as is let through", "no line of the log is forged").await;
}

async fn moved_labels(tenancy: &Tenancy) {
    let Tenancy { stage, .. } = tenancy;
    let managed = &world().await.managed;
    stage.register("i-tenant-moved", "r-tenant-moved", &managed.admin_kubeconfig()).await.unwrap();
    let made = tenancy.osb.bound("i-tenant-moved", "tenant-moved").await.unwrap();
    let kubeconfig = made.kubeconfig().unwrap();
    let moved = json!({"metadata": {"labels": {"kyma-project.io/instance-id": "i-tenant-else"}}});
    let secrets = stage.instance_secrets();
    secrets.patch("kubeconfig-r-tenant-moved", &PatchParams::default(), &Patch::Merge(&moved)).await.unwrap();
    stage.gone("tenant-moved", SOON).await.unwrap();
    // The instance is gone, so nobody could revoke; its cluster is swept under its new name.
    eventually("the kubeconfig to be refused", Duration::from_secs(40), async || {
        prove_refused(kubeconfig).await
    })
    .await
    .unwrap();
    assert_eq!(objects(managed, "tenant-moved").await, 0);
    let accounts: Api<ServiceAccount> = Api::namespaced(managed.client(), MANAGED_NAMESPACE);
    assert!(accounts.get_opt(&format!("kyma-binding-{NEIGHBOUR}")).await.unwrap().is_some());
    tenancy.row("an instance's labels moved", "the binding goes, the next sweep revokes").await;
}
