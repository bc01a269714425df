//! The pods of the chart's hooks: they are like those of the Deployments, and yet none of them.

use kyma_bindings::config::Command;
use serde_json::{Value, json};

use crate::chart::{LEAST, command_line, objects, rendered};

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
