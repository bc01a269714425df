//! The Helm chart: what it renders, and what it refuses.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory as _;
use e2e::helm::{chart, template};
use kyma_bindings::cli::{Cli, Command};
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
    ("listen", "listen.address and listen.port"),
    ("admin-listen", "listen.address and listen.adminPort"),
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
        let template = |object: Value| object["spec"]["template"].clone();
        for pod in objects(&rendered, "Deployment").into_iter().map(template) {
            let Command::Run(run) = command_line(&pod) else { panic!("not run") };
            run.check().unwrap();
        }
        for pod in objects(&rendered, "Job").into_iter().map(template).chain(objects(&rendered, "Pod")) {
            assert!(matches!(command_line(&pod), Command::Check(_) | Command::Cleanup(_)), "{pod}");
        }
    }
}

/// What a container of the chart would run as.
pub fn command_line(pod: &Value) -> Command {
    let args =
        pod["spec"]["containers"][0]["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    <Cli as clap::Parser>::try_parse_from(["kyma-bindings"].into_iter().chain(args)).unwrap().command
}

#[tokio::test]
async fn whatever_the_chart_says_can_be_said_again() {
    let set = "listen.address=10.0.0.7,listen.port=1080,extraArgs={--log-level=warn,--namespace=a},\
               broker.extraArgs={--namespace=b,--admin-listen=127.0.0.1:1},controller.extraArgs={--leader-elect=false}";
    let rendered = rendered(&[&LEAST[..], &["--set", set]].concat()).await;
    let pods = objects(&rendered, "Deployment").into_iter().map(|pod| pod["spec"]["template"].clone());
    let runs = pods.map(|pod| match command_line(&pod) {
        Command::Run(run) => run,
        other => panic!("{other:?}"),
    });
    let runs: Vec<_> = runs.collect();
    let [broker, controller] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!((broker.namespace.as_str(), controller.namespace.as_str()), ("b", "a"));
    assert_eq!((broker.listen.to_string().as_str(), broker.admin_listen.port()), ("10.0.0.7:1080", 1));
    assert_eq!(controller.admin_listen.to_string(), "10.0.0.7:9090");
    assert!(broker.leader_elect && !controller.leader_elect);
    assert_eq!(broker.log_level.as_str(), "WARN");
}

#[tokio::test]
async fn by_default_both_families_of_addresses_are_listened_on_and_ports_are_the_same_everywhere() {
    let set = "listen.port=1080,listen.adminPort=1090,networkPolicy.enabled=true";
    let rendered = rendered(&[&LEAST[..], &["--set", set]].concat()).await;
    let broker = objects(&rendered, "Deployment")[0]["spec"]["template"].clone();
    let Command::Run(run) = command_line(&broker) else { panic!("not run") };
    assert_eq!(
        (run.listen.to_string().as_str(), run.admin_listen.to_string().as_str()),
        ("[::]:1080", "[::]:1090")
    );
    let ports = broker["spec"]["containers"][0]["ports"].clone();
    assert_eq!(
        ports,
        json!([{"name": "http", "containerPort": 1080}, {"name": "admin", "containerPort": 1090}])
    );
    let ingress = &objects(&rendered, "NetworkPolicy")[0]["spec"]["ingress"];
    assert_eq!(
        (&ingress[0]["ports"][0]["port"], &ingress[1]["ports"][0]["port"]),
        (&json!(1080), &json!(1090))
    );
}

#[tokio::test]
async fn replicas_can_be_left_to_an_autoscaler() {
    let set = "broker.replicas=null,controller.replicas=null";
    for pod in objects(&rendered(&[&LEAST[..], &["--set", set]].concat()).await, "Deployment") {
        assert!(pod["spec"].get("replicas").is_none(), "{pod}");
    }
}

#[tokio::test]
async fn a_probe_asks_in_one_way() {
    for (set, asks) in [
        ("periodSeconds=7", json!({"httpGet": {"path": "/livez", "port": "admin"}})),
        ("httpGet.path=/other", json!({"httpGet": {"path": "/other", "port": "admin"}})),
        ("tcpSocket.port=admin", json!({"tcpSocket": {"port": "admin"}})),
        ("grpc.port=1", json!({"grpc": {"port": 1}})),
        ("exec.command={a}", json!({"exec": {"command": ["a"]}})),
    ] {
        let set = format!("livenessProbe.{set}");
        for pod in objects(&rendered(&[&LEAST[..], &["--set", &set]].concat()).await, "Deployment") {
            let mut probe = pod["spec"]["template"]["spec"]["containers"][0]["livenessProbe"].clone();
            probe
                .as_object_mut()
                .unwrap()
                .retain(|key, _| !["periodSeconds", "failureThreshold"].contains(&&**key));
            assert_eq!(probe, asks, "{set}");
        }
    }
}

#[tokio::test]
async fn a_label_that_is_said_twice_is_there_once_and_no_selector_can_be_misled() {
    let set = "commonLabels.team=a,podLabels.team=b,service.labels.team=c,serviceAccount.labels.team=d,\
               commonLabels.app\\.kubernetes\\.io/name=x,podLabels.app\\.kubernetes\\.io/component=x";
    let rendered = rendered(&[&LEAST[..], &["--set", set]].concat()).await;
    // A key that is there twice would not be read.
    let team = |object: &Value| object["metadata"]["labels"]["team"].as_str().unwrap().to_owned();
    assert_eq!(team(&objects(&rendered, "ServiceAccount")[0]), "d");
    assert_eq!(team(&objects(&rendered, "Service")[0]), "c");
    for deployment in objects(&rendered, "Deployment") {
        assert_eq!(
            (team(&deployment), team(&deployment["spec"]["template"])),
            ("a".to_owned(), "b".to_owned())
        );
        let labels = deployment["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
        for (key, value) in deployment["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(labels.get(key), Some(value));
        }
    }
}

#[tokio::test]
async fn a_service_has_whatever_else_is_said_of_it() {
    let set = "service.type=LoadBalancer,service.spec.loadBalancerSourceRanges={10.0.0.0/8},\
               service.spec.trafficDistribution=PreferSameZone,adminService.spec.clusterIP=None";
    let rendered = rendered(&[&LEAST[..], &["--set", set]].concat()).await;
    let services = objects(&rendered, "Service");
    let [api, admin] = &services[..] else { panic!("{services:?}") };
    assert_eq!(api["spec"]["loadBalancerSourceRanges"], json!(["10.0.0.0/8"]));
    assert_eq!(
        (&api["spec"]["trafficDistribution"], &api["spec"]["type"]),
        (&json!("PreferSameZone"), &json!("LoadBalancer"))
    );
    assert_eq!(admin["spec"]["clusterIP"], "None");
}

#[tokio::test]
async fn who_watches_pods_or_binds_services_is_let_in_on_demand() {
    assert!(!rendered(&LEAST).await.contains("servicebinding.io/controller"));
    let set = "metrics.podMonitor.enabled=true,aggregateToServiceBinding=true";
    let rendered = rendered(&[&LEAST[..], &["--set", set]].concat()).await;
    let monitors = objects(&rendered, "PodMonitor");
    let [monitor] = &monitors[..] else { panic!("{monitors:?}") };
    let selected = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    for deployment in objects(&rendered, "Deployment") {
        let pod = &deployment["spec"]["template"];
        let labels = pod["metadata"]["labels"].as_object().unwrap();
        assert!(selected.iter().all(|(key, value)| labels.get(key) == Some(value)), "{labels:?}");
        let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
        assert!(ports.iter().any(|port| port["name"] == monitor["spec"]["podMetricsEndpoints"][0]["port"]));
    }
    let roles = objects(&rendered, "ClusterRole");
    let [role] = &roles[..] else { panic!("{roles:?}") };
    assert_eq!(role["metadata"]["labels"]["servicebinding.io/controller"], "true");
    let read = json!([{"apiGroups": ["bindings.kyma-project.io"], "resources": ["kymabindings"], "verbs": ["get", "list", "watch"]}]);
    assert_eq!(role["rules"], read);
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
