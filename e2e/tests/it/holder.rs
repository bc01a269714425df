//! The holder of a kubeconfig, who is an admin of its own cluster while the token lives. When DELETE says 200, the
//! cluster refuses the token; until then the condition names the cause, and it is tried again.

use std::time::Duration;

use e2e::cluster::client_from;
use e2e::stage::{MANAGED_NAMESPACE, SOON, prove, prove_refused};
use e2e::{Cluster, Operator, Osb, Stage, eventually};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::lifecycle::objects;
use crate::sweep::{sweeping, swept};
use crate::world::{program, world};

/// Rows that have tests of their own.
const ELSEWHERE: [(&str, &str); 3] = [
    ("finalizers on our objects", "ownership::a_finalizer_of_the_holder_keeps_no_access_alive"),
    ("narrowed rules", "ownership::a_narrowed_role_stays_narrowed"),
    (
        "a deleted account, and others let in",
        "sweep::vanished_or_changed_rights_are_restored_and_a_lost_account_is_said",
    ),
];

/// One binding in a cluster, and what its holder may do there.
struct Held {
    stage: Stage<'static>,
    instance: String,
    operator: Operator,
    managed: &'static Cluster,
}

impl Held {
    /// A cluster of its own: some rows change what holds for all of it.
    async fn settle() -> Self {
        let managed: &'static Cluster = Box::leak(Box::new(Cluster::start("held").await.unwrap()));
        e2e::stage::prepare_managed(managed).await.unwrap();
        let stage = Stage::new(&world().await.control, "held").await.unwrap();
        stage.register("i-held", "r-held", &managed.admin_kubeconfig()).await.unwrap();
        let operator = stage.operator(program(), &["--create-timeout", "2s"]).await.unwrap();
        Self { stage, instance: "i-held".to_owned(), operator, managed }
    }

    fn osb(&self) -> Osb {
        self.operator.osb()
    }

    /// A kubeconfig, and its holder's client.
    async fn bound(&self, name: &str) -> (String, Client) {
        let made = self.osb().bound(&self.instance, name).await.unwrap();
        let kubeconfig = made.kubeconfig().unwrap().to_owned();
        eventually("the kubeconfig to work", SOON, async || prove(&kubeconfig).await).await.unwrap();
        let holder = client_from(&kubeconfig).await.unwrap();
        (kubeconfig, holder)
    }

    /// Another process, which knows only what is written down.
    async fn restart(&mut self, args: &[&str]) {
        self.operator.kill().await.unwrap();
        self.operator = self.stage.operator(program(), args).await.unwrap();
    }

    /// DELETE is repeated, as platforms do, until it says that it is done; then the token is refused.
    async fn ends(&self, row: &str, name: &str, kubeconfig: &str) {
        let answer = self.osb().unbind(&self.instance, name).await.unwrap();
        assert_eq!(answer.status, 200, "{row}: {}", answer.description());
        prove_refused(kubeconfig).await.unwrap();
        assert_eq!(objects(self.managed, name).await, 0, "{row}");
        println!("✔ {row}: 200, and the token is refused");
    }
}

fn accounts(client: &Client) -> Api<ServiceAccount> {
    Api::namespaced(client.clone(), MANAGED_NAMESPACE)
}

#[tokio::test]
async fn no_trick_of_a_holder_outlives_a_delete_that_succeeded() {
    let mut held = Held::settle().await;
    remade_account(&held).await;
    stripped_marks(&mut held).await;
    copied_marks(&held).await;
    widened_rights(&held).await;
    refused_deletion(&mut held).await;
    protected_finalizer(&held).await;
    lost_record(&mut held).await;
    for (row, test) in ELSEWHERE {
        println!("✔ {row}: {test}");
    }
}

async fn remade_account(held: &Held) {
    let (kubeconfig, holder) = held.bound("held-remade").await;
    let name = "kyma-binding-held-remade";
    let old = accounts(&holder).get(name).await.unwrap();
    let admin = accounts(&held.managed.client());
    admin.delete(name, &DeleteParams::default()).await.unwrap();
    let copy = json!({"metadata": {"name": name, "labels": old.metadata.labels}});
    admin.create(&PostParams::default(), &serde_json::from_value(copy).unwrap()).await.unwrap();
    held.ends("an account deleted and made again with our marks", "held-remade", &kubeconfig).await;

    // Without marks it is somebody's: it stays, and no token of ours is good for it.
    let (kubeconfig, _) = held.bound("held-foreign").await;
    let name = "kyma-binding-held-foreign";
    admin.delete(name, &DeleteParams::default()).await.unwrap();
    let plain = json!({"metadata": {"name": name}});
    admin.create(&PostParams::default(), &serde_json::from_value(plain).unwrap()).await.unwrap();
    assert_eq!(held.osb().unbind(&held.instance, "held-foreign").await.unwrap().status, 200);
    prove_refused(&kubeconfig).await.unwrap();
    assert_eq!(objects(held.managed, "held-foreign").await, 1);
    admin.delete(name, &DeleteParams::default()).await.unwrap();
    println!("✔ an account made again without marks: 200, the token is refused, the account is left alone");
}

/// Takes our marks off all three objects.
async fn strip(holder: &Client, name: &str) {
    let (strip, params) = (Patch::Merge(json!({"metadata": {"labels": null}})), PatchParams::default());
    let name = format!("kyma-binding-{name}");
    accounts(holder).patch(&name, &params, &strip).await.unwrap();
    Api::<ClusterRole>::all(holder.clone()).patch(&name, &params, &strip).await.unwrap();
    Api::<ClusterRoleBinding>::all(holder.clone()).patch(&name, &params, &strip).await.unwrap();
}

async fn stripped_marks(held: &mut Held) {
    let (kubeconfig, holder) = held.bound("held-marks").await;
    strip(&holder, "held-marks").await;
    held.ends("marks taken off", "held-marks", &kubeconfig).await;

    let (kubeconfig, holder) = held.bound("held-restart").await;
    strip(&holder, "held-restart").await;
    held.restart(&["--create-timeout", "2s"]).await;
    held.ends("marks taken off, then another process", "held-restart", &kubeconfig).await;
}

async fn copied_marks(held: &Held) {
    let (kubeconfig, holder) = held.bound("held-copied").await;
    let labels = accounts(&holder).get("kyma-binding-held-copied").await.unwrap().metadata.labels;
    let copy =
        |name: &str| serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
    accounts(&holder).create(&PostParams::default(), &copy("held-copy")).await.unwrap();
    held.ends("marks copied to an account of another name", "held-copied", &kubeconfig).await;
    assert!(accounts(&held.managed.client()).get_opt("held-copy").await.unwrap().is_some());
}

async fn widened_rights(held: &Held) {
    let (kubeconfig, holder) = held.bound("held-wide").await;
    let more = json!({"metadata": {"name": "held-more"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "kyma-binding-held-wide", "namespace": MANAGED_NAMESPACE}]});
    let bindings: Api<ClusterRoleBinding> = Api::all(holder);
    bindings.create(&PostParams::default(), &serde_json::from_value(more).unwrap()).await.unwrap();
    assert_eq!(held.osb().unbind(&held.instance, "held-wide").await.unwrap().status, 200);
    assert_eq!(objects(held.managed, "held-wide").await, 0);
    // An API server remembers for up to 10 s that a token was good; its own role binding is none of ours.
    let cached = Duration::from_secs(15);
    eventually("the token to be refused", cached, async || prove_refused(&kubeconfig).await).await.unwrap();
    println!("✔ another role binding for our account: 200, the token is refused within the cache's 10 s");
}

/// A policy of the managed cluster that refuses what `expression` doesn't allow for accounts of our names.
async fn policy(client: &Client, name: &str, operation: &str, expression: &str) {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let policy = json!({"metadata": {"name": name}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": [operation], "resources": ["serviceaccounts"]}]},
        "validations": [{"expression": expression, "message": "text-of-the-cluster"}],
    }});
    let binding =
        json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
    policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

async fn without_policy(client: &Client, name: &str) {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    bindings.delete(name, &DeleteParams::default()).await.unwrap();
}

fn probe(name: &str) -> ServiceAccount {
    let account: Value = json!({"metadata": {"name": name, "finalizers": ["example.com/keep-me"]}});
    serde_json::from_value(account).unwrap()
}

async fn refused_deletion(held: &mut Held) {
    let admin = held.managed.client();
    let (kubeconfig, holder) = held.bound("held-kept").await;
    policy(&holder, "no-delete", "DELETE", "!oldObject.metadata.name.startsWith('kyma-binding-')").await;
    let probes = accounts(&admin);
    eventually("the policy to be in force", SOON, async || {
        let name = "kyma-binding-held-probe";
        if probes.get_opt(name).await.unwrap().is_none() {
            let account = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            probes.create(&PostParams::default(), &account).await.unwrap();
        }
        probes.delete(name, &DeleteParams::default()).await.map_or(Ok(()), |_| Err("it is deleted"))
    })
    .await
    .unwrap();
    let says = "refuses to delete ServiceAccount kyma-binding-held-kept (HTTP ";
    for round in ["the process that made it", "another process"] {
        let answer = held.osb().unbind(&held.instance, "held-kept").await.unwrap();
        assert_eq!(answer.status, 503, "{round}");
        assert!(answer.description().contains(says), "{}", answer.description());
        assert!(!answer.description().contains("text-of-the-cluster"));
        held.restart(&["--create-timeout", "2s"]).await;
    }
    let seen = held.stage.condition("held-kept", "Ready", "False", "ClusterForbidden").await.unwrap();
    assert!(seen.status.unwrap().conditions.iter().any(|c| c.message.contains(says)));
    assert_eq!(objects(held.managed, "held-kept").await, 1, "role and role binding are gone");
    prove_refused(&kubeconfig).await.unwrap();
    without_policy(&admin, "no-delete").await;
    held.stage.gone("held-kept", Duration::from_mins(1)).await.unwrap();
    assert_eq!(objects(held.managed, "held-kept").await, 0);
    println!("✔ a deletion refused by admission: 503 that names it, no rights, and done when that is over");
}

async fn protected_finalizer(held: &Held) {
    let admin = held.managed.client();
    let (kubeconfig, holder) = held.bound("held-fin").await;
    let finalizer = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/keep-me"]}}));
    let name = "kyma-binding-held-fin";
    accounts(&holder).patch(name, &PatchParams::default(), &finalizer).await.unwrap();
    let keeps =
        "!oldObject.metadata.name.startsWith('kyma-binding-held-f') || has(object.metadata.finalizers)";
    policy(&holder, "no-strip", "UPDATE", keeps).await;
    let (probes, strip) = (accounts(&admin), Patch::Merge(json!({"metadata": {"finalizers": null}})));
    probes.create(&PostParams::default(), &probe("kyma-binding-held-fprobe")).await.unwrap();
    eventually("the policy to be in force", SOON, async || {
        let patched = probes.patch("kyma-binding-held-fprobe", &PatchParams::default(), &strip).await;
        if patched.is_err() {
            return Ok(());
        }
        probes.patch("kyma-binding-held-fprobe", &PatchParams::default(), &finalizer).await.unwrap();
        Err("it is stripped")
    })
    .await
    .unwrap();
    let answer = held.osb().unbind(&held.instance, "held-fin").await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.description());
    assert!(answer.description().contains("ServiceAccount"), "{}", answer.description());
    // Until the cluster says that it is gone; the role binding is.
    prove_refused(&kubeconfig).await.unwrap();
    without_policy(&admin, "no-strip").await;
    held.stage.gone("held-fin", Duration::from_mins(1)).await.unwrap();
    assert_eq!(objects(held.managed, "held-fin").await, 0);
    println!(
        "✔ a finalizer that admission protects: 503 that names it, no rights, and done when that is over"
    );
}

async fn lost_record(held: &mut Held) {
    // Nothing is written down any more and the marks are gone, too: it can't be told whose the account is.
    let (kubeconfig, holder) = held.bound("held-lost").await;
    held.operator.kill().await.unwrap();
    strip(&holder, "held-lost").await;
    held.stage.bindings().delete("held-lost", &DeleteParams::default()).await.unwrap();
    held.stage.secrets().delete("kyma-binding-held-lost", &DeleteParams::default()).await.unwrap();
    held.operator = held.stage.operator(program(), &["--create-timeout", "2s"]).await.unwrap();
    let answer = held.osb().unbind(&held.instance, "held-lost").await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(
        answer.description().contains("ServiceAccount kyma-binding-held-lost"),
        "{}",
        answer.description()
    );
    held.stage.condition("held-lost", "Ready", "False", "ForeignObject").await.unwrap();
    prove(&kubeconfig).await.unwrap();
    accounts(&holder).delete("kyma-binding-held-lost", &DeleteParams::default()).await.unwrap();
    held.stage.gone("held-lost", Duration::from_mins(1)).await.unwrap();
    // Role and role binding have no marks, either, so the account alone was its end; see the cache above.
    let cached = Duration::from_secs(15);
    eventually("the token to be refused", cached, async || prove_refused(&kubeconfig).await).await.unwrap();
    println!("✔ marks and record gone: 503 while an account of the name may be ours");
}

#[tokio::test]
async fn what_was_narrowed_is_not_widened_by_a_repair() {
    let (stage, instance) = crate::world::stage("wider").await;
    let managed = &world().await.managed;
    let operator = sweeping(&stage).await;
    stage.apply("wider-1", &instance, None).await.unwrap();
    let kubeconfig = stage.ready("wider-1").await.unwrap();
    let roles: Api<ClusterRole> = Api::all(managed.client());
    let narrow =
        json!({"rules": [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["*"]}]});
    roles.patch("kyma-binding-wider-1", &PatchParams::default(), &Patch::Merge(&narrow)).await.unwrap();
    swept(&operator).await;
    eventually("the kubeconfig to be narrowed", SOON, async || prove_refused(&kubeconfig).await)
        .await
        .unwrap();
    // Whoever still may delete roles would have all rights back, if a role that is gone were made anew.
    let holder: Api<ClusterRole> = Api::all(client_from(&kubeconfig).await.unwrap());
    holder.delete("kyma-binding-wider-1", &DeleteParams::default()).await.unwrap();
    stage.condition("wider-1", "Stalled", "True", "AccessLost").await.unwrap();
    prove_refused(&kubeconfig).await.unwrap();
    assert_eq!(objects(managed, "wider-1").await, 0);
    println!("✔ a narrowed role, deleted: the access ends");
}
