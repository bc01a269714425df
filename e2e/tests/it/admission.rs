//! The chart's admission policy and Roles on a real API server: who is refused what, and that the operator
//! works with them alone.

use std::path::PathBuf;
use std::sync::Arc;

use e2e::binaries::KUBE_CONTROLLER_MANAGER;
use e2e::cluster::client_from;
use e2e::helm::template_in;
use e2e::stage::{SOON, install_crd, prove, prove_refused};
use e2e::{Cluster, ManagedProcess, Operator, Stage, WorkDir, eventually};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kyma_bindings::api::binding::KymaBinding;
use kyma_bindings::api::names::FINALIZER;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{program, stage, world};

const GARBAGE_COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";
const NAMESPACE_CONTROLLER: &str = "system:serviceaccount:kube-system:namespace-controller";

/// Kinds of the chart that need no node.
const INSTALLED: [&str; 5] = [
    "kind: ServiceAccount\n",
    "kind: Role\n",
    "kind: RoleBinding\n",
    "kind: ValidatingAdmissionPolicy\n",
    "kind: ValidatingAdmissionPolicyBinding\n",
];

/// Accounts, Roles and policy of the chart for a stage, with a tenant who may do everything by RBAC.
struct Release {
    stage: Stage<'static>,
    instance: String,
}

impl Release {
    async fn install(name: &str, more: &[&str]) -> Self {
        let (stage, instance) = stage(name).await;
        Self::install_on(stage, instance, more).await
    }

    async fn install_on(stage: Stage<'static>, instance: String, more: &[&str]) -> Self {
        let name = stage.namespace.strip_prefix("bindings-").unwrap().to_owned();
        let instances = format!("config.instanceNamespace={}", stage.instance_namespace);
        let least = "image.repository=r.example/i,auth.methods={none},auth.allowAnonymous=true";
        let args = [&["--set", least, "--set", &instances], more].concat();
        let output = template_in(&stage.namespace, &args).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rendered = String::from_utf8(output.stdout).unwrap();
        let objects = rendered.split("\n---\n").filter(|o| INSTALLED.iter().any(|kind| o.contains(kind)));
        let file = stage.control().dir().join(format!("{name}-release.yaml"));
        std::fs::write(&file, objects.collect::<Vec<_>>().join("\n---\n")).unwrap();
        let apply = ["apply", "--server-side", "-f", file.to_str().unwrap()];
        stage.control().kubectl(&apply).await.unwrap();
        let (tenant, namespace) = (format!("{name}-tenant"), stage.namespace.clone());
        let resources = "--resource=kymabindings.bindings.kyma-project.io,kymabindings.bindings.kyma-project.io/status,secrets";
        for namespace in [&namespace, &stage.instance_namespace] {
            let role = ["create", "role", "tenant", "-n", namespace, "--verb=*", resources];
            stage.control().kubectl(&role).await.unwrap();
            let (role, user) = ("--role=tenant", format!("--user={tenant}"));
            let grant = ["create", "rolebinding", "tenant", "-n", namespace, role, &user];
            stage.control().kubectl(&grant).await.unwrap();
        }
        Self { stage, instance }
    }

    /// Kubeconfig of one of the chart's accounts.
    async fn account(&self, component: &str) -> String {
        let name = format!("kb-kyma-bindings-{component}");
        let token = ["create", "token", &name, "-n", &self.stage.namespace];
        let token = self.stage.control().kubectl(&token).await.unwrap();
        self.stage.control().token_kubeconfig(token.trim())
    }

    async fn file(&self, component: &str) -> PathBuf {
        let path = self.stage.control().dir().join(format!("{}-{component}.yaml", self.stage.namespace));
        std::fs::write(&path, self.account(component).await).unwrap();
        path
    }

    async fn client(&self, user: &str, groups: &[&str]) -> Client {
        client_from(&self.stage.control().kubeconfig_for(user, groups).unwrap()).await.unwrap()
    }

    async fn tenant(&self) -> Client {
        let name = self.stage.namespace.strip_prefix("bindings-").unwrap();
        self.client(&format!("{name}-tenant"), &[]).await
    }

    fn bindings(&self, client: &Client) -> Api<KymaBinding> {
        Api::namespaced(client.clone(), &self.stage.namespace)
    }

    fn secrets(&self, client: &Client) -> Api<Secret> {
        Api::namespaced(client.clone(), &self.stage.namespace)
    }

    /// Waits until the API server knows the policy.
    async fn in_force(&self, tenant: &Client) {
        let (secrets, dry) = (self.secrets(tenant), PostParams { dry_run: true, ..PostParams::default() });
        eventually("the policy to be in force", SOON, async || {
            match secrets.create(&dry, &secret(&json!({"name": "kyma-binding-probe"}))).await {
                Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }
}

fn secret(metadata: &Value) -> Secret {
    serde_json::from_value(json!({"metadata": metadata, "stringData": {"key": "value"}})).unwrap()
}

fn binding(name: &str, instance: &str, finalizers: &[&str]) -> KymaBinding {
    serde_json::from_value(json!({
        "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
        "metadata": {"name": name, "finalizers": finalizers}, "spec": {"instanceId": instance},
    }))
    .unwrap()
}

/// Refused by the policy, not by RBAC, and with what is right.
fn refused<T: std::fmt::Debug>(what: &str, done: kube::Result<T>, words: &str) {
    match done {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            assert!(
                status.message.contains("denied request: Only the controller"),
                "{what}: {}",
                status.message
            );
            assert!(status.message.contains(words), "{what}: {words} is not in: {}", status.message);
            assert!(status.message.contains("admissionPolicy.exemptUsers"), "{what}: {}", status.message);
        }
        other => panic!("{what}: {other:?}"),
    }
}

fn merge(patch: Value) -> Patch<Value> {
    Patch::Merge(patch)
}

fn finalizers(finalizers: &[&str]) -> Patch<Value> {
    merge(json!({"metadata": {"finalizers": finalizers}}))
}

#[tokio::test]
async fn a_tenant_with_all_rights_changes_no_status_finalizer_or_secret_of_ours() {
    let release = Release::install("admission", &[]).await;
    let (post, params) = (PostParams::default(), PatchParams::default());
    let tenant = release.tenant().await;
    release.in_force(&tenant).await;
    let (bindings, secrets) = (release.bindings(&tenant), release.secrets(&tenant));
    let controller = client_from(&release.account("controller").await).await.unwrap();
    let (ours, issued) = (release.bindings(&controller), release.secrets(&controller));

    // What is everybody's.
    bindings.create(&post, &binding("tenant-1", "i", &[])).await.unwrap();
    bindings.create(&post, &binding("tenant-2", "i", &[FINALIZER])).await.unwrap();
    let annotate = json!({"metadata": {"annotations": {"a": "b"}, "labels": {"c": "d"}}});
    bindings.patch("tenant-1", &params, &merge(annotate)).await.unwrap();
    match bindings.create(&post, &binding("tenant-3", "i", &["example.com/hold"])).await {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            assert!(status.message.contains("is created without finalizers"), "{}", status.message);
        }
        other => panic!("{other:?}"),
    }
    for name in ["of-a-tenant", "kyma-binding"] {
        secrets.create(&post, &secret(&json!({"name": name}))).await.unwrap();
        secrets.patch(name, &params, &merge(json!({"stringData": {"key": "other"}}))).await.unwrap();
        secrets.delete(name, &DeleteParams::default()).await.unwrap();
    }

    // What is the controller's, first done by others.
    let status = merge(json!({"status": {"conditions": []}}));
    refused("status", bindings.patch_status("tenant-1", &params, &status).await, "delete it when");
    ours.patch_status("tenant-1", &params, &status).await.unwrap();
    refused("add", bindings.patch("tenant-1", &params, &finalizers(&[FINALIZER])).await, "finalizers");
    ours.patch("tenant-1", &params, &finalizers(&[FINALIZER])).await.unwrap();
    for others in [&[][..], &[FINALIZER, "example.com/hold"], &["example.com/hold"]] {
        let patched = bindings.patch("tenant-1", &params, &finalizers(others)).await;
        refused("finalizers", patched, "as kubectl apply does");
    }
    let mut stripped = bindings.get("tenant-1").await.unwrap();
    stripped.metadata.finalizers = None;
    refused("replace", bindings.replace("tenant-1", &post, &stripped).await, "finalizers");

    let named = secret(&json!({"name": "kyma-binding-1", "labels": {"a": "b"}}));
    refused("create", secrets.create(&post, &named).await, "give yours another name");
    let generated = secret(&json!({"generateName": "kyma-binding-"}));
    refused("generate", secrets.create(&post, &generated).await, "give yours another name");
    let applied = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kyma-binding-1"}});
    let apply = PatchParams::apply("tenant");
    refused("apply", secrets.patch("kyma-binding-1", &apply, &Patch::Apply(&applied)).await, "another name");
    issued.create(&post, &named).await.unwrap();
    for change in [
        json!({"stringData": {"key": "mine"}}),
        json!({"immutable": true}),
        json!({"metadata": {"labels": {"a": "c"}}}),
        json!({"metadata": {"annotations": {"a": "c"}}}),
        json!({"metadata": {"finalizers": ["example.com/hold"]}}),
    ] {
        let patched = secrets.patch("kyma-binding-1", &params, &merge(change.clone())).await;
        refused(&change.to_string(), patched, "give yours another name");
    }
    // As is done to have all Secrets encrypted with another key.
    let same = secrets.get("kyma-binding-1").await.unwrap();
    secrets.replace("kyma-binding-1", &post, &same).await.unwrap();
    refused(
        "delete",
        secrets.delete("kyma-binding-1", &DeleteParams::default()).await,
        "delete its KymaBinding",
    );
    let all = secrets.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    refused("delete all", all.map(|_| ()), "delete its KymaBinding");

    // Only there.
    let elsewhere: Api<Secret> = Api::namespaced(tenant, &release.stage.instance_namespace);
    elsewhere.create(&post, &named).await.unwrap();

    issued.delete("kyma-binding-1", &DeleteParams::default()).await.unwrap();
    for name in ["tenant-1", "tenant-2"] {
        bindings.delete(name, &DeleteParams::default()).await.unwrap();
        ours.patch(name, &params, &finalizers(&[])).await.unwrap();
        release.stage.gone(name, SOON).await.unwrap();
    }
}

#[tokio::test]
async fn what_kubernetes_itself_must_do_it_can_and_who_is_exempt_too() {
    let exempt = "admissionPolicy.exemptUsers={admission-restore},admissionPolicy.exemptGroups={breakers}";
    let release = Release::install("admission-system", &["--set", exempt]).await;
    let (post, params) = (PostParams::default(), PatchParams::default());
    release.in_force(&release.tenant().await).await;
    let admin = release.stage.control().client();
    // Nobody in that group is exempt here.
    let done = release.secrets(&admin).create(&post, &secret(&json!({"name": "kyma-binding-1"}))).await;
    refused("system:masters", done, "another name");

    let grant = ["create", "rolebinding", "exempt", "-n", &release.stage.namespace, "--role=tenant"];
    let grant = [&grant[..], &["--user=admission-restore", "--group=breakers"]].concat();
    release.stage.control().kubectl(&grant).await.unwrap();
    let controller = client_from(&release.account("controller").await).await.unwrap();
    let collector = release.client(GARBAGE_COLLECTOR, &[]).await;
    let deleter = release.client(NAMESPACE_CONTROLLER, &[]).await;
    let restore = release.client("admission-restore", &[]).await;
    let breaker = release.client("admission-anna", &["breakers"]).await;
    for (n, client) in [&restore, &breaker].into_iter().enumerate() {
        let (bindings, name) = (release.bindings(client), format!("exempt-{n}"));
        bindings.create(&post, &binding(&name, "i", &["example.com/hold"])).await.unwrap();
        let status = merge(json!({"status": {"conditions": []}}));
        bindings.patch_status(&name, &params, &status).await.unwrap();
        bindings.patch(&name, &params, &finalizers(&[])).await.unwrap();
        bindings.delete(&name, &DeleteParams::default()).await.unwrap();
    }

    // Deleted in the foreground: the collector takes its own finalizer off when the rest is gone.
    let owner = binding("collected", "i", &[FINALIZER]);
    let owner = release.bindings(&admin).create(&post, &owner).await.unwrap();
    let metadata = json!({"name": "kyma-binding-collected", "ownerReferences": [{
        "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding", "name": "collected",
        "uid": owner.metadata.uid,
    }]});
    release.secrets(&controller).create(&post, &secret(&metadata)).await.unwrap();
    release.bindings(&admin).delete("collected", &DeleteParams::foreground()).await.unwrap();
    let orphan = merge(json!({"metadata": {"ownerReferences": null}}));
    release.secrets(&collector).patch("kyma-binding-collected", &params, &orphan).await.unwrap();
    release.secrets(&collector).delete("kyma-binding-collected", &DeleteParams::default()).await.unwrap();
    release
        .bindings(&controller)
        .patch("collected", &params, &finalizers(&["foregroundDeletion"]))
        .await
        .unwrap();
    release.bindings(&collector).patch("collected", &params, &finalizers(&[])).await.unwrap();
    release.stage.gone("collected", SOON).await.unwrap();

    // A namespace that is deleted is emptied, and by whom only this may be done.
    let left = secret(&json!({"name": "kyma-binding-left"}));
    release.secrets(&controller).create(&post, &left).await.unwrap();
    let emptied = async |client: &Client| {
        let (secrets, all) = (release.secrets(client), ListParams::default());
        secrets.delete_collection(&DeleteParams::default(), &all).await.map(|_| ())
    };
    refused("masters", emptied(&admin).await, "delete its KymaBinding");
    emptied(&deleter).await.unwrap();
    assert!(release.secrets(&admin).list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn broker_controller_and_cleanup_work_with_the_charts_rights_under_the_policy() {
    let release = Release::install("admission-road", &[]).await;
    let stage = &release.stage;
    let tenant = release.tenant().await;
    release.in_force(&tenant).await;
    let (controller, broker) = (release.file("controller").await, release.file("broker").await);
    let args = [&["--role", "controller"][..], &stage.args()].concat();
    let controller = Operator::start(program(), &controller, &args).await.unwrap();
    let args = ["--role", "broker", "--namespace", &stage.namespace, "--create-timeout", "10s"];
    let broker = Operator::start(program(), &broker, &args).await.unwrap();
    let osb = broker.osb();

    let made = osb.bind(&release.instance, "admission-road-1", None).await.unwrap();
    let by_http = made.kubeconfig().unwrap();
    prove(by_http).await.unwrap();
    let applied = binding("admission-road-2", &release.instance, &[]);
    let bindings = release.bindings(&tenant);
    bindings.create(&PostParams::default(), &applied).await.unwrap();
    let by_apply = stage.ready("admission-road-2").await.unwrap();
    prove(&by_apply).await.unwrap();

    // Neither takes what was issued away past the operator.
    let issued =
        release.secrets(&tenant).delete("kyma-binding-admission-road-2", &DeleteParams::default()).await;
    refused("tenant", issued, "delete its KymaBinding");
    let stripped = bindings.patch("admission-road-2", &PatchParams::default(), &finalizers(&[])).await;
    refused("tenant", stripped, "finalizers");

    assert_eq!(osb.unbind(&release.instance, "admission-road-1").await.unwrap().status, 200);
    prove_refused(by_http).await.unwrap();
    bindings.delete("admission-road-2", &DeleteParams::default()).await.unwrap();
    stage.gone("admission-road-2", SOON).await.unwrap();
    prove_refused(&by_apply).await.unwrap();

    osb.bind(&release.instance, "admission-road-3", None).await.unwrap().kubeconfig().unwrap();
    let args = ["operator", "cleanup", "--namespace", &stage.namespace, "--timeout", "60s", "--kubeconfig"];
    // The hook has the account of the controller.
    let account = release.file("controller").await;
    let cleaned = Command::new(program()).args(args).arg(account).output().await.unwrap();
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    stage.gone("admission-road-3", SOON).await.unwrap();
    broker.terminate().await.unwrap();
    controller.terminate().await.unwrap();
}

/// Kubernetes' own garbage collector and namespace controller, with the accounts that they have there.
async fn controllers_of_kubernetes(stage: &Stage<'_>) -> ManagedProcess {
    let dir = Arc::new(WorkDir::new("controllers").unwrap());
    let kubeconfig = dir.path().join("kubeconfig");
    let user = stage.control().kubeconfig_for("system:kube-controller-manager", &[]).unwrap();
    std::fs::write(&kubeconfig, user).unwrap();
    let mut command = std::process::Command::new(KUBE_CONTROLLER_MANAGER.find_or_build().await.unwrap());
    command.arg("--kubeconfig").arg(kubeconfig).args([
        "--controllers=garbage-collector-controller,namespace-controller",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--secure-port=0",
    ]);
    ManagedProcess::spawn("kube-controller-manager", &command, &dir).unwrap()
}

#[tokio::test]
async fn the_controllers_of_kubernetes_do_their_part_under_the_policy() {
    // A control plane of its own: these controllers act on all namespaces.
    let control: &'static Cluster = Box::leak(Box::new(Cluster::start("admission-gc").await.unwrap()));
    install_crd(control).await.unwrap();
    let stage = Stage::new(control, "admission-gc").await.unwrap();
    let instance = "i-admission-gc".to_owned();
    let managed = world().await.managed.admin_kubeconfig();
    stage.register(&instance, "r-admission-gc", &managed).await.unwrap();
    let release = Release::install_on(stage, instance, &[]).await;
    let stage = &release.stage;
    let running = controllers_of_kubernetes(stage).await;
    let tenant = release.tenant().await;
    release.in_force(&tenant).await;
    let account = release.file("controller").await;
    let args = [&["--role", "controller"][..], &stage.args()].concat();
    let operator = Operator::start(program(), &account, &args).await.unwrap();
    let orphan =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    for (n, how) in [DeleteParams::foreground(), DeleteParams::background(), orphan].iter().enumerate() {
        let name = format!("admission-gc-{n}");
        let bindings = release.bindings(&tenant);
        bindings.create(&PostParams::default(), &binding(&name, &release.instance, &[])).await.unwrap();
        let kubeconfig = stage.ready(&name).await.unwrap();
        bindings.delete(&name, how).await.unwrap();
        stage.gone(&name, SOON).await.unwrap_or_else(|e| panic!("{how:?}: {e}; {}", running.log_tail(5)));
        prove_refused(&kubeconfig).await.unwrap();
    }
    operator.terminate().await.unwrap();

    let controller = client_from(&release.account("controller").await).await.unwrap();
    let left = secret(&json!({"name": "kyma-binding-left"}));
    release.secrets(&controller).create(&PostParams::default(), &left).await.unwrap();
    control.kubectl(&["delete", "namespace", &stage.namespace, "--wait=false"]).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(control.client());
    eventually("the namespace to be gone", SOON, async || {
        match namespaces.get_opt(&stage.namespace).await.map_err(|e| e.to_string())? {
            Some(left) => Err(format!("{:?}", left.status)),
            None => Ok(()),
        }
    })
    .await
    .unwrap();
}
