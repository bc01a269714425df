//! Kubeconfigs as the field makes them: what kubectl says of each, and what is said here, where a binding is made
//! with it.

mod corpus;
mod front;
mod given;
mod variations;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::stage::prove;
use e2e::{Binaries, Osb, Stage};
use futures::{StreamExt as _, stream};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{program, world};
use corpus::{Case, Expected};
use given::Given;

/// The page of what is refused, for users.
const PAGE: &str = include_str!("../../../../docs/kubeconfigs.md");
/// How a binding's problem with a kubeconfig begins.
const REFUSED: &str = "the managed cluster's kubeconfig is refused: ";
/// How many are tried at a time.
const AT_ONCE: usize = 4;

/// kubectl with each kubeconfig as a file.
struct Kubectl {
    program: PathBuf,
    dir: PathBuf,
}

impl Kubectl {
    /// Whether it reads a namespace, and what it says if it doesn't.
    async fn reads(&self, number: usize, kubeconfig: &[u8]) -> Result<(), String> {
        let path = self.dir.join(format!("{number}.kubeconfig"));
        std::fs::write(&path, kubeconfig).unwrap();
        let output = Command::new(&self.program)
            .args([
                "get",
                "namespace",
                "default",
                "--output",
                "name",
                "--request-timeout",
                "10s",
                "--kubeconfig",
            ])
            .arg(&path)
            // What it offers is asked once; the system's authorities are those of the test.
            .env("HOME", &self.dir)
            .env("SSL_CERT_FILE", self.dir.join("ca-file"))
            .env_remove("KUBECACHEDIR")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        if output.status.success() && output.stdout == b"namespace/default\n" {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

async fn register(stage: &Stage<'_>, number: usize, kubeconfig: &[u8]) {
    let runtime = format!("r-corpus-{number}");
    stage.register(&format!("i-corpus-{number}"), &runtime, "").await.unwrap();
    // Byte for byte, as `kubectl create secret --from-file` has it; not all of them are UTF-8.
    let patch = Patch::Merge(json!({"data": {"config": STANDARD.encode(kubeconfig)}}));
    let name = format!("kubeconfig-{runtime}");
    stage.instance_secrets().patch(&name, &PatchParams::default(), &patch).await.unwrap();
}

/// Whether a binding is made for an instance, whose kubeconfig works; or why not.
async fn bound(osb: &Osb, number: usize) -> Result<(), String> {
    let (instance, binding) = (format!("i-corpus-{number}"), format!("corpus-{number}"));
    let answer = osb.bind(&instance, &binding, None).await.unwrap();
    if answer.status != 201 {
        assert_eq!(answer.status, 503, "{}", answer.description());
        return Err(answer.description().to_owned());
    }
    let made = answer.kubeconfig().unwrap();
    assert_eq!(prove(made).await.unwrap(), "managed");
    check_what_is_handed_out(made).await;
    assert_eq!(osb.unbind(&instance, &binding).await.unwrap().status, 200);
    Ok(())
}

/// The server that a kubeconfig names, and its token.
fn said(kubeconfig: &str) -> (String, String, String) {
    let file: Value = serde_saphyr::from_str(kubeconfig).unwrap();
    let text = |path: &str| file.pointer(path).unwrap().as_str().unwrap().to_owned();
    let ca = text("/clusters/0/cluster/certificate-authority-data");
    (text("/clusters/0/cluster/server"), ca, text("/users/0/user/token"))
}

async fn check_what_is_handed_out(kubeconfig: &str) {
    let (server, ca, token) = said(kubeconfig);
    let pem = STANDARD.decode(ca).unwrap();
    let pem = String::from_utf8(pem).unwrap();
    for block in pem.split_inclusive("-----END CERTIFICATE-----\n") {
        let body = block.strip_prefix("-----BEGIN CERTIFICATE-----\n");
        let body = body.and_then(|body| body.strip_suffix("-----END CERTIFICATE-----\n"));
        assert!(!body.unwrap().contains('-'), "something else than certificates is handed out");
    }
    let client = e2e::osb::client_trusting(&pem).unwrap().build().unwrap();
    let version = client.get(format!("{server}/version")).bearer_auth(token).send().await.unwrap();
    assert_eq!(version.status(), 200, "{server}/version");
}

/// What came of a kubeconfig.
struct Tried {
    case: Case,
    kubectl: Result<(), String>,
    ours: Result<(), String>,
}

impl Tried {
    /// Why it is not as expected.
    fn wrong(&self) -> Option<String> {
        let ours = self.ours.as_ref().err().map(|said| said.strip_prefix(REFUSED).unwrap_or(said));
        let (kubectl, words) = match &self.case.expected {
            Expected::Both => (true, None),
            Expected::Ours => (false, None),
            Expected::Meant(words) => (true, Some(words)),
            Expected::Neither(words) => (false, Some(words)),
        };
        let as_expected = kubectl == self.kubectl.is_ok()
            && match (ours, words) {
                (None, None) => true,
                (Some(said), Some(words)) => said.contains(words.as_str()),
                _ => false,
            };
        if !as_expected {
            let Self { case, kubectl, ours } = self;
            return Some(format!(
                "{}: {:?}, but kubectl {kubectl:?}, ours {ours:?}",
                case.name, case.expected
            ));
        }
        // What only one of them takes is on the page.
        let (meant, rest) = PAGE.split_once("## Refused, and by kubectl").unwrap();
        let on_page = match (&self.case.expected, ours) {
            (Expected::Meant(_), Some(said)) => meant.contains(&format!("| {said} |")),
            (Expected::Ours, _) => rest.contains("Taken though kubectl refuses it"),
            _ => true,
        };
        (!on_page).then(|| format!("{}: it isn't on the page: {ours:?}", self.case.name))
    }

    fn row(&self) -> String {
        let ours = match &self.ours {
            Ok(()) => "works",
            Err(said) => said.strip_prefix(REFUSED).unwrap_or(said),
        };
        let kubectl = if self.kubectl.is_ok() { "works" } else { "refused" };
        let meant = if matches!(self.case.expected, Expected::Meant(_)) { " (meant)" } else { "" };
        format!("{:<52} {kubectl:<8} {ours}{meant}", self.case.name)
    }
}

#[tokio::test]
async fn what_kubectl_reads_is_read_but_for_what_is_meant() {
    let world = world().await;
    let stage = Stage::new(&world.control, "corpus").await.unwrap();
    let given = Given::of(&world.managed).await;
    let cases = corpus::all(&given);
    for (number, case) in cases.iter().enumerate() {
        register(&stage, number, &case.text).await;
    }
    let operator = stage.operator(program(), &[]).await.unwrap();
    let osb = operator.osb();
    let kubectl =
        Kubectl { program: Binaries::find_or_build().await.unwrap().kubectl, dir: given.dir().to_owned() };
    let kubectl = &kubectl;
    let tried: Vec<_> = stream::iter(cases.into_iter().enumerate())
        .map(|(number, case)| {
            let osb = osb.clone();
            async move {
                let said = kubectl.reads(number, &case.text).await;
                let ours = bound(&osb, number).await;
                Tried { case, kubectl: said, ours }
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut table = format!("\n{:<52} {:<8} ours\n", "input", "kubectl");
    for tried in &tried {
        writeln!(table, "{}", tried.row()).unwrap();
    }
    // Past what the test runner keeps of tests that pass: it is what this test is for.
    std::io::stderr().write_all(table.as_bytes()).unwrap();
    let wrong: Vec<_> = tried.iter().filter_map(Tried::wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Each row of the page has been seen.
    let meant = PAGE.split("## Refused, and by kubectl").next().unwrap();
    let rows = meant.lines().filter(|line| line.starts_with("| ")).skip(2);
    for row in rows {
        let words = row.trim_start_matches("| ").split(" | ").next().unwrap();
        let seen =
            tried.iter().any(|t| t.ours.as_ref().is_err_and(|said| said == &format!("{REFUSED}{words}")));
        assert!(seen, "no kubeconfig of the corpus is refused so: {words}");
    }
}

/// As in the docs of many: the server, and a path behind it.
#[tokio::test]
async fn a_path_can_be_appended_to_the_server_that_is_handed_out() {
    let (stage, instance) = crate::world::stage("appended").await;
    let admin = world().await.managed.admin_kubeconfig();
    let url = world().await.managed.url();
    let with_slash = admin.replace(url, &format!("{url}/"));
    assert_ne!(admin, with_slash);
    stage.rotate("r-appended", Some(&with_slash)).await.unwrap();
    let operator = stage.operator(program(), &[]).await.unwrap();
    let made = operator.osb().bound(&instance, "appended-1").await.unwrap();
    let (server, _, token) = said(made.kubeconfig().unwrap());
    assert_eq!(server, url);
    let file = Path::new(stage.control().dir()).join("token.header");
    // A file, because arguments are for all to see.
    std::fs::write(&file, format!("Authorization: Bearer {token}")).unwrap();
    let curl = Command::new("curl")
        .args(["-k", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "-H"])
        .arg(format!("@{}", file.display()))
        .arg(format!("{server}/version"))
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "200");
}
