//! Kubernetes operator that hands out short-lived kubeconfigs for managed Kyma clusters.

pub mod api;
pub mod controller;
pub mod instances;
pub mod managed;
pub mod secret;
pub mod telemetry;
