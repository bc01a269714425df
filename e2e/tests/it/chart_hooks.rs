//! The pods of the chart's hooks: they are like those of the Deployments, and yet none of them.

use e2e::eventually;
use e2e::helm::{chart, helm};
use e2e::stage::SOON;
use kyma_bindings::cli::Command;
use serde_json::{Value, json};

use crate::chart::{LEAST, command_line, objects, rendered};
use crate::world::world;

const COMMON: &str = "commonLabels.team=kyma,commonAnnotations.owner=kyma,podLabels.pod=yes,\
                      imagePullSecrets[0].name=pull,global.imagePullSecrets[0].name=shared,hostUsers=false,\
                      dnsPolicy=Default,priorityClassName=high,nodeSelector.pool=kcp,tolerations[0].operator=Exists,\
                      extraArgs={--kubeconfig=/kubeconfig/file},extraEnv[0].name=A,extraEnv[0].value=b,\
                      extraVolumes[0].name=kubeconfig,extraVolumes[0].secret.secretName=kubeconfig,\
                      extraVolumeMounts[0].name=kubeconfig,extraVolumeMounts[0].mountPath=/kubeconfig,\
                      podSpecExtra.schedulerName=own,networkPolicy.enabled=true,networkPolicy.egress.enabled=true";

/// The pods of `cleanup` and `check`, each with the one of the Deployment whose account it has.
fn hooks(rendered: &str) -> Vec<(Value, Value)> {
    let deployments = objects(rendered, "Deployment");
    let jobs = objects(rendered, "Job").into_iter().map(|job| job["spec"]["template"].clone());
    let pair = |pod: Value| {
        let mut pods = deployments.iter().map(|deployment| &deployment["spec"]["template"]);
        let alike =
            pods.find(|other| other["spec"]["serviceAccountName"] == pod["spec"]["serviceAccountName"]);
        (alike.unwrap().clone(), pod)
    };
    objects(rendered, "Pod").into_iter().chain(jobs).map(pair).collect()
}

fn selects(selector: &Value, pod: &Value) -> bool {
    let labels = pod["metadata"]["labels"].as_object().unwrap();
    selector.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[tokio::test]
async fn they_have_what_all_pods_have() {
    for single in ["single=false", "single=true"] {
        let rendered = rendered(&[&LEAST[..], &["--set", COMMON, "--set", single]].concat()).await;
        let hooks = hooks(&rendered);
        assert_eq!(hooks.len(), if single == "single=true" { 2 } else { 3 });
        for (pod, hook) in hooks {
            let labels = json!({"team": "kyma", "pod": "yes"});
            assert!(selects(&labels, &hook), "{hook}");
            assert_eq!(hook["metadata"]["annotations"]["owner"], "kyma");
            for same in [
                "imagePullSecrets",
                "hostUsers",
                "dnsPolicy",
                "priorityClassName",
                "nodeSelector",
                "tolerations",
                "volumes",
                "securityContext",
                "schedulerName",
                "enableServiceLinks",
            ] {
                assert!(
                    !hook["spec"][same].is_null() && hook["spec"][same] == pod["spec"][same],
                    "{same}: {hook}"
                );
            }
            let container = |pod: &Value, field: &str| pod["spec"]["containers"][0][field].clone();
            for same in ["image", "imagePullPolicy", "env", "volumeMounts", "securityContext"] {
                assert_eq!(container(&hook, same), container(&pod, same), "{same}");
            }
            let kubeconfig = match command_line(&hook) {
                Command::Check(check) => check.kubeconfig,
                Command::Cleanup(cleanup) => cleanup.kubeconfig,
                other => panic!("{other:?}"),
            };
            assert_eq!(kubeconfig.unwrap().to_str(), Some("/kubeconfig/file"));
            for policy in objects(&rendered, "NetworkPolicy") {
                assert!(selects(&policy["spec"]["podSelector"]["matchLabels"], &hook), "{policy}");
            }
        }
    }
}

#[tokio::test]
async fn no_sidecar_that_other_pods_ask_for_keeps_them_from_ending() {
    let set = "podAnnotations.linkerd\\.io/inject=enabled,check.podAnnotations.of=check,cleanup.podAnnotations.of=cleanup";
    let rendered = rendered(&[&LEAST[..], &["--set", set]].concat()).await;
    let pods = hooks(&rendered);
    assert_eq!(pods.len(), 3);
    for (pod, hook) in pods {
        assert_eq!(pod["metadata"]["annotations"]["linkerd.io/inject"], "enabled");
        let annotations = &hook["metadata"]["annotations"];
        assert!(annotations["linkerd.io/inject"].is_null(), "{hook}");
        assert_eq!(annotations["of"], hook["metadata"]["labels"]["app.kubernetes.io/component"]);
    }
}

#[tokio::test]
async fn nothing_is_sent_to_them_and_nothing_counts_them() {
    let set = "metrics.podMonitor.enabled=true";
    let rendered = rendered(&[&LEAST[..], &["--set", set]].concat()).await;
    let selectors = ["Service", "Deployment", "PodDisruptionBudget", "PodMonitor"].map(|kind| {
        let selectors = objects(&rendered, kind).into_iter().map(move |object| {
            let selector = object["spec"]["selector"].clone();
            if kind == "Service" { selector } else { selector["matchLabels"].clone() }
        });
        selectors.collect::<Vec<_>>()
    });
    assert_eq!(selectors.each_ref().map(Vec::len), [2, 2, 2, 1]);
    for (pod, hook) in hooks(&rendered) {
        assert!(selectors.iter().flatten().any(|selector| selects(selector, &pod)));
        for selector in selectors.iter().flatten() {
            assert!(!selects(selector, &hook), "{selector} selects {hook}");
        }
    }
}

#[tokio::test]
async fn where_others_give_accounts_and_rights_the_chart_gives_none() {
    let named = "serviceAccount.create=false,serviceAccount.brokerName=b,serviceAccount.controllerName=c";
    for (set, accounts, roles) in [
        ("rbac.create=true".to_owned(), 2, 3),
        ("rbac.create=false".to_owned(), 2, 0),
        (named.to_owned(), 0, 3),
        (format!("{named},rbac.create=false"), 0, 0),
    ] {
        let rendered = rendered(&[&LEAST[..], &["--set", &set]].concat()).await;
        assert_eq!(objects(&rendered, "ServiceAccount").len(), accounts, "{set}");
        for kind in ["Role", "RoleBinding"] {
            assert_eq!(objects(&rendered, kind).len(), roles, "{set}");
        }
        let job = objects(&rendered, "Job")[0]["spec"]["template"]["spec"]["serviceAccountName"].clone();
        assert_eq!(job, if accounts == 0 { "c" } else { "kb-kyma-bindings-controller" });
    }
}

#[tokio::test]
async fn an_installation_that_failed_leaves_its_hook_able_to_run_and_can_be_repaired_and_removed() {
    const RELEASE: &str = "chart-failed";
    const INSTANCES: &str = "chart-failed-instances";
    let control = &world().await.control;
    let run = async |args: &[&str]| {
        let output =
            helm(control.kubeconfig_path(), &[args, &["--namespace", RELEASE]].concat()).await.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let chart = chart();
    let set = format!("crds.install=false,config.instanceNamespace={INSTANCES}");
    let values = [&[RELEASE, chart.to_str().unwrap(), "--set", &set], &LEAST[..]].concat();
    let (installed, said) = run(&[&["install", "--create-namespace"], &values[..]].concat()).await;
    assert!(!installed && said.contains(&format!("\"{INSTANCES}\" not found")), "{said}");
    // Helm makes what can be made.
    let account = format!("--as=system:serviceaccount:{RELEASE}:{RELEASE}-kyma-bindings-controller");
    let may = ["auth", "can-i", "list", "kymabindings.bindings.kyma-project.io", "-n", RELEASE, &account];
    eventually("the account of the hook to have its rights", SOON, async || control.kubectl(&may).await)
        .await
        .unwrap();

    control.kubectl(&["create", "namespace", INSTANCES]).await.unwrap();
    let (repaired, said) = run(&[&["upgrade", "--install"], &values[..]].concat()).await;
    assert!(repaired, "{said}");
    let (removed, said) = run(&["uninstall", RELEASE, "--no-hooks"]).await;
    assert!(removed, "{said}");
    for namespace in [RELEASE, INSTANCES] {
        let left = ["get", "deploy,rolebinding,role,sa", "-n", namespace, "-o", "name"];
        let left = control.kubectl(&left).await.unwrap();
        assert!(!left.contains("kyma-bindings"), "{left}");
    }
}
