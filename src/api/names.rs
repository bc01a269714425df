//! Names, labels and annotations. All are computed from a binding id or an instance id,
//! never read back from a status (a status is output, not authority).

use std::fmt;

/// Finalizer on every `KymaBinding` that may have left something in a managed cluster.
pub const FINALIZER: &str = "bindings.kyma-project.io/cleanup";

/// Label that says which software made an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] on everything that we make.
pub const MANAGED_BY_VALUE: &str = "kyma-bindings";
/// Label: UID of the `KymaBinding` for which an object was made.
pub const BINDING_UID: &str = "bindings.kyma-project.io/binding-uid";
/// Label: UID of the bindings' namespace in the control plane; in former versions, that of its `kube-system`.
pub const CONTROL_PLANE: &str = "bindings.kyma-project.io/control-plane";
/// Label: namespace of the `KymaBinding` in the control plane.
pub const CONTROL_PLANE_NAMESPACE: &str = "bindings.kyma-project.io/control-plane-namespace";

/// Annotation on an instance's Secret or Runtime: the name used inside kubeconfigs.
pub const CLUSTER_NAME: &str = "bindings.kyma-project.io/cluster-name";
/// Annotation on an instance's Secret or Runtime: `"true"` takes the instance out of service.
pub const SUSPENDED: &str = "bindings.kyma-project.io/suspended";
/// Annotation on a `KymaBinding` being deleted: `"true"` gives up on a managed cluster that fails.
pub const FORGET: &str = "bindings.kyma-project.io/forget";
/// Annotation on a `KymaBinding` that a new leader found undecided: which process decides on it.
pub const DECIDED_BY: &str = "bindings.kyma-project.io/decided-by";
/// Annotation on a `KymaBinding` that an OSB request created.
pub const ORIGIN: &str = "bindings.kyma-project.io/origin";
/// Value of [`ORIGIN`] for the Open Service Broker API.
pub const ORIGIN_OSB: &str = "osb";
/// Annotation: the `X-Broker-API-Request-Identity` of the creating request.
pub const REQUEST_ID: &str = "bindings.kyma-project.io/request-id";
/// Annotation: the `traceparent` (W3C Trace Context) under which a binding was asked for.
pub const TRACEPARENT: &str = "bindings.kyma-project.io/traceparent";
/// Annotation: the `tracestate` beside it.
pub const TRACESTATE: &str = "bindings.kyma-project.io/tracestate";

/// Annotation on a binding's Secret: where its access was made, and as what.
pub const ACCESS: &str = "bindings.kyma-project.io/access";

/// What the names of all that is made for bindings begin with.
const OBJECT_PREFIX: &str = "kyma-binding-";
/// Longest binding id: `kyma-binding-{id}` must fit into the 253 characters of a subdomain name.
pub const BINDING_ID_MAX: usize = 240;
/// Longest instance id: a label value.
pub const INSTANCE_ID_MAX: usize = 63;

/// Why an id can't be used; the message says what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not an RFC 1123 subdomain, or too long.
    #[error(
        "binding_id must be 1 to 240 characters long and consist of lower case letters, digits, '-' and '.', \
         where each part between dots starts and ends with a letter or digit"
    )]
    BindingId,
    /// Not a label value, or empty.
    #[error(
        "instance_id must be 1 to 63 characters long, start and end with a letter or digit, \
         and consist of letters, digits, '-', '_' and '.'"
    )]
    InstanceId,
}

/// A binding id that is a legal name for everything made from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BindingId(String);

impl BindingId {
    /// Takes an id as it came.
    ///
    /// # Errors
    /// [`NameError::BindingId`] unless it is an RFC 1123 subdomain of at most [`BINDING_ID_MAX`] characters.
    pub fn parse(id: &str) -> Result<Self, NameError> {
        let legal = !id.is_empty() && id.len() <= BINDING_ID_MAX && id.split('.').all(is_label);
        legal.then(|| Self(id.to_owned())).ok_or(NameError::BindingId)
    }

    /// The id itself, name of the `KymaBinding`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the `ServiceAccount`, `ClusterRole` and `ClusterRoleBinding` in the managed
    /// cluster and of the Secret in the control plane.
    #[must_use]
    pub fn object_name(&self) -> String {
        format!("{OBJECT_PREFIX}{}", self.0)
    }

    /// The binding id in the name of an object, where it is one that we give.
    #[must_use]
    pub fn of_object(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix(OBJECT_PREFIX)?).ok()
    }
}

impl fmt::Display for BindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An instance id that is a legal, non-empty label value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(String);

impl InstanceId {
    /// Takes an id as it came.
    ///
    /// # Errors
    /// [`NameError::InstanceId`] unless it is a label value of 1 to [`INSTANCE_ID_MAX`] characters.
    pub fn parse(id: &str) -> Result<Self, NameError> {
        let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let bytes = id.as_bytes();
        let legal = bytes.len() <= INSTANCE_ID_MAX
            && edge(bytes.first().copied())
            && edge(bytes.last().copied())
            && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c));
        legal.then(|| Self(id.to_owned())).ok_or(NameError::InstanceId)
    }

    /// The id itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(part: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let bytes = part.as_bytes();
    edge(bytes.first().copied())
        && edge(bytes.last().copied())
        && bytes.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binding_ids_are_subdomains_that_leave_room_for_the_prefix() {
        for good in ["a", "0a-b.c", "6f7ce4f2-6a1b-4e7c-9b0a-000000000000", &"x".repeat(240)] {
            assert_eq!(BindingId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "a_b", "-a", "a-", ".a", "a.", "a..b", "a/b", "ä", &"x".repeat(241)] {
            assert_eq!(BindingId::parse(bad), Err(NameError::BindingId), "{bad}");
        }
        assert_eq!(BindingId::parse(&"x".repeat(240)).unwrap().object_name().len(), 253);
    }

    #[test]
    fn instance_ids_are_label_values() {
        for good in ["a", "A_b.c-9", &"x".repeat(63)] {
            assert_eq!(InstanceId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a_", "a b", "a,b", &"x".repeat(64)] {
            assert_eq!(InstanceId::parse(bad), Err(NameError::InstanceId), "{bad}");
        }
    }
}
