//! The `KymaBinding` resource: its types, its conditions, and every name made from a binding id.
//!
//! Nothing here holds a client or reads a clock.

pub mod binding;
pub mod conditions;
pub mod crd;
pub mod id;
pub mod issued;
pub mod names;
pub mod secret;
pub mod text;
