//! Kubernetes operator that hands out short-lived kubeconfigs for managed Kyma clusters.

mod activity;
pub mod api;
pub mod broker;
mod check;
mod cleanup;
mod clock;
pub mod config;
pub mod control_plane;
pub mod controller;
#[cfg(test)]
mod described;
mod descriptors;
pub mod direct;
mod ending;
mod failpoint;
mod following;
mod hangup;
pub mod instances;
mod lasting;
mod listen;
pub mod managed;
mod memory;
pub mod mirror;
mod outgoing;
mod packed;
mod pruned;
mod reload;
pub mod rights;
pub mod run;
pub mod secret;
mod serve;
pub mod telemetry;
mod tls;
pub mod trouble;
mod unread;
