//! The operator against real clusters. All in one program: the clusters are started once and
//! shared, each test has namespaces, instances and an operator process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod alerts;
mod asynchronous;
mod auth;
mod bounds;
mod browser;
mod chart;
mod chart_golden;
mod chart_schema;
mod cleanup;
mod clocks;
mod cluster_changes;
mod contract;
mod control_plane;
mod crash;
mod crd;
mod dashboard;
mod dead_clusters;
mod docs;
mod failover;
mod http2;
mod image;
mod installed;
mod jwt;
mod kills;
mod leaks;
mod levels;
mod lifecycle;
mod limit;
mod mounted;
mod nodes;
mod osb;
mod overload;
mod ownership;
mod packaging;
mod random;
mod restart;
mod roles;
mod schemathesis;
mod sweep;
mod sweep_guards;
mod tls;
mod traces;
mod world;
