//! Where a managed cluster's server may be, and how it is reached.

use std::time::Duration;

use e2e::operator::Operator;
use e2e::stage::{SOON, prove};
use e2e::{WorkDir, eventually};
use futures::FutureExt as _;
use tokio::net::TcpListener;

use crate::events::told;
use crate::world::{program, stage, world};

/// What is allowed here instead of the loopback network, where all servers of tests are.
const NOTHING: [&str; 2] = ["--managed-server-allow", ""];

#[tokio::test]
async fn nothing_is_connected_to_where_no_managed_cluster_can_be() {
    let (stage, instance) = stage("address").await;
    let admin = world().await.managed.admin_kubeconfig();
    let url = world().await.managed.url();
    let operator = stage.operator(program(), &NOTHING).await.unwrap();
    let osb = operator.osb();
    let port = url.rsplit(':').next().unwrap();
    let mut servers = vec![
        (url.to_owned(), "a loopback address"),
        // Names are judged by what they resolve to.
        (format!("https://localhost:{port}"), "a loopback address"),
        (format!("https://0.0.0.0:{port}"), "an unspecified or reserved address"),
        (format!("https://[::ffff:127.0.0.1]:{port}"), "a loopback address"),
        ("https://169.254.169.254".to_owned(), "a link-local or metadata address"),
        // What this operator calls its control plane.
        (world().await.control.url().to_owned(), "the control plane's own address"),
    ];
    for (i, (server, says)) in servers.drain(..).enumerate() {
        stage.rotate("r-address", Some(&admin.replace(url, &server))).await.unwrap();
        let name = format!("address-{i}");
        // The rotation is seen a moment after it is made.
        let refused = eventually(&format!("{server} to be refused as {says}"), SOON, async || {
            let refused = osb.bind(&instance, &name, None).await.unwrap();
            let fits = refused.status == 503 && refused.description().contains(says);
            if fits { Ok(refused) } else { Err(refused.description().to_owned()) }
        })
        .await
        .unwrap();
        assert!(refused.description().contains("--managed-server-allow"), "{}", refused.description());
        let host = server.trim_start_matches("https://");
        assert!(!refused.description().contains(host), "{}", refused.description());
        // Nothing was made in the cluster, so nothing has to be removed there first.
        stage.gone(&name, Duration::from_secs(2)).await.unwrap();
    }
    stage.apply("address-applied", &instance, None).await.unwrap();
    stage.condition("address-applied", "Ready", "False", "AddressRefused").await.unwrap();
    told(&stage, "address-applied", "Warning", "AddressRefused").await;
}

#[tokio::test]
async fn a_name_that_is_allowed_may_be_anywhere_and_no_proxy_is_asked() {
    let (stage, instance) = stage("named").await;
    let managed = &world().await.managed;
    let by_name = managed.admin_kubeconfig().replace("https://127.0.0.1", "https://localhost");
    stage.rotate("r-named", Some(&by_name)).await.unwrap();
    // Whoever obeyed the environment would come here.
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    let mut environment = Vec::new();
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"] {
        environment.push((name, proxy_url.as_str()));
    }
    let args = [&stage.args()[..], &["--managed-server-allow", "localhost"]].concat();
    let dir = std::sync::Arc::new(WorkDir::new("named").unwrap());
    let control = stage.control().kubeconfig_path();
    let operator = Operator::launch_with(&dir, program(), control, &args, &environment).await.unwrap();
    operator.ready().await.unwrap();
    let made = operator.osb().bound(&instance, "named-1").await.unwrap();
    assert_eq!(prove(made.kubeconfig().unwrap()).await.unwrap(), "managed");
    assert_eq!(operator.osb().unbind(&instance, "named-1").await.unwrap().status, 200);
    assert!(proxy.accept().now_or_never().is_none(), "somebody asked the proxy");
}
