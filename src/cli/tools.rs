//! Flags of what is run beside the operator. Each has the environment variable of the same flag of `run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Role, duration, namespace};

/// Flags of `rbac`.
#[derive(Debug, Args)]
pub struct RbacArgs {
    /// For which parts of the operator
    #[arg(long, env = "KYMA_BINDINGS_ROLE", default_value = "all")]
    pub role: Role,
    /// Namespace of the bindings and their Secrets
    #[arg(long, env = "KYMA_BINDINGS_NAMESPACE", default_value = "kyma-bindings", value_parser = namespace)]
    pub namespace: String,
    /// Namespace of the instances' kubeconfig Secrets and Runtimes
    #[arg(long, env = "KYMA_BINDINGS_INSTANCE_NAMESPACE", default_value = "kcp-system", value_parser = namespace)]
    pub instance_namespace: String,
    /// Account that gets the Roles; what binds it to them is printed, too
    #[arg(long, value_parser = account, value_name = "NAMESPACE/NAME")]
    pub service_account: Option<Account>,
}

/// A `ServiceAccount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

fn account(text: &str) -> Result<Account, String> {
    let form = || "must be NAMESPACE/NAME of a ServiceAccount".to_owned();
    let (of, name) = text.split_once('/').ok_or_else(form)?;
    let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
    let named = !name.is_empty() && name.len() <= 253 && name.bytes().all(legal);
    let of = namespace(of).map_err(|_| form())?;
    named.then(|| Account { namespace: of, name: name.to_owned() }).ok_or_else(form)
}

/// Flags of `cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Kubeconfig of the control plane; default: KUBECONFIG, ~/.kube/config, or the pod's own account
    #[arg(long, env = "KYMA_BINDINGS_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the bindings
    #[arg(long, env = "KYMA_BINDINGS_NAMESPACE", default_value = "kyma-bindings", value_parser = namespace)]
    pub namespace: String,
    /// How long the operator has to revoke them; then clusters that can't be reached are given up, 1s to 1h
    #[arg(long, default_value = "120s", value_parser = cleanup_timeout, value_name = "DURATION")]
    pub timeout: Duration,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// For which parts of the operator
    #[arg(long, env = "KYMA_BINDINGS_ROLE", default_value = "all")]
    pub role: Role,
    /// Kubeconfig of the control plane; default: KUBECONFIG, ~/.kube/config, or the pod's own account
    #[arg(long, env = "KYMA_BINDINGS_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the bindings and their Secrets
    #[arg(long, env = "KYMA_BINDINGS_NAMESPACE", default_value = "kyma-bindings", value_parser = namespace)]
    pub namespace: String,
    /// Namespace of the instances' kubeconfig Secrets and Runtimes
    #[arg(long, env = "KYMA_BINDINGS_INSTANCE_NAMESPACE", default_value = "kcp-system", value_parser = namespace)]
    pub instance_namespace: String,
    /// How long all of it may take, 1s to 10m
    #[arg(long, default_value = "30s", value_parser = check_timeout, value_name = "DURATION")]
    pub timeout: Duration,
}

fn cleanup_timeout(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=Duration::from_hours(1), "must be between 1s and 1h")
}

fn check_timeout(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=Duration::from_mins(10), "must be between 1s and 10m")
}
