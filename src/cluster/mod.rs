//! One managed cluster: how to reach it, what to make and remove in it.
//!
//! A managed cluster is controlled by its owner and may lie. Every answer is bounded in size and
//! time, only the expected status counts, and no text of it goes further than this module.

pub mod access;
pub mod address;
mod cause;
pub mod client;
pub mod clients;
mod compare;
pub mod connect;
pub mod error;
pub mod inventory;
pub mod kubeconfig;
mod manifest;
pub mod ownership;
mod places;
mod proven;
pub mod repair;
pub mod token;

pub use crate::cluster::error::Failure;
pub use access::{Grant, Uids};
pub use clients::{Clients, Cluster};
pub use ownership::{ControlPlane, Owner};
