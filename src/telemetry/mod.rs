//! Logs, metrics, traces and probes.

pub mod admin;
pub mod identity;
pub mod logs;
pub mod metrics;
pub mod tasks;
pub mod throttle;
pub mod traces;
