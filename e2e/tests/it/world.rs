//! What the tests share.

use std::path::Path;

use e2e::stage::{MANAGED_NAMESPACE, install_crd, install_runtime_crd, prepare_managed};
use e2e::{Cluster, Stage, canary};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::OnceCell;

/// The program that becomes the operator.
pub fn program() -> &'static Path {
    canary::begin();
    Path::new(env!("CARGO_BIN_EXE_playground"))
}

/// A control plane whose instances are Secrets alone, and a managed cluster: never the same one.
pub struct World {
    pub control: Cluster,
    pub managed: Cluster,
}

/// The clusters that nearly all tests share. Nobody drops them; they end with the process.
pub async fn world() -> &'static World {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    WORLD
        .get_or_init(|| async {
            canary::begin();
            let (control, managed) =
                tokio::try_join!(Cluster::start("control-plane"), Cluster::start("managed")).unwrap();
            install_crd(&control).await.unwrap();
            prepare_managed(&managed).await.unwrap();
            World { control, managed }
        })
        .await
}

/// A control plane with Runtimes. It serves as another managed cluster, too.
pub async fn control_with_runtimes() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER
        .get_or_init(|| async {
            let cluster = Cluster::start("kcp").await.unwrap();
            install_crd(&cluster).await.unwrap();
            install_runtime_crd(&cluster).await.unwrap();
            prepare_managed(&cluster).await.unwrap();
            cluster
        })
        .await
}

/// A stage in the shared control plane with one instance, `i-{name}` on runtime `r-{name}`.
pub async fn stage(name: &str) -> (Stage<'static>, String) {
    let world = world().await;
    let stage = Stage::new(&world.control, name).await.unwrap();
    let instance = format!("i-{name}");
    stage.register(&instance, &format!("r-{name}"), &world.managed.admin_kubeconfig()).await.unwrap();
    (stage, instance)
}

/// Makes an account of a binding's name in the managed cluster, which so isn't ours.
pub async fn claim(binding: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(world().await.managed.client(), MANAGED_NAMESPACE);
    let name = Some(format!("kyma-binding-{binding}"));
    let metadata = ObjectMeta { name, ..ObjectMeta::default() };
    let foreign = ServiceAccount { metadata, ..ServiceAccount::default() };
    accounts.create(&PostParams::default(), &foreign).await.unwrap();
}
