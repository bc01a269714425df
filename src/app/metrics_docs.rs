//! The page of all metrics, which is made from what is declared.

use std::fmt::Write as _;
use std::path::Path;

use crate::store::metrics;
use crate::telemetry::metrics::{Described, Metrics};
use crate::telemetry::tasks;

const HEAD: &str = "# Metrics

`GET /metrics` on `--admin-listen` gives these, in the OpenMetrics text format, without authentication. Times are in seconds.
No label has a value that somebody else chooses: ids of bindings and instances are in the log. Those of the reconciles are
written by the leader, those of HTTP by whoever serves it.

Made from the code: `UPDATE=1 cargo test --lib metrics_docs` writes this page.

| metric | type | labels | what it tells |
| --- | --- | --- | --- |
";

fn page() -> String {
    let mut described = Metrics::default().described();
    described.extend(metrics::DESCRIBED);
    described.extend(tasks::DESCRIBED);
    described.sort_by_key(Described::full_name);
    let mut page = HEAD.to_owned();
    for metric in described {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, help) = (metric.full_name(), metric.kind.as_str(), metric.help);
        writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(" ")).unwrap();
    }
    page
}

#[test]
fn the_page_is_what_the_code_declares() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page(), "docs/metrics.md is not up to date: UPDATE=1 cargo test --lib metrics_docs");
}

#[test]
fn names_are_those_of_prometheus() {
    for metric in Metrics::default().described() {
        let (name, kind) = (metric.name, metric.kind.as_str());
        assert!(!name.ends_with("_total"), "{name}: the type adds it");
        assert_eq!(
            kind == "histogram",
            name.ends_with("_seconds") && !name.ends_with("timestamp_seconds"),
            "{name}"
        );
        assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{name}: {}", metric.help);
    }
}
