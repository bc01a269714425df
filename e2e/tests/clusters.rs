//! The test clusters behave like Kubernetes and like clusters of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::cluster::client_from;
use e2e::process::is_alive;
use e2e::{Cluster, ClusterOptions, eventually};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use tokio::sync::OnceCell;

/// Two clusters for all tests of this file; nobody drops them.
async fn clusters() -> &'static (Cluster, Cluster) {
    static CLUSTERS: OnceCell<(Cluster, Cluster)> = OnceCell::const_new();
    CLUSTERS
        .get_or_init(|| async {
            let started = Instant::now();
            let audit = ClusterOptions { audit: true };
            let pair = tokio::try_join!(Cluster::start_with("audited", audit), Cluster::start("other"),);
            println!("two clusters are ready after {:?}", started.elapsed());
            pair.unwrap()
        })
        .await
}

fn named<T>(name: &str, object: impl FnOnce(ObjectMeta) -> T) -> T {
    object(ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() })
}

async fn whoami(kubeconfig: &str) -> Result<String, kube::Error> {
    let client = client_from(kubeconfig).await.unwrap();
    let reviews: Api<SelfSubjectReview> = Api::all(client);
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    let user = review.status.and_then(|status| status.user_info);
    let user = user.unwrap_or_default();
    let groups = user.groups.unwrap_or_default().join(" ");
    Ok(format!("{} in {groups}", user.username.unwrap_or_default()))
}

fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

#[tokio::test]
async fn a_token_is_good_in_its_own_cluster_only() -> Result<()> {
    let (home, other) = clusters().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(home.client(), "default");
    let account = named("robot", |metadata| ServiceAccount { metadata, ..ServiceAccount::default() });
    accounts.create(&PostParams::default(), &account).await?;
    let request = TokenRequest {
        spec: Some(TokenRequestSpec { expiration_seconds: Some(600), ..TokenRequestSpec::default() }),
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request("robot", &PostParams::default(), &request).await?;
    let token = answer.status.and_then(|status| status.token);
    let token = token.context("no token in the answer")?;

    let known = whoami(&home.token_kubeconfig(&token)).await?;
    assert!(known.starts_with("system:serviceaccount:default:robot in "));
    let refused = whoami(&other.token_kubeconfig(&token)).await.unwrap_err();
    assert!(is_status(&refused, 401), "{refused}");
    Ok(())
}

#[tokio::test]
async fn client_certificates_carry_user_and_groups_but_no_rights() -> Result<()> {
    let (home, other) = clusters().await;
    let alice = home.kubeconfig_for("alice", &["readers", "writers"])?;
    let known = whoami(&alice).await?;
    assert_eq!(known, "alice in readers writers system:authenticated");
    assert!(home.kubeconfig_for("alice", &["a", "b", "c"]).is_err());

    let namespaces: Api<Namespace> = Api::all(client_from(&alice).await?);
    let forbidden = namespaces.list(&ListParams::default()).await.unwrap_err();
    assert!(is_status(&forbidden, 403), "{forbidden}");
    let admin = whoami(&home.admin_kubeconfig()).await?;
    assert!(admin.contains("system:masters"), "{admin}");

    // Another cluster's authority: the connection fails before anybody is asked.
    let swapped = alice.replace(home.url(), other.url());
    assert!(whoami(&swapped).await.is_err());
    Ok(())
}

#[tokio::test]
async fn kubectl_has_the_version_of_the_server() -> Result<()> {
    let (home, _) = clusters().await;
    let version = home.kubectl(&["version"]).await?;
    assert_eq!(version.matches("v1.36.3").count(), 2, "{version}");
    let error = home.kubectl(&["get", "pod", "nowhere"]).await.unwrap_err();
    assert!(error.to_string().contains("not found"), "{error}");
    let bob = home.kubeconfig_for("bob", &[])?;
    let output = home.kubectl_as(&bob, &["get", "pods"]).await?;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Forbidden"));
    Ok(())
}

#[tokio::test]
async fn requests_are_audited_where_wanted() -> Result<()> {
    let (home, other) = clusters().await;
    assert_eq!(other.audit_log_path(), None);
    let path = home.audit_log_path().context("no audit log")?;
    let maps: Api<ConfigMap> = Api::namespaced(home.client(), "default");
    assert_eq!(maps.get_opt("not-there").await?, None);
    eventually("the request in the audit log", Duration::from_secs(5), async || {
        let log = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
        let line = log.lines().find(|line| line.contains("not-there"));
        line.map(str::to_owned).ok_or_else(|| format!("{} lines", log.lines().count()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn an_api_server_comes_back_with_its_data() -> Result<()> {
    let cluster = Cluster::start("restarted").await?;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let map = named("kept", |metadata| ConfigMap { metadata, ..ConfigMap::default() });
    maps.create(&PostParams::default(), &map).await?;

    cluster.stop_apiserver().await?;
    assert!(maps.get("kept").await.is_err());
    assert_eq!(cluster.pids().await.len(), 1);
    let address = cluster.url().trim_start_matches("https://");
    let squatter = std::net::TcpListener::bind(address)?;
    let error = cluster.start_apiserver().await.unwrap_err();
    assert!(error.to_string().contains("is taken"), "{error:#}");
    drop(squatter);
    cluster.start_apiserver().await?;
    maps.get("kept").await?;

    cluster.pause_apiserver().await;
    eventually("no answer", Duration::from_secs(5), async || {
        let answer = tokio::time::timeout(Duration::from_millis(300), maps.get("kept")).await;
        if answer.is_err() { Ok(()) } else { Err("an answer") }
    })
    .await?;
    cluster.resume_apiserver().await;
    maps.get("kept").await?;

    let (pids, dir) = (cluster.pids().await, cluster.dir().to_owned());
    assert!(pids.iter().copied().all(is_alive) && dir.exists());
    cluster.stop().await?;
    assert!(!pids.iter().copied().any(is_alive) && !dir.exists());
    Ok(())
}

#[tokio::test]
async fn a_dropped_cluster_leaves_nothing() -> Result<()> {
    let cluster = Cluster::start("dropped").await?;
    let (pids, dir) = (cluster.pids().await, cluster.dir().to_owned());
    assert_eq!(pids.len(), 2);
    // Not even a frozen process stays.
    cluster.pause_apiserver().await;
    drop(cluster);
    assert!(!pids.into_iter().any(is_alive) && !dir.exists());
    assert!(Cluster::start("Not a label").await.is_err());
    Ok(())
}
