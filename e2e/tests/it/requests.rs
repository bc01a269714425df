//! What is asked of the API servers, request by request: the contract that keeps the road short.
//!
//! The lists are literal here, the same as in docs/performance.md, and compared with the audit logs.
//! The clusters are of this test alone, and the operator is a user of its own in both.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::stage::{SOON, install_crd, install_runtime_crd, prepare_managed};
use e2e::{Cluster, ClusterOptions, Operator, Rights, Stage, eventually};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::program;

/// Whom the operator is in both clusters.
const USER: &str = "asked-operator";
/// What it calls itself, for whoever reads the audit logs.
const AGENT: &str = concat!("kyma-bindings/", env!("CARGO_PKG_VERSION"));
/// How long it is watched at rest.
const REST: Duration = Duration::from_mins(1);
/// How often the lease is renewed, by default.
const RENEWAL: Duration = Duration::from_secs(2);

struct Asked {
    what: &'static str,
    control: &'static [&'static str],
    managed: &'static [&'static str],
}

const START: Asked = Asked {
    what: "start",
    control: &[
        "get namespaces",
        "get namespaces",
        "get leases",
        "create leases",
        "watch kymabindings",
        "watch secrets",
        "watch secrets",
        "get /apis/infrastructuremanager.kyma-project.io/v1",
        "list runtimes",
        "watch runtimes",
    ],
    managed: &[],
};

/// The client of its cluster is made.
const FIRST: Asked = Asked {
    what: "the first bind on a cluster: PUT, 201",
    control: &["create kymabindings", "get secrets", "create secrets", "update kymabindings/status"],
    managed: &[
        "get namespaces",
        "create serviceaccounts",
        "create clusterroles",
        "create clusterrolebindings",
        "create serviceaccounts/token",
        "create tokenreviews",
    ],
};

const BIND: Asked = Asked {
    what: "bind: PUT, 201",
    control: &["create kymabindings", "create secrets", "update kymabindings/status"],
    managed: MADE,
};

/// The broker must read what another process has written.
const APART: Asked = Asked {
    what: "bind, broker and controller apart: PUT, 201",
    control: &["create kymabindings", "create secrets", "update kymabindings/status", "get secrets"],
    managed: MADE,
};

const MADE: &[&str] = &[
    "create serviceaccounts",
    "create clusterroles",
    "create clusterrolebindings",
    "create serviceaccounts/token",
];

const REPEATED: Asked = Asked { what: "the same PUT again, 200", control: &["get secrets"], managed: &[] };

const FETCH: Asked = Asked { what: "fetch: GET, 200", control: &["get secrets"], managed: &[] };

const UNBIND: Asked = Asked {
    what: "unbind: DELETE, 200",
    control: &["delete kymabindings", "delete secrets", "patch kymabindings"],
    managed: &["delete serviceaccounts", "delete clusterroles", "delete clusterrolebindings"],
};

const EXPIRY: Asked = Asked {
    what: "expiry",
    control: &["delete kymabindings", "delete secrets", "patch kymabindings"],
    managed: &["delete serviceaccounts", "delete clusterroles", "delete clusterrolebindings"],
};

/// The lease is counted by its rate.
const IDLE: Asked =
    Asked { what: "at rest, each 2 s, whatever it holds", control: &["update leases"], managed: &[] };

const ALL: [Asked; 9] = [START, FIRST, BIND, APART, REPEATED, FETCH, UNBIND, EXPIRY, IDLE];

type Counts = BTreeMap<String, usize>;

fn counts(requests: &[&str]) -> Counts {
    let mut counts = Counts::new();
    for request in requests {
        *counts.entry((*request).to_owned()).or_default() += 1;
    }
    counts
}

/// What the operator has asked of a cluster since its start. A watch counts from its beginning.
fn asked_of(log: &Path) -> Counts {
    let mut counts = Counts::new();
    let text = std::fs::read_to_string(log).unwrap();
    // The last line may be half-written.
    for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let verb = event["verb"].as_str().unwrap_or_default();
        let begun = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        // The question whether a binding could be made at this moment; see [`tried`].
        let is_trial = event["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun=All"));
        if event["user"]["username"] == USER && event["stage"] == begun && !is_trial {
            assert_eq!(event["userAgent"], AGENT);
            let object = &event["objectRef"];
            // What is no resource is named by its path.
            let what = object["resource"].as_str().or(event["requestURI"].as_str()).unwrap_or_default();
            let mut request = format!("{verb} {what}");
            if let Some(subresource) = object["subresource"].as_str() {
                write!(request, "/{subresource}").unwrap();
            }
            *counts.entry(request).or_default() += 1;
        }
    }
    counts
}

/// How often it was tried whether a binding could be made.
fn tried(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let trials = events.filter(|event| {
        let of_bindings = event["objectRef"]["resource"] == "kymabindings" && event["verb"] == "create";
        let dry = event["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun=All"));
        of_bindings && dry && event["user"]["username"] == USER && event["stage"] == "ResponseComplete"
    });
    trials.count()
}

/// What is in `now` and wasn't in `before`.
fn since(now: &Counts, before: &Counts) -> Counts {
    let more = |(request, count): (&String, &usize)| {
        let more = count - before.get(request).copied().unwrap_or_default();
        (more > 0).then(|| (request.clone(), more))
    };
    now.iter().filter_map(more).collect()
}

/// Both clusters, and what was asked of them up to the last look.
struct Book {
    logs: [PathBuf; 2],
    before: [Counts; 2],
}

impl Book {
    fn read(&self) -> [Counts; 2] {
        [asked_of(&self.logs[0]), asked_of(&self.logs[1])]
    }

    /// What was asked since the last look, without the renewals of the lease.
    fn news(&self) -> [Counts; 2] {
        let now = self.read();
        let mut news = [since(&now[0], &self.before[0]), since(&now[1], &self.before[1])];
        news[0].remove("update leases");
        news
    }

    /// Exactly this has been asked since the last look: a request that comes later is in the next one.
    async fn compare(&mut self, expected: &Asked) -> Result<()> {
        let wanted = [counts(expected.control), counts(expected.managed)];
        eventually(expected.what, SOON, async || {
            let news = self.news();
            ensure!(news == wanted, "asked of control plane and managed cluster: {news:#?}");
            Ok(())
        })
        .await?;
        self.before = self.read();
        Ok(())
    }

    /// Passes over a start and a first bind, which end with that request of the control plane for that time.
    async fn skip_to(&mut self, last: &str, times: usize) -> Result<()> {
        eventually(last, SOON, async || {
            let asked = self.news()[0].get(last).copied();
            ensure!(asked == Some(times), "asked {asked:?} times");
            Ok(())
        })
        .await?;
        self.before = self.read();
        Ok(())
    }
}

#[tokio::test]
async fn nothing_is_asked_but_what_is_written_down() {
    let options = ClusterOptions { audit: true };
    let (control, managed) = tokio::try_join!(
        Cluster::start_with("asked-control", options),
        Cluster::start_with("asked-managed", options)
    )
    .unwrap();
    install_crd(&control).await.unwrap();
    install_runtime_crd(&control).await.unwrap();
    prepare_managed(&managed).await.unwrap();
    follow(&control, &managed).await.unwrap();
}

async fn follow(control: &Cluster, managed: &Cluster) -> Result<()> {
    let logs = [control, managed].map(|cluster| cluster.audit_log_path().unwrap());
    let mut book = Book { logs, before: Default::default() };
    let stage = Stage::new(control, "asked").await?;
    let rights = Rights::new(&stage, USER);
    rights.grant().await?;
    let kubeconfig = rights.kubeconfig("operator.kubeconfig", None)?;
    // Known before the start, so that its turn to be swept is hours away.
    stage.runtime("i-asked", "r-asked", json!({"state": "Ready", "provisioningCompleted": true})).await?;
    stage.register("i-asked", "r-asked", &managed.kubeconfig_for(USER, &["system:masters"])?).await?;
    let args = [&stage.args()[..], &["--lease-duration", "15s", "--sweep-interval", "24h"]].concat();
    let operator = Operator::start(program(), &kubeconfig, &args).await?;
    let osb = operator.osb();
    book.compare(&START).await?;

    ensure!(osb.bind("i-asked", "asked-0", None).await?.status == 201);
    book.compare(&FIRST).await?;
    ensure!(osb.bind("i-asked", "asked-1", None).await?.status == 201);
    book.compare(&BIND).await?;
    ensure!(osb.bind("i-asked", "asked-1", None).await?.status == 200);
    book.compare(&REPEATED).await?;
    ensure!(osb.fetch("i-asked", "asked-1").await?.status == 200);
    book.compare(&FETCH).await?;
    ensure!(osb.unbind("i-asked", "asked-1").await?.status == 200);
    book.compare(&UNBIND).await?;

    ensure!(osb.bind("i-asked", "asked-2", None).await?.status == 201);
    book.compare(&BIND).await?;
    let past = Timestamp::now() - SignedDuration::from_secs(1);
    let patch = Patch::Merge(json!({"status": {"expiresAt": past}}));
    stage.bindings().patch_status("asked-2", &PatchParams::default(), &patch).await?;
    book.compare(&EXPIRY).await?;

    // Some that live on: what is at rest must not depend on them.
    for name in ["asked-3", "asked-4"] {
        ensure!(osb.bind("i-asked", name, None).await?.status == 201);
        book.compare(&BIND).await?;
    }
    let (before, tried_before) = (book.read(), tried(&book.logs[0]));
    tokio::time::sleep(REST).await;
    let now = book.read();
    let tried = tried(&book.logs[0]) - tried_before;
    ensure!((4..=7).contains(&tried), "tried {tried} times in {REST:?}");
    let mut asked = [since(&now[0], &before[0]), since(&now[1], &before[1])];
    let renewals = asked[0].remove(IDLE.control[0]).unwrap_or_default();
    ensure!(asked.iter().all(Counts::is_empty), "asked at rest: {asked:#?}");
    let most = usize::try_from(REST.as_secs() / RENEWAL.as_secs())? + 1;
    ensure!((1..=most).contains(&renewals), "the lease was renewed {renewals} times in {REST:?}");
    operator.terminate().await?;

    let start =
        async |role| Operator::start(program(), &kubeconfig, &[&args[..], &["--role", role]].concat()).await;
    let (controller, broker) = (start("controller").await?, start("broker").await?);
    eventually("a leader", SOON, async || if controller.leads().await { Ok(()) } else { Err("not yet") })
        .await?;
    ensure!(broker.osb().bind("i-asked", "asked-5", None).await?.status == 201);
    book.skip_to("get secrets", 2).await?;
    ensure!(broker.osb().bind("i-asked", "asked-6", None).await?.status == 201);
    book.compare(&APART).await?;
    futures::try_join!(controller.terminate(), broker.terminate())?;
    Ok(())
}

#[test]
fn the_page_says_the_same() {
    let mut table = String::from("| what | control plane | managed cluster |\n| --- | --- | --- |\n");
    let list = |requests: &[&str]| {
        let quoted: Vec<_> = requests.iter().map(|request| format!("`{request}`")).collect();
        if quoted.is_empty() { String::from("nothing") } else { quoted.join(", ") }
    };
    for Asked { what, control, managed } in ALL {
        writeln!(table, "| {what} | {} | {} |", list(control), list(managed)).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page.contains(&table), "docs/performance.md has another table than:\n{table}");
}
