//! What is kept in a control plane when a stage ends, and the search for credentials in it.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event as CoreEvent, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, ObjectList};
use kube::{Client, Resource};
use kyma_bindings::api::binding::KymaBinding;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Cluster, canary};

/// How long the listing may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Objects of a kind, as JSON.
type Kept = (&'static str, Vec<String>);

/// Searches all that is kept in a namespace, without the data of Secrets. An API server that a test has left without
/// answers (stopped, frozen, or without its etcd) is passed over, and so is all when the test fails already.
///
/// # Panics
/// When something is found, or the API server refuses.
pub(crate) fn search(control: &Cluster, namespace: &str) {
    if !canary::searching() || std::thread::panicking() {
        return;
    }
    // A stage is dropped anywhere, also in a runtime that has no other thread, and a client needs a runtime of its own.
    let listed = std::thread::scope(|scope| scope.spawn(|| listed(control, namespace)).join());
    match listed {
        Ok(Ok(kept)) => {
            for (kind, texts) in kept {
                canary::search_all(kind, &texts);
            }
        }
        Ok(Err(error)) if silent(&error) => println!("{namespace} was not searched: {error:#}"),
        other => assert!(matches!(other, Ok(Ok(_))), "{namespace} can't be searched: {other:?}"),
    }
}

/// Whether that says that nobody answers, rather than that the question is wrong.
fn silent(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => status.code >= 500 || status.code == 429,
        Some(kube::Error::HyperError(_) | kube::Error::Service(_)) => true,
        Some(_) => false,
        None => error.is::<tokio::time::error::Elapsed>(),
    }
}

fn listed(control: &Cluster, namespace: &str) -> Result<Vec<Kept>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, all(control.client(), namespace)).await? })
}

async fn all(client: Client, namespace: &str) -> Result<Vec<Kept>> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    Ok(vec![
        of("KymaBindings", Api::<KymaBinding>::namespaced(client.clone(), namespace)).await?,
        of("Events", Api::<Event>::namespaced(client.clone(), namespace)).await?,
        of("core Events", Api::<CoreEvent>::namespaced(client.clone(), namespace)).await?,
        of("Leases", Api::<Lease>::namespaced(client, namespace)).await?,
        texts("metadata of Secrets", secrets.list_metadata(&ListParams::default()).await)?,
    ])
}

async fn of<K>(kind: &'static str, api: Api<K>) -> Result<Kept>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    texts(kind, api.list(&ListParams::default()).await)
}

fn texts<K: Clone + Serialize>(
    kind: &'static str,
    listed: Result<ObjectList<K>, kube::Error>,
) -> Result<Kept> {
    let objects = match listed {
        Ok(objects) => objects.items,
        // A control plane without the CRD has no bindings.
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let texts: serde_json::Result<_> = objects.iter().map(serde_json::to_string).collect();
    Ok((kind, texts.context("an object that is no JSON")?))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_who_does_not_answer_is_passed_over() {
        let refusal = |code| kube::Error::Api(Status::failure("no", "No").with_code(code).boxed());
        for (code, passed_over) in [(503, true), (500, true), (429, true), (403, false), (401, false)] {
            assert_eq!(silent(&refusal(code).into()), passed_over, "{code}");
        }
        assert!(silent(&kube::Error::Service("connection refused".into()).into()));
        assert!(!silent(&kube::Error::TlsRequired.into()));
        assert!(!silent(&std::io::Error::other("no runtime").into()));
        assert!(texts::<Secret>("Secrets", Err(refusal(404))).unwrap().1.is_empty());
        assert!(texts::<Secret>("Secrets", Err(refusal(403))).is_err());
    }
}
