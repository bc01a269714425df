//! No credential in any log, Event, status, metric or annotation of a whole run at `trace` level.

use e2e::stage::prove;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};

use crate::world::{program, stage, world};

/// Pieces of a secret text that would be found if any part of it were printed.
pub fn pieces(secret: &str) -> Vec<&str> {
    let words = secret.split(|c: char| !(c.is_ascii_alphanumeric() || "-_+/=".contains(c)));
    words.filter(|w| w.len() >= 24).flat_map(|w| [&w[..24], &w[w.len() - 24..]]).collect()
}

#[tokio::test]
async fn no_token_is_printed_anywhere() {
    let (stage, instance) = stage("leaks").await;
    let admin = world().await.managed.admin_kubeconfig();
    let operator = stage.operator(program(), &["--create-timeout", "1s"]).await.unwrap();
    let osb = operator.osb();
    let made = osb.bound(&instance, "leaks-1").await.unwrap();
    let kubeconfig = made.kubeconfig().unwrap().to_owned();
    prove(&kubeconfig).await.unwrap();
    osb.fetch(&instance, "leaks-1").await.unwrap();
    osb.bind(&instance, "leaks-1", Some(700)).await.unwrap();
    osb.bind("i-nobody", "leaks-2", None).await.unwrap();
    // Credentials that can't be used, and a cluster that refuses them.
    let token = "abcdefghijklmnopqrstuvwxyz0123456789abcdefgh";
    stage.rotate("r-leaks", Some(&world().await.managed.token_kubeconfig(token))).await.unwrap();
    assert_eq!(osb.bind(&instance, "leaks-3", None).await.unwrap().status, 503);
    assert_eq!(osb.unbind(&instance, "leaks-1").await.unwrap().status, 503);
    stage.rotate("r-leaks", Some(&format!("users: [{{name: {token}"))).await.unwrap();
    assert_eq!(osb.bind(&instance, "leaks-4", None).await.unwrap().status, 503);

    let events: Api<Event> = Api::namespaced(stage.control().client(), &stage.namespace);
    let events = serde_json::to_string(&events.list(&ListParams::default()).await.unwrap().items).unwrap();
    let bindings =
        serde_json::to_string(&stage.bindings().list(&ListParams::default()).await.unwrap().items).unwrap();
    let metrics = operator.admin("/metrics").await.unwrap().1;
    operator.terminate().await.unwrap();
    let log = operator.log();
    assert!(log.contains("kubeconfig issued") && log.contains("leaks-1"), "the log is the whole run's");
    assert!(events.contains("CleanupFailed"), "{events}");
    let own_ca = kubeconfig.lines().find(|l| l.contains("certificate-authority-data")).unwrap();
    for secret in [kubeconfig.replace(own_ca, ""), admin.replace(own_ca, ""), token.to_owned()] {
        let pieces = pieces(&secret);
        assert!(!pieces.is_empty());
        for piece in pieces {
            for (what, text) in
                [("log", &log), ("Events", &events), ("bindings", &bindings), ("metrics", &metrics)]
            {
                assert!(!text.contains(piece), "a piece of a credential is in the {what}");
            }
        }
    }
}
