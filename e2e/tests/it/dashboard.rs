//! The dashboard: each of its queries shows something in a real Prometheus that scrapes a real operator.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, ensure};
use e2e::pki::Pki;
use e2e::prometheus::PROMETHEUS;
use e2e::stage::SOON;
use e2e::{ManagedProcess, Osb, WorkDir, eventually};
use reqwest::{Client, Url};
use serde_json::Value;

use crate::alerts::{file, unknown};
use crate::auth::htpasswd;
use crate::mounted::Mounted;
use crate::tls::{files, with_tls};
use crate::world::stage;

/// Title of each panel, with its queries.
fn queries() -> Vec<(String, String)> {
    let dashboard = fs::read_to_string(file("charts/kyma-bindings/files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    queries
}

#[test]
fn it_uses_metrics_that_exist() {
    for (title, query) in queries() {
        assert!(query.contains("kyma_bindings_"), "{title} asks for nothing of ours");
        assert_eq!(unknown(&query), [""; 0], "{title}");
    }
}

/// A Prometheus that scrapes one target each second.
struct Prometheus {
    process: ManagedProcess,
    http: Client,
    url: String,
}

impl Prometheus {
    async fn start(target: &str) -> Self {
        let program = PROMETHEUS.find_or_build().await.unwrap();
        let dir = Arc::new(WorkDir::new("prometheus").unwrap());
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n\
             - job_name: kyma-bindings\n  \
               static_configs: [{{targets: ['{target}'], labels: {{namespace: e2e}}}}]\n"
        );
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("--web.listen-address=127.0.0.1:0");
        for (flag, name) in [("config.file", "prometheus.yml"), ("storage.tsdb.path", "data")] {
            command.arg(format!("--{flag}={}", dir.path().join(name).display()));
        }
        let process = ManagedProcess::spawn("prometheus", &command, &dir).unwrap();
        let url = eventually("Prometheus to listen", SOON, async || {
            let log = process.log();
            let address = log
                .lines()
                .find_map(|line| line.split_once("msg=\"Listening on\"")?.1.split_once("address="));
            let address =
                address.map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default().to_owned());
            address.map(|address| format!("http://{address}")).ok_or_else(|| process.log_tail(5))
        })
        .await
        .unwrap();
        Self { process, http: Client::builder().no_proxy().build().unwrap(), url }
    }

    /// How many series a query gives.
    async fn series(&self, query: &str) -> anyhow::Result<usize> {
        let url = Url::parse_with_params(&format!("{}/api/v1/query", self.url), [("query", query)])?;
        let answer: Value = self.http.get(url).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{answer}\n{}", self.process.log_tail(3));
        Ok(answer["data"]["result"].as_array().context("no list")?.len())
    }
}

#[tokio::test]
async fn each_query_shows_something() {
    let (stage, instance) = stage("dashboard").await;
    let pki = Pki::generate("front").unwrap();
    let identity = pki.server().unwrap();
    let users = htpasswd(&[("user", "right")]);
    let mounted = Mounted::new(&[&files(&identity)[..], &[("users", users.as_str())]].concat());
    let path = mounted.path("users");
    let args = [
        "--auth",
        "basic",
        "--htpasswd-file",
        &path,
        "--max-bindings-per-instance",
        "1",
        "--sweep-interval",
        "2s",
    ];
    let operator = with_tls(&stage, &mounted, &args).await;
    let prometheus = Prometheus::start(operator.admin_url().strip_prefix("http://").unwrap()).await;

    let osb = || Osb::trusting(operator.url(), pki.ca_pem()).unwrap();
    let wrong = osb().with_basic("user", "wrong").bind(&instance, "dashboard-1", None).await.unwrap();
    assert_eq!(wrong.status, 401);
    let osb = osb().with_basic("user", "right");
    for (binding, status) in [("dashboard-1", 201), ("dashboard-2", 400)] {
        assert_eq!(osb.bind(&instance, binding, None).await.unwrap().status, status);
    }
    assert_eq!(osb.unbind(&instance, "dashboard-1").await.unwrap().status, 200);

    for (title, query) in queries() {
        let query = query.replace("$__rate_interval", "1m").replace("$namespace", ".*");
        eventually(&format!("{title} to show something"), SOON, async || {
            let series = prometheus.series(&query).await?;
            if series > 0 { Ok(()) } else { Err(anyhow!("{query} gives nothing")) }
        })
        .await
        .unwrap();
    }
    // What was done, and nothing else, is counted.
    for count in [
        r#"kyma_bindings_binds_total{result="issued"} == 1"#,
        r#"kyma_bindings_binds_total{result="rejected"} == 1"#,
        r#"kyma_bindings_unbinds_total{result="removed"} >= 1"#,
        "kyma_bindings_limit_rejections_total == 1",
        "kyma_bindings_leader == 1",
        "kyma_bindings_managed_cluster_clients == 1",
        r#"kyma_bindings_managed_cluster_client_lookups_total{result="miss"} == 1"#,
        r#"kyma_bindings_bind_phase_duration_seconds_count{phase="status"} == 1"#,
        // It was unbound before its end.
        "kyma_bindings_expiry_lag_seconds_count == 0",
        "kyma_bindings_tls_certificate_expiry_timestamp_seconds > time()",
    ] {
        assert_eq!(prometheus.series(count).await.unwrap(), 1, "{count}");
    }
    // It tells a query that gives nothing, and one that is none.
    assert_eq!(prometheus.series("kyma_bindings_nothing").await.unwrap(), 0);
    prometheus.series("sum by (").await.unwrap_err();
    assert!(operator.runs());
}
