//! Prometheus and its promtool, for what is said with metrics: alerts and the dashboard.

use crate::programs::{Module, Program};

/// The version in `prometheus/go.mod`, without the leading `v`; its releases call 0.316 3.16.
const VERSION: &str = "0.316.0";

const PROMETHEUS_MODULE: Module = Module {
    directory: "prometheus",
    kept: "prometheus-v0.316.0",
    // Service discovery of the clouds is most of the code.
    tags: "remove_all_sd",
    ldflags: String::new,
};

/// The server.
pub const PROMETHEUS: Program = Program {
    name: "prometheus",
    package: "github.com/prometheus/prometheus/cmd/prometheus",
    module: &PROMETHEUS_MODULE,
    version: VERSION,
    duration: "a few minutes",
    from_path: false,
};

/// What checks and tests its rules.
pub const PROMTOOL: Program = Program {
    name: "promtool",
    package: "github.com/prometheus/prometheus/cmd/promtool",
    module: &PROMETHEUS_MODULE,
    version: VERSION,
    duration: "a few minutes",
    from_path: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_go_module() {
        let module = include_str!("../prometheus/go.mod");
        assert_eq!(PROMETHEUS_MODULE.kept, format!("prometheus-v{VERSION}"));
        assert!(module.contains(&format!("github.com/prometheus/prometheus v{VERSION}\n")));
    }
}
