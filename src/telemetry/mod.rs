//! Logs, metrics and probes.

pub mod admin;
pub mod logs;
pub mod metrics;
pub mod watch;
