//! What kube-score finds in the chart: all of it is meant, and `charts/README.md` says why.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;

use e2e::helm::chart;
use e2e::{WorkDir, kube_score};
use serde::Deserialize;
use tokio::process::Command;

use crate::chart::{LEAST, rendered};

/// What kube-score says of an object, without what is as it wishes.
#[derive(Deserialize)]
struct Scored {
    type_meta: TypeMeta,
    checks: Option<Vec<Scoring>>,
}

#[derive(Deserialize)]
struct TypeMeta {
    kind: String,
}

#[derive(Deserialize)]
struct Scoring {
    check: Check,
    grade: u8,
    skipped: bool,
    comments: Option<Vec<Comment>>,
}

#[derive(Deserialize)]
struct Check {
    id: String,
}

#[derive(Deserialize)]
struct Comment {
    summary: String,
}

/// Of grade 10 is what is as it should be.
const GOOD: u8 = 10;

/// Each finding, as a row of the page begins: check, kinds of objects, and what is said.
async fn findings(values: &[&str]) -> BTreeSet<String> {
    let dir = WorkDir::new("score").unwrap();
    let file = dir.path().join("rendered.yaml");
    fs::write(&file, rendered(&[&LEAST[..], values].concat()).await).unwrap();
    let mut score = Command::new(kube_score::program().await.unwrap());
    // Its list of Kubernetes' versions ends before those that the chart is for.
    score.args(["score", "--output-format", "json", "--kubernetes-version", "v1.30"]).arg(&file);
    let output = score.stdin(Stdio::null()).output().await.unwrap();
    let scored: Vec<Scored> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(scored.len() > 5, "{}", String::from_utf8_lossy(&output.stderr));
    let mut findings = BTreeMap::<_, BTreeSet<_>>::new();
    for Scored { type_meta, checks } in &scored {
        for scoring in checks.iter().flatten().filter(|of| !of.skipped && of.grade < GOOD) {
            for Comment { summary } in scoring.comments.iter().flatten() {
                findings.entry((&scoring.check.id, summary)).or_default().insert(type_meta.kind.as_str());
            }
        }
    }
    let kinds = |kinds: BTreeSet<&str>| kinds.into_iter().collect::<Vec<_>>().join(", ");
    findings.into_iter().map(|((id, said), of)| format!("| `{id}` | {} | {said} |", kinds(of))).collect()
}

/// The rows of the page, without what is said for them, and whether `networkPolicy` meets them.
fn meant() -> Vec<(String, bool)> {
    let page = fs::read_to_string(chart().join("../README.md")).unwrap();
    let table = page.split_once("| check | objects | finding | why |\n").unwrap().1;
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let rows = rows.map(|row| {
        let (finding, why) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        assert!(why.len() > 10, "{row}");
        (format!("{finding} |"), why.contains("`networkPolicy.enabled`"))
    });
    rows.collect()
}

#[tokio::test]
async fn what_kube_score_finds_is_on_the_page_and_nothing_else_is() {
    let meant = meant();
    let all: BTreeSet<_> = meant.iter().map(|(finding, _)| finding.clone()).collect();
    assert_eq!(findings(&[]).await, all);
    let policies = ["--set", "networkPolicy.enabled=true,networkPolicy.egress.enabled=true"];
    let left = meant.into_iter().filter(|(_, policy)| !policy).map(|(finding, _)| finding);
    assert_eq!(findings(&policies).await, left.collect());
}
