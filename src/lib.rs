//! Kubernetes operator that hands out short-lived kubeconfigs for managed Kyma clusters.

pub mod api;
pub mod app;
pub mod broker;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod diagnostics;
pub mod instances;
pub mod kubernetes;
mod server;
pub mod store;
pub mod support;
pub mod telemetry;
