//! Which control plane this is: the id with which all is marked that is made in managed clusters.
//!
//! It is the UID of the bindings' namespace. An API server gives it once, so two control planes never have the same, and
//! a backup that is restored elsewhere doesn't take it along, as it would whatever is kept in an object. It lasts as long
//! as any of the bindings, and to read it takes no right outside of their namespace.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt as _};

use crate::cluster::ControlPlane;
use crate::kubernetes::error::Trouble;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The namespace whose UID was the id in former versions.
const FORMER: &str = "kube-system";

/// Why it is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bindings' namespace is gone.
    #[error(
        "namespace {0}, whose UID identifies this control plane, does not exist: create it, or let --namespace name the right one"
    )]
    Missing(String),
    /// It may not be read.
    #[error(
        "cannot read namespace {namespace}, whose UID identifies this control plane (HTTP {status}): a Role in it must allow \
         'get' on namespaces"
    )]
    Refused {
        /// The namespace.
        namespace: String,
        /// As the API server answered.
        status: u16,
    },
    /// The API server can't, for now.
    #[error(
        "cannot read namespace {namespace}, whose UID identifies this control plane: the API server failed (HTTP {status})"
    )]
    Failed {
        /// The namespace.
        namespace: String,
        /// As it answered.
        status: u16,
    },
    /// There is no answer.
    #[error("the control plane does not tell who it is: {0}")]
    NoAnswer(Trouble),
}

/// Reads it. The former id is known only where it may be read, which nothing depends on but leftovers.
///
/// # Errors
/// When the control plane doesn't say.
pub async fn identify(client: &Client, namespace: &str) -> Result<ControlPlane, IdentityError> {
    let id = uid(client, namespace).await?;
    let former = match uid(client, FORMER).await {
        Ok(former) => Some(former),
        Err(IdentityError::Refused { .. } | IdentityError::Missing(_)) => None,
        Err(error) => return Err(error),
    };
    Ok(ControlPlane { id, former, namespace: namespace.to_owned() })
}

async fn uid(client: &Client, namespace: &str) -> Result<String, IdentityError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let read = tokio::time::timeout(TIMEOUT, namespaces.get_metadata(namespace)).await;
    let namespace = namespace.to_owned();
    match read {
        // Without one, two control planes would be the same.
        Ok(Ok(read)) => {
            read.uid().filter(|uid| !uid.is_empty()).ok_or(IdentityError::Failed { namespace, status: 200 })
        }
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            404 => IdentityError::Missing(namespace),
            status @ (401 | 403) => IdentityError::Refused { namespace, status },
            status => IdentityError::Failed { namespace, status },
        }),
        Ok(Err(error)) => Err(IdentityError::NoAnswer(Trouble::of(&error))),
        Err(_) => Err(IdentityError::NoAnswer(Trouble::Silent)),
    }
}
