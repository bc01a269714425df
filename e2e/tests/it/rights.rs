//! The chart's Roles: exactly the operator's table of rights, and enough for its `check`.

use std::collections::BTreeSet;
use std::fs;

use e2e::eventually;
use e2e::helm::template;
use e2e::operator::AS_OPERATOR;
use e2e::rights::policy_rule;
use e2e::stage::SOON;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use kyma_bindings::diagnostics::rbac::{BROKER, CONTROLLER, Place, Rule};
use serde_json::Value;
use tokio::process::Command;

use crate::check::check;
use crate::world::{program, stage};

const LEAST: [&str; 4] =
    ["--set", "image.repository=r.example/i", "--set", "auth.methods={none},auth.allowAnonymous=true"];

async fn rendered(args: &[&str]) -> String {
    let output = template(&[&LEAST[..], args].concat()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Each group, resource, name and verb that rules allow.
fn flat(rules: &[PolicyRule]) -> BTreeSet<[String; 4]> {
    let mut flat = BTreeSet::new();
    for rule in rules {
        let names = rule.resource_names.clone().unwrap_or_else(|| vec![String::new()]);
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for name in &names {
                    let allowed =
                        |verb: &String| [group.clone(), resource.clone(), name.clone(), verb.clone()];
                    flat.extend(rule.verbs.iter().map(allowed));
                }
            }
        }
    }
    flat
}

fn of(rules: &[Rule], place: Place) -> BTreeSet<[String; 4]> {
    flat(&rules.iter().filter(|rule| rule.place == place).map(policy_rule).collect::<Vec<_>>())
}

/// The Roles of the Deployments' accounts: component, namespace and what they allow.
fn roles(rendered: &str) -> Vec<(String, String, BTreeSet<[String; 4]>)> {
    let documents = rendered.split("\n---\n").filter(|document| document.contains("kind: Role\n"));
    let roles = documents.map(|document| serde_saphyr::from_str::<Role>(document).unwrap());
    let roles = roles.map(|role| {
        let component = role.metadata.labels.unwrap_or_default().remove("app.kubernetes.io/component");
        (
            component.unwrap_or_default(),
            role.metadata.namespace.unwrap(),
            flat(&role.rules.unwrap_or_default()),
        )
    });
    roles.collect()
}

#[tokio::test]
async fn the_roles_of_the_chart_allow_what_the_table_says_and_nothing_else() {
    let set =
        |single: &'static str| ["--set", single, "--set", "config.namespace=b,config.instanceNamespace=i"];
    let controller = |component: &str| {
        Place::ALL
            .map(|place| (component.to_owned(), place.namespace("b", "i").to_owned(), of(CONTROLLER, place)))
    };
    let mut two = roles(&rendered(&set("single=false")).await);
    let mut expected = controller("controller").to_vec();
    expected.push(("broker".to_owned(), "b".to_owned(), of(BROKER, Place::Bindings)));
    two.sort();
    expected.sort();
    assert_eq!(two, expected);
    let mut one = roles(&rendered(&set("single=true")).await);
    let mut expected = controller("all");
    one.sort();
    expected.sort();
    assert_eq!(one, expected);
    assert!(!rendered(&LEAST).await.contains("kind: ClusterRole\n"), "nothing is cluster-wide");
}

#[tokio::test]
async fn an_account_with_a_role_of_the_chart_finds_all_right() {
    let (stage, _) = stage("chart-check").await;
    let control = stage.control();
    let namespaces = format!(
        "config.namespace={},config.instanceNamespace={},fullnameOverride=chart-check",
        stage.namespace, stage.instance_namespace
    );
    let rendered = rendered(&["--set", &namespaces]).await;
    let ours = |document: &&str| {
        let kind = |kind: &str| document.contains(&format!("\nkind: {kind}\n"));
        (kind("Role") || kind("RoleBinding") || kind("ServiceAccount")) && !document.contains("helm.sh/hook")
    };
    let ours: Vec<_> = rendered.split("\n---\n").filter(ours).collect();
    // Two ServiceAccounts; a Role and its binding for the broker, two for the controller.
    assert_eq!(ours.len(), 8, "{ours:?}");
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: kyma-bindings}\n";
    let file = control.dir().join("chart-check.yaml");
    fs::write(&file, format!("{namespace}---\n{}", ours.join("\n---\n"))).unwrap();
    control.kubectl(&["apply", "-f", file.to_str().unwrap()]).await.unwrap();
    for (role, lines) in [("broker", 5), ("controller", 9)] {
        let account = format!("chart-check-{role}");
        let token = control.kubectl(&["create", "token", &account, "-n", "kyma-bindings"]).await.unwrap();
        let kubeconfig = control.dir().join(format!("{account}.yaml"));
        fs::write(&kubeconfig, control.token_kubeconfig(token.trim())).unwrap();
        let (code, said) = check(&kubeconfig, &[&stage.args()[..], &["--role", role]].concat()).await;
        assert!(code == Some(0) && !said.contains('✗'), "{said}");
        assert_eq!(said.lines().count(), lines, "{said}");
        // As the other one, it lacks something.
        if role == "broker" {
            let (code, said) =
                check(&kubeconfig, &[&stage.args()[..], &["--role", "controller"]].concat()).await;
            assert!(code == Some(1) && said.contains("may not list secrets in"), "{said}");
        }
    }
}

#[tokio::test]
async fn what_rbac_prints_is_enough_for_check_and_no_more_than_the_table() {
    let (stage, _) = stage("printed").await;
    let control = stage.control();
    for (role, rules) in [("broker", BROKER), ("controller", CONTROLLER), ("all", CONTROLLER)] {
        let account = format!("printed-{role}");
        let of = format!("--service-account={}/{account}", stage.namespace);
        let mut command = Command::new(program());
        command.args([AS_OPERATOR, "rbac", "--role", role, &of]).args(stage.args());
        let printed = command.output().await.unwrap();
        assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
        let file = control.dir().join(format!("{account}.rbac.yaml"));
        fs::write(&file, &printed.stdout).unwrap();
        control.kubectl(&["create", "serviceaccount", &account, "-n", &stage.namespace]).await.unwrap();
        control.kubectl(&["apply", "-f", file.to_str().unwrap()]).await.unwrap();
        let token = control.kubectl(&["create", "token", &account, "-n", &stage.namespace]).await.unwrap();
        let kubeconfig = control.dir().join(format!("{account}.yaml"));
        fs::write(&kubeconfig, control.token_kubeconfig(token.trim())).unwrap();
        let args = [&stage.args()[..], &["--role", role]].concat();
        eventually("check to find all right", SOON, async || {
            let (code, said) = check(&kubeconfig, &args).await;
            if code == Some(0) && !said.contains('✗') { Ok(()) } else { Err(said) }
        })
        .await
        .unwrap();

        let printed = String::from_utf8(printed.stdout).unwrap();
        let roles = printed.split("---\n").filter(|document| !document.contains("kind: RoleBinding\n"));
        let allowed = roles.flat_map(|document| {
            let role: Role = serde_saphyr::from_str(document).unwrap();
            flat(&role.rules.unwrap())
        });
        let table = flat(&rules.iter().map(policy_rule).collect::<Vec<_>>());
        assert_eq!(allowed.collect::<BTreeSet<_>>(), table, "{role}");
    }
}

#[tokio::test]
async fn the_test_pods_check_each_with_the_account_and_role_of_a_deployment() {
    for (single, expected) in [("single=false", vec!["broker", "controller"]), ("single=true", vec!["all"])] {
        let rendered = rendered(&["--set", single]).await;
        let pods = rendered.split("\n---\n").filter(|document| document.contains("\nkind: Pod\n"));
        let pods: Vec<Value> = pods.map(|pod| serde_saphyr::from_str(pod).unwrap()).collect();
        let roles: Vec<_> = pods.iter().map(|pod| pod["spec"]["containers"][0]["args"][1].clone()).collect();
        let roles: Vec<_> =
            roles.iter().map(|role| role.as_str().unwrap().trim_start_matches("--role=")).collect();
        assert_eq!(roles, expected);
        for (pod, role) in pods.iter().zip(roles) {
            let deployment = rendered.split("\n---\n").find(|document| {
                document.contains("\nkind: Deployment\n")
                    && document.contains(&format!("\n  name: kb-kyma-bindings-{role}\n"))
            });
            let deployment: Value = serde_saphyr::from_str(deployment.unwrap()).unwrap();
            let runs = &deployment["spec"]["template"]["spec"];
            assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
            for same in ["serviceAccountName", "securityContext"] {
                assert_eq!(pod["spec"][same], runs[same], "{role} {same}");
            }
            for same in ["image", "securityContext"] {
                assert_eq!(pod["spec"]["containers"][0][same], runs["containers"][0][same], "{role} {same}");
            }
            let labels = pod["metadata"]["labels"].as_object().unwrap();
            let selected = deployment["spec"]["selector"]["matchLabels"].as_object().unwrap();
            assert!(
                selected.iter().any(|(name, value)| labels.get(name) != Some(value)),
                "no Service selects it"
            );
            let args = pod["spec"]["containers"][0]["args"].as_array().unwrap();
            let args = args.iter().map(|arg| arg.as_str().unwrap());
            let cli = <kyma_bindings::cli::Cli as clap::Parser>::try_parse_from(
                ["kyma-bindings"].into_iter().chain(args),
            );
            let kyma_bindings::cli::Command::Check(check) = cli.unwrap().command else { panic!("not check") };
            assert_eq!(
                (check.namespace.as_str(), check.instance_namespace.as_str()),
                ("kyma-bindings", "kcp-system")
            );
        }
    }
}
