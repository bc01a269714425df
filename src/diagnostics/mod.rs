//! What people run beside the operator: `check`, `cleanup` and `rbac`, and the one table of rights.

pub(crate) mod check;
pub(crate) mod cleanup;
pub(crate) mod kubeconfigs;
pub mod rbac;
pub(crate) mod report;
pub(crate) mod schema;
