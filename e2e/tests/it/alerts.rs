//! The alerts: each has its runbook, is made of metrics that exist, and fires when it should.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::prometheus::PROMTOOL;
use serde_json::Value;

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The metrics in an expression that the page of metrics doesn't have.
pub fn unknown(expression: &str) -> Vec<String> {
    let page = fs::read_to_string(file("docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let mut names = BTreeSet::new();
    for (name, rest) in rows {
        if rest.starts_with("histogram") {
            names.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")));
        } else {
            names.insert(name.to_owned());
        }
    }
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let used = words.filter(|word| word.starts_with("kyma_bindings_"));
    used.filter(|word| !names.contains(*word)).map(str::to_owned).collect()
}

#[test]
fn each_has_its_runbook_and_uses_metrics_that_exist() {
    let rules = fs::read_to_string(file("charts/kyma-bindings/files/alerts.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&rules).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let mut runbooks = BTreeSet::new();
    for rule in rules {
        let (alert, expression) = (&rule["alert"], rule["expr"].as_str().unwrap());
        assert!(expression.contains("kyma_bindings_"), "{alert} asks for nothing of ours");
        assert_eq!(unknown(expression), [""; 0], "{alert}");
        let runbook = rule["annotations"]["runbook_url"].as_str().unwrap();
        let text = fs::read_to_string(file(runbook)).unwrap_or_else(|e| panic!("{alert}: {runbook}: {e}"));
        assert!(text.contains(&format!("`{}`", alert.as_str().unwrap())), "{runbook} doesn't name {alert}");
        let headings: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(headings, ["Symptom", "Condition and log", "Likely cause", "Actions", "Verification"]);
        let (_, actions) = text.split_once("## Actions\n").unwrap();
        let (first, _) = actions.split_once("\n2. ").unwrap();
        assert!(
            first.starts_with("1. ") && first.contains("kyma-bindings check"),
            "{runbook} begins with {first}"
        );
        runbooks.insert(file(runbook));
    }
    let pages = fs::read_dir(file("docs/runbooks")).unwrap().map(|page| page.unwrap().path());
    assert_eq!(pages.collect::<BTreeSet<_>>(), runbooks, "a runbook has no alert");
}

#[test]
fn a_metric_that_is_not_there_is_found() {
    let expression =
        "rate(kyma_bindings_binds_total[1m]) + kyma_bindings_binds + kyma_bindings_expiry_lag_seconds";
    assert_eq!(unknown(expression), ["kyma_bindings_binds", "kyma_bindings_expiry_lag_seconds"]);
}

#[tokio::test]
async fn each_fires_when_it_should() {
    let promtool = PROMTOOL.find_or_build().await.unwrap();
    let tests = file("charts/kyma-bindings/tests/alerts_test.yaml");
    let text = fs::read_to_string(&tests).unwrap();
    let rules = fs::read_to_string(file("charts/kyma-bindings/files/alerts.yaml")).unwrap();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(text.contains(&format!("alertname: {alert}\n")), "{alert} is tested by nothing");
    }
    let done = Command::new(promtool).args(["test", "rules"]).arg(&tests).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
}
