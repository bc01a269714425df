//! What of the environment is not obeyed, and what the process allows itself.

use std::process::Stdio;

use tokio::process::Command;

use crate::world::{program, stage};

#[tokio::test]
async fn variables_for_debugging_lead_nowhere_else() {
    let (stage, _) = stage("overrides").await;
    let mut command = Command::new(program());
    command.args(["operator", "check"]).args(stage.args());
    command
        .env("KUBECONFIG", stage.control().kubeconfig_path())
        .env_remove("HTTPS_PROXY")
        .env_remove("https_proxy");
    let checked = async |command: &mut Command| {
        let output = command.stdout(Stdio::null()).output().await.unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let before = checked(&mut command).await;
    // What kube itself would obey: another server, another identity.
    command.env("KUBE_RS_DEBUG_OVERRIDE_URL", "https://127.0.0.1:9");
    command.env("KUBE_RS_DEBUG_IMPERSONATE_USER", "nobody").env("KUBE_RS_DEBUG_IMPERSONATE_GROUP", "none");
    let after = checked(&mut command).await;
    assert!(before.contains("✔ control plane") && before.contains("✔ rights"), "{before}");
    assert_eq!(before, after);
}

#[tokio::test]
async fn no_core_is_dumped() {
    let (stage, _) = stage("core").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", operator.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    // One byte: no file is as small, and no program that takes cores is started.
    assert_eq!(words, ["1", "1"], "{core}");
}

#[tokio::test]
async fn on_all_addresses_it_is_reached_by_ipv4_and_by_ipv6() {
    let (stage, _) = stage("families").await;
    let args = ["--listen", "[::]:0", "--allow-anonymous", "--admin-listen", "[::]:0"];
    let operator = stage.operator(program(), &args).await.unwrap();
    let log = operator.log();
    let ports: Vec<_> = log.split("\"[::]:").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let [api, admin] = ports[..] else { panic!("{ports:?}: {log}") };
    for host in ["127.0.0.1", "[::1]"] {
        for (url, status) in [
            (format!("http://{host}:{api}/openapi.json"), 200),
            (format!("http://{host}:{admin}/healthz"), 200),
        ] {
            assert_eq!(reqwest::get(&url).await.unwrap().status(), status, "{url}");
        }
    }
}
