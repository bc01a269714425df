//! The control plane as any client of Kubernetes sees it: clients, watches, the Lease, and why a call failed.

pub mod client;
pub mod direct;
pub mod error;
pub mod fence;
pub mod lease;
pub mod objects;
pub(crate) mod pruned;
pub(crate) mod retry;
pub mod trial;
pub(crate) mod watch;
