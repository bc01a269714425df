//! The Helm chart: what it renders, and what it refuses.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory as _;
use e2e::helm::{chart, template};
use kyma_bindings::config::{Cli, Command};
use serde_json::{Value, json};

/// The least that must be said.
pub const LEAST: [&str; 4] = [
    "--set",
    "image.repository=registry.example/kyma-bindings",
    "--set",
    "auth.methods={none},auth.allowAnonymous=true",
];

pub async fn rendered(args: &[&str]) -> String {
    let output = template(args).await.unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub async fn refusal(args: &[&str]) -> String {
    let output = template(args).await.unwrap();
    assert!(!output.status.success(), "{args:?} is accepted");
    String::from_utf8(output.stderr).unwrap()
}

fn read(path: impl Into<PathBuf>) -> String {
    let path = path.into();
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_chart_is_of_the_programs_version_and_has_its_crd() {
    let version = env!("CARGO_PKG_VERSION");
    let description = read(chart().join("Chart.yaml"));
    assert!(description.contains(&format!("\nversion: {version}\nappVersion: {version}\n")), "{description}");
    assert_eq!(read(chart().join("files/crd.yaml")), read(chart().join("../../crds/kymabindings.yaml")));
}

#[tokio::test]
async fn the_crd_can_be_kept_left_out_and_removed() {
    let crd = read(chart().join("files/crd.yaml"));
    let removed = rendered(&[&LEAST[..], &["--set", "crds.keep=false"]].concat()).await;
    assert!(removed.contains(crd.trim()), "the CRD as it is");
    let kept = rendered(&LEAST).await;
    assert!(kept.contains("    helm.sh/resource-policy: keep\n  labels:\n    servicebinding.io"), "{kept}");
    let without = rendered(&[&LEAST[..], &["--set", "crds.install=false"]].concat()).await;
    assert!(!without.contains("CustomResourceDefinition"));
}

#[tokio::test]
async fn what_would_let_strangers_in_or_cannot_work_is_refused() {
    let image = ["--set", "image.repository=r.example/i"];
    for (values, message) in [
        ("image.tag=x", "auth.methods must be set"),
        ("auth.methods={none}", "set auth.allowAnonymous=true if that is meant"),
        ("auth.methods={none,basic}", "none must be the only one"),
        (
            "auth.methods={none},auth.allowAnonymous=true,config.leaderElect=false",
            "config.leaderElect=false is for one process alone: set controller.replicas=1",
        ),
        ("auth.methods={basic}", "auth.basic.existingSecret must be set"),
        ("auth.methods={basic},auth.basic.existingSecret=s", "set tls.existingSecret, or"),
        (
            "auth.methods={none},auth.allowAnonymous=true,tls.existingSecret=s,tls.certManager.enabled=true",
            "existingSecret or certManager.enabled, not both",
        ),
        (
            "auth.methods={none},auth.allowAnonymous=true,tls.certManager.enabled=true",
            "tls.certManager.issuerRef.name must be set",
        ),
        (
            "auth.methods={none},auth.allowAnonymous=true,httpRoute.enabled=true",
            "httpRoute.parentRefs must be set",
        ),
        (
            "auth.methods={none},auth.allowAnonymous=true,istio.enabled=true",
            "istio.virtualService.domain must be set",
        ),
        (
            "auth.methods={none},auth.allowAnonymous=true,istio.enabled=true,tls.existingSecret=s",
            "leave TLS to the mesh",
        ),
        ("auth.methods={jwt}", "auth.jwt.issuer and auth.jwt.audience must be set"),
        (
            "auth.methods={none},auth.allowAnonymous=true,podDisruptionBudget.minAvailable=1",
            "minAvailable or maxUnavailable",
        ),
        ("auth.methods={none},auth.allowAnonymous=true,image.repository=", "image.repository must be set"),
    ] {
        let refused = refusal(&[&image[..], &["--set", values]].concat()).await;
        assert!(refused.contains(message), "{values}: {message} is not in: {refused}");
    }
}

/// Flags that no value of `config` sets, and why.
const OTHERWISE: [(&str, &str); 16] = [
    ("role", "which Deployment it is"),
    ("kubeconfig", "the pod's own account"),
    ("listen", "the Service's port leads to it"),
    ("admin-listen", "the probes' port"),
    ("namespace", "config.namespace, or the release's"),
    ("auth", "auth.methods"),
    ("allow-anonymous", "auth.allowAnonymous"),
    ("htpasswd-file", "auth.basic.existingSecret"),
    ("allow-basic-without-tls", "auth.basic.allowWithoutTls"),
    ("jwt-issuer", "auth.jwt.issuer"),
    ("jwt-audience", "auth.jwt.audience"),
    ("jwt-scope", "auth.jwt.scope"),
    ("jwt-jwks-file", "auth.jwt.jwksExistingSecret"),
    ("jwt-ca-file", "auth.jwt.caExistingSecret"),
    ("catalog", "catalog"),
    ("tls-cert", "tls.existingSecret"),
];

#[tokio::test]
async fn each_flag_has_a_value_with_the_programs_default() {
    let rendered = rendered(&LEAST).await;
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    for flag in run.get_arguments() {
        let Some(name) = flag.get_long() else { continue };
        if name == "help" || name == "tls-key" || OTHERWISE.iter().any(|(other, _)| *other == name) {
            continue;
        }
        let default = flag.get_default_values().first().unwrap_or_else(|| panic!("--{name} has no value"));
        let default = if name == "log-format" { "json" } else { default.to_str().unwrap() };
        let line = format!("- \"--{name}={default}\"\n");
        assert!(rendered.contains(&line), "{line} is not in: {rendered}");
    }
}

#[tokio::test]
async fn the_program_takes_the_arguments_that_are_rendered() {
    for values in fs::read_dir(chart().join("ci")).unwrap() {
        let rendered = rendered(&["--values", values.unwrap().path().to_str().unwrap()]).await;
        let mut pods = 0;
        for pod in rendered.split("\n          args:\n").skip(1) {
            let args = pod.lines().map_while(|line| line.strip_prefix("            - "));
            let args = args.map(|arg| arg.trim_matches('"'));
            let cli = <Cli as clap::Parser>::try_parse_from(["kyma-bindings"].into_iter().chain(args));
            let Command::Run(run) = cli.unwrap().command else { panic!("not run") };
            run.check().unwrap();
            pods += 1;
        }
        assert_eq!(pods, rendered.matches("kind: Deployment\n").count(), "{rendered}");
    }
}

#[tokio::test]
async fn the_program_takes_the_arguments_of_the_cleanup() {
    let rendered = rendered(&LEAST).await;
    let args = rendered.split_once("args: [cleanup, ").unwrap().1.split_once(']').unwrap().0;
    let args = args.split(", ").map(|arg| arg.trim_matches('"'));
    let cli = <Cli as clap::Parser>::try_parse_from(["kyma-bindings", "cleanup"].into_iter().chain(args));
    let Command::Cleanup(cleanup) = cli.unwrap().command else { panic!("not cleanup") };
    assert_eq!((cleanup.namespace.as_str(), cleanup.timeout.as_secs()), ("kyma-bindings", 120));
}

/// The objects of one kind.
pub fn objects(rendered: &str, kind: &str) -> Vec<Value> {
    let objects = rendered.split("\n---\n").filter(|object| object.contains(&format!("\nkind: {kind}\n")));
    objects.map(|object| serde_saphyr::from_str(object).unwrap()).collect()
}

#[tokio::test]
async fn alerts_and_dashboard_are_installed_as_they_are() {
    assert!(objects(&rendered(&LEAST).await, "PrometheusRule").is_empty(), "not unless it is asked for");
    let base = "https://runbooks.example/kb/";
    let on = format!(
        "metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true,metrics.prometheusRule.runbookBaseUrl={base}"
    );
    let rendered = rendered(&[&LEAST[..], &["--set", &on]].concat()).await;
    let alerts = read(chart().join("files/alerts.yaml"));
    let expected: Value = serde_saphyr::from_str(&alerts.replace("docs/runbooks/", base)).unwrap();
    let rules = objects(&rendered, "PrometheusRule");
    assert_eq!(rules.iter().map(|rule| &rule["spec"]).collect::<Vec<_>>(), [&expected]);
    let alerts = expected["groups"][0]["rules"].as_array().unwrap();
    for alert in alerts {
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.starts_with(base) && !url[base.len()..].contains('/'), "{url}");
    }
    let dashboards = objects(&rendered, "ConfigMap");
    let [dashboard] = &dashboards[..] else { panic!("{dashboards:?}") };
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let json = dashboard["data"]["kb-kyma-bindings.json"].as_str().unwrap();
    assert_eq!(json, read(chart().join("files/dashboard.json")));
}

#[tokio::test]
async fn what_goes_out_is_narrowed_only_on_demand_and_to_what_is_needed() {
    let policies =
        async |set: &str| objects(&rendered(&[&LEAST[..], &["--set", set]].concat()).await, "NetworkPolicy");
    assert!(policies("networkPolicy.enabled=false").await.is_empty());
    let ingress = policies("networkPolicy.enabled=true").await;
    assert_eq!(ingress.iter().map(|p| &p["spec"]["policyTypes"][0]).collect::<Vec<_>>(), ["Ingress"]);
    let egress = policies("networkPolicy.egress.enabled=true").await;
    let [egress] = &egress[..] else { panic!("{egress:?}") };
    let port = |port: u16, protocol: &str| json!({"port": port, "protocol": protocol});
    let dns = [port(53, "UDP"), port(53, "TCP"), port(8053, "UDP"), port(8053, "TCP")];
    let apis = [port(443, "TCP"), port(6443, "TCP")];
    let expected = json!({
        "podSelector": ingress[0]["spec"]["podSelector"], "policyTypes": ["Egress"],
        "egress": [{"ports": dns}, {"ports": apis}],
    });
    assert_eq!(egress["spec"], expected);
}

#[tokio::test]
async fn one_value_moves_the_image_to_a_mirror_and_none_moves_it_twice() {
    let open = "auth.methods={none},auth.allowAnonymous=true";
    let mirror = "global.images.container_registry.path=mirror.example/kyma";
    let version = env!("CARGO_PKG_VERSION");
    let release = "global.images.kyma_bindings.dir=prod,global.images.kyma_bindings.version=9.8.7";
    let digest = format!("sha256:{}", "0a".repeat(32));
    for (values, image) in [
        (mirror.to_owned(), format!("mirror.example/kyma/kyma-bindings:{version}")),
        (format!("{mirror},{release}"), "mirror.example/kyma/prod/kyma-bindings:9.8.7".to_owned()),
        (format!("{mirror},{release},image.tag=v1"), "mirror.example/kyma/prod/kyma-bindings:v1".to_owned()),
        (format!("{mirror},image.repository=own.example/kb"), format!("own.example/kb:{version}")),
        (
            format!("{mirror},image.digest={digest}"),
            format!("mirror.example/kyma/kyma-bindings:{version}@{digest}"),
        ),
    ] {
        let rendered = rendered(&["--set", open, "--set", &values]).await;
        let images: Vec<_> =
            rendered.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
        // Of both Deployments, of the cleanup and of both checks.
        assert_eq!(images, [&image; 5], "{values}");
    }
}
