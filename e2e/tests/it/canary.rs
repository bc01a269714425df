//! No credential, nor any 16 characters of one, in whatever a whole run writes down or answers, at `trace` level.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::canary::{Credentials, PIECE, key_in, searched, token_in};
use e2e::collector::Collected;
use e2e::issuer::Issuer;
use e2e::osb::Answer;
use e2e::pki::Pki;
use e2e::stage::{MANAGED_NAMESPACE, SOON, prove};
use e2e::{Operator, Osb, Stage, WorkDir, eventually};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event as CoreEvent, Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::auth::htpasswd;
use crate::jwt::claims;
use crate::mounted::Mounted;
use crate::tls::files;
use crate::world::{program, stage, world};

/// Pieces of a secret text that would be found if any part of it were printed.
pub fn pieces(secret: &str) -> Vec<&str> {
    let words = secret.split(|c: char| !(c.is_ascii_alphanumeric() || "-_+/=".contains(c)));
    words.filter(|w| w.len() >= 24).flat_map(|w| [&w[..24], &w[w.len() - 24..]]).collect()
}

/// What must be found nowhere, and where it was looked for.
#[derive(Default)]
struct Search {
    secrets: Credentials,
    places: Vec<(String, String)>,
}

impl Search {
    fn secret(&mut self, what: &str, text: &str) {
        let before = self.secrets.number();
        self.secrets.add(what, text);
        assert!(self.secrets.number() > before || !self.secrets.found(text.as_bytes()).is_empty(), "{what}");
    }

    fn place(&mut self, what: &str, text: impl Into<String>) {
        self.places.push((what.to_owned(), text.into()));
    }

    /// All that is in an answer; `own` is the token that may be in it.
    fn answer(&mut self, what: &str, answer: &Answer, own: Option<&str>) {
        let text = format!("{:?}\n{}", answer.headers, answer.body);
        let text = own.map_or(text.clone(), |own| text.replace(own, ""));
        self.place(&format!("{what} {}", answer.status), text);
    }

    /// Where pieces are, and of what; never which.
    fn hits(&self) -> Vec<String> {
        let places = self.places.iter().flat_map(|(place, text)| {
            self.secrets.found(text.as_bytes()).into_iter().map(move |secret| format!("{secret} in {place}"))
        });
        let mut hits: Vec<_> = places.collect();
        hits.sort();
        hits.dedup();
        hits
    }
}

/// The token in a kubeconfig.
fn token(kubeconfig: &str) -> String {
    token_in(kubeconfig).unwrap().to_owned()
}

async fn listed<K>(search: &mut Search, what: &str, api: Api<K>)
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    for object in api.list(&ListParams::default()).await.unwrap().items {
        search.place(what, serde_json::to_string(&object).unwrap());
    }
}

/// A run with each way in and a good many faults.
struct Run {
    stage: Stage<'static>,
    instance: String,
    search: Search,
    pki: Pki,
    collected: Collected,
    envs: [(&'static str, String); 3],
    args: Vec<String>,
    dir: Arc<WorkDir>,
    _files: [Mounted; 3],
}

const PASSWORD: &str = "canary-password-of-anna-0123456789";

impl Run {
    async fn prepare(issuer: &Issuer) -> Self {
        let (stage, instance) = stage("canary").await;
        let pki = Pki::generate("canary").unwrap();
        let identity = pki.server().unwrap();
        let mounted = [
            Mounted::new(&files(&identity)),
            Mounted::new(&[("users", &htpasswd(&[("anna", PASSWORD)]))]),
            Mounted::new(&[("ca", issuer.ca_pem())]),
        ];
        let flags = [
            ("--tls-cert", mounted[0].path("tls.crt")),
            ("--tls-key", mounted[0].path("tls.key")),
            ("--auth", "basic".to_owned()),
            ("--htpasswd-file", mounted[1].path("users")),
            ("--auth", "jwt".to_owned()),
            ("--jwt-issuer", issuer.url().to_owned()),
            ("--jwt-audience", "kyma-bindings".to_owned()),
            ("--jwt-ca-file", mounted[2].path("ca")),
            ("--create-timeout", "2s".to_owned()),
            ("--sweep-interval", "1s".to_owned()),
            ("--lease-duration", "4s".to_owned()),
            ("--lease-renew-deadline", "3s".to_owned()),
            ("--lease-retry-period", "500ms".to_owned()),
        ];
        let args = flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]);
        let args = stage.args().map(str::to_owned).into_iter().chain(args).collect();
        let collected = Collected::begin().unwrap();
        let envs = [
            ("RUST_LOG", "trace".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collected.endpoint().to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ];
        let mut search = Search::default();
        search.secrets.add_key("the listener's key", &identity.key_pem);
        search.secret("a password", PASSWORD);
        search.secret("a login", &STANDARD.encode(format!("anna:{PASSWORD}")));
        for (what, cluster) in
            [("the operator's key", &world().await.control), ("an instance's key", &world().await.managed)]
        {
            search.secrets.add_key(what, &key_in(&cluster.admin_kubeconfig()).unwrap());
        }
        let dir = Arc::new(WorkDir::new("canary").unwrap());
        Self { stage, instance, search, pki, collected, envs, args, dir, _files: mounted }
    }

    async fn start(&mut self) -> Operator {
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        let envs: Vec<_> = self.envs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let kubeconfig = self.stage.control().kubeconfig_path();
        let operator = Operator::launch_with(&self.dir, program(), kubeconfig, &args, &envs).await.unwrap();
        operator.ready().await.unwrap();
        for what in ["cmdline", "environ", "limits"] {
            let text = std::fs::read(format!("/proc/{}/{what}", operator.pid())).unwrap();
            self.search.place(&format!("the process's {what}"), String::from_utf8_lossy(&text));
        }
        operator
    }

    fn anna(&self, operator: &Operator) -> Osb {
        Osb::trusting(operator.url(), self.pki.ca_pem()).unwrap().with_basic("anna", PASSWORD)
    }

    /// PUT until it is answered with a kubeconfig, which is a secret from then on.
    async fn bound(&mut self, osb: &Osb, name: &str) -> String {
        let made = osb.bound(&self.instance, name).await.unwrap();
        let kubeconfig = made.kubeconfig().unwrap().to_owned();
        let token = token(&kubeconfig);
        self.search.secret(&format!("the token of {name}"), &token);
        self.search.answer("PUT", &made, Some(&token));
        let fetched = osb.fetch(&self.instance, name).await.unwrap();
        self.search.answer("GET", &fetched, Some(&token));
        kubeconfig
    }

    /// Credentials of the instance that can't be used, or are refused: a bind and an unbind say so.
    async fn refused(&mut self, osb: &Osb, what: &str, kubeconfig: &str, unbound: &str) {
        self.stage.rotate("r-canary", Some(kubeconfig)).await.unwrap();
        // One that the watch was too slow for gets another kubeconfig; one that was refused may be on its way out.
        let (mut issued, mut tries) = (Vec::new(), 0);
        let bind = eventually("it to be refused", SOON, async || {
            tries += 1;
            let name = format!("canary-no-{}-{tries}", what.replace(' ', "-").to_lowercase());
            let answer = osb.bind(&self.instance, &name, None).await.unwrap();
            issued.extend(answer.kubeconfig().map(token));
            if answer.status == 503 { Ok(answer) } else { Err(answer.status) }
        });
        let bind = bind.await.unwrap();
        for token in issued {
            self.search.secret("a token in between", &token);
        }
        let unbind = osb.unbind(&self.instance, unbound).await.unwrap();
        assert_eq!(unbind.status, 503, "{what}: {}", unbind.description());
        self.search.answer(what, &bind, None);
        self.search.answer(what, &unbind, None);
    }

    /// All that is kept in the clusters, without the data of Secrets.
    async fn kept(&mut self) {
        let (control, managed) = (self.stage.control().client(), world().await.managed.client());
        let (search, namespace) = (&mut self.search, &self.stage.namespace);
        listed(search, "a KymaBinding", self.stage.bindings()).await;
        listed(search, "an Event", Api::<Event>::namespaced(control.clone(), namespace)).await;
        listed(search, "a core Event", Api::<CoreEvent>::namespaced(control.clone(), namespace)).await;
        listed(search, "a Lease", Api::<Lease>::namespaced(control, namespace)).await;
        listed(
            search,
            "a ServiceAccount",
            Api::<ServiceAccount>::namespaced(managed.clone(), MANAGED_NAMESPACE),
        )
        .await;
        listed(search, "a ClusterRole", Api::<ClusterRole>::all(managed.clone())).await;
        listed(search, "a ClusterRoleBinding", Api::<ClusterRoleBinding>::all(managed)).await;
        for Secret { metadata, .. } in self.stage.secrets().list(&ListParams::default()).await.unwrap() {
            search.place("a Secret's metadata", serde_json::to_string(&metadata).unwrap());
        }
    }
}

/// Who is let in by a token, and who isn't.
async fn strangers(run: &mut Run, operator: &Operator, bearer: &str) {
    let instance = run.instance.clone();
    let stranger = Osb::trusting(operator.url(), run.pki.ca_pem()).unwrap();
    run.bound(&stranger.clone().with_authorization(&format!("Bearer {bearer}")), "canary-2").await;
    let forged = format!("{bearer}canary-of-a-forger");
    for authorization in [
        format!("Bearer {forged}"),
        "Basic canary-no-base64-of-anything".to_owned(),
        format!("Bearer {bearer} x"),
    ] {
        let answer =
            stranger.clone().with_authorization(&authorization).fetch(&instance, "canary-1").await.unwrap();
        run.search.secret("a login that is refused", authorization.split(' ').nth(1).unwrap());
        run.search.answer("a stranger's GET", &answer, None);
    }
    let wrong = stranger.clone().with_basic("anna", "canary-wrong-password-of-bert");
    run.search.secret("a wrong password", "canary-wrong-password-of-bert");
    run.search.answer("a wrong password", &wrong.fetch(&instance, "canary-1").await.unwrap(), None);
}

#[tokio::test]
async fn no_credential_is_found_in_a_whole_run() {
    let issuer = Issuer::start().await.unwrap();
    let mut run = Run::prepare(&issuer).await;
    let operator = run.start().await;
    let (osb, instance) = (run.anna(&operator), run.instance.clone());

    // Each way in, and those who are kept out.
    prove(&run.bound(&osb, "canary-1").await).await.unwrap();
    let bearer = issuer.token(&issuer.header(), &claims(&issuer, &json!({}))).unwrap();
    run.search.secret("a bearer's token", &bearer);
    strangers(&mut run, &operator, &bearer).await;
    run.stage.apply("canary-3", &instance, None).await.unwrap();
    let applied = run.stage.ready("canary-3").await.unwrap();
    run.search.secret("the token of canary-3", &token(&applied));
    let unknown = osb.bind("i-nobody", "canary-4", None).await.unwrap();
    run.search.answer("PUT", &unknown, None);
    run.search.answer("PUT", &osb.bind(&instance, "canary-1", Some(700)).await.unwrap(), None);

    // A Secret that is made again, one that was swapped, an account that is lost, a killed process.
    let secrets = run.stage.secrets();
    secrets.delete("kyma-binding-canary-3", &DeleteParams::default()).await.unwrap();
    let again = eventually("another Secret", SOON, async || match run.stage.ready("canary-3").await {
        Ok(kubeconfig) if kubeconfig != applied => Ok(kubeconfig),
        other => Err(format!("{}", other.is_ok())),
    });
    let again = token(&again.await.unwrap());
    run.search.secret("the second token of canary-3", &again);
    let accounts: Api<ServiceAccount> = Api::namespaced(world().await.managed.client(), MANAGED_NAMESPACE);
    accounts.delete("kyma-binding-canary-2", &DeleteParams::default()).await.unwrap();
    run.stage.condition("canary-2", "Stalled", "True", "AccessLost").await.unwrap();
    run.search.answer("PUT", &osb.bind(&instance, "canary-2", None).await.unwrap(), None);
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    run.search.place("metrics", metrics);
    operator.kill().await.unwrap();
    let operator = run.start().await;
    let osb = run.anna(&operator);
    eventually("it to lead", SOON, async || if operator.leads().await { Ok(()) } else { Err("not yet") })
        .await
        .unwrap();

    // Credentials of the instance that are refused, by its cluster or by us.
    let managed = &world().await.managed;
    let canary = "canary.token.of.an.instance.0123456789abcdefghijklmnop";
    run.search.secret("an instance's token", canary);
    let with_token = managed.token_kubeconfig(canary);
    let user = format!("token: \"{canary}\"");
    assert!(with_token.contains(&user));
    run.refused(&osb, "401", &with_token, "canary-1").await;
    for (what, instead) in [
        ("a program", format!("exec: {{command: {canary}}}")),
        ("a password", format!("username: anna\n    password: {canary}")),
        ("half a key", format!("client-key-data: {canary}")),
        ("no YAML", format!("token: [{canary}")),
    ] {
        run.refused(&osb, what, &with_token.replace(&user, &instead), "canary-1").await;
    }
    let nobody = managed.admin_kubeconfig().replace(managed.url(), "https://127.0.0.1:9");
    run.refused(&osb, "nobody there", &nobody, "canary-1").await;
    run.stage.rotate("r-canary", Some(&managed.admin_kubeconfig())).await.unwrap();
    run.stage.gone("canary-1", SOON).await.unwrap();
    run.search.answer("DELETE", &osb.unbind(&instance, "canary-3").await.unwrap(), None);
    run.search.answer("DELETE", &osb.unbind(&instance, "canary-1").await.unwrap(), None);

    run.kept().await;
    for path in ["/metrics", "/readyz", "/healthz"] {
        run.search.place(path, operator.admin(path).await.unwrap().1);
    }
    operator.terminate().await.unwrap();
    let log = operator.log();
    assert!(
        log.contains("kubeconfig issued") && log.contains("CleanupFailed") || log.contains("not done yet"),
        "the log is the whole run's"
    );
    for line in log.lines() {
        run.search.place("a line of the log", line);
    }
    let sent = run.collected.bodies();
    assert!(!sent.is_empty());
    for body in sent {
        run.search.place("a batch of spans", String::from_utf8_lossy(&body));
    }
    let Search { places, secrets } = &run.search;
    let kinds: BTreeSet<_> = places.iter().map(|(place, _)| place).collect();
    let hits = run.search.hits();
    println!(
        "canary run: {} places of {} kinds searched for {} pieces of {} credentials; hits: {}",
        places.len(),
        kinds.len(),
        secrets.pieces(),
        secrets.number(),
        hits.len()
    );
    for kind in ["a KymaBinding", "an Event", "a Lease", "a ServiceAccount", "a Secret's metadata"] {
        assert!(kinds.iter().any(|found| *found == kind), "{kind} was not searched");
    }
    assert!(hits.is_empty(), "{hits:?}");
    planted(&mut run, &again).await;
    drop((operator, run));
    everywhere();
}

/// All tests search, each where it ends; so far, and where this one has looked for itself.
fn everywhere() {
    let searched = searched();
    println!("texts and bytes that were searched so far: {searched:?}");
    for kind in [
        "the log of operator",
        "the operator's cmdline",
        "the operator's environ",
        "/metrics",
        "an answer of the broker",
        "spans",
        "KymaBindings",
        "Events",
        "core Events",
        "Leases",
        "metadata of Secrets",
    ] {
        assert!(searched.get(kind).is_some_and(|(texts, _)| *texts > 0), "{kind}: none was searched");
    }
}

/// What somebody has put there is found, so nothing was there before.
async fn planted(run: &mut Run, token: &str) {
    run.stage.apply("canary-planted", "i-nobody", None).await.unwrap();
    let piece = &token[token.len() - PIECE..];
    let plant: Value = json!({"metadata": {"annotations": {"example.com/note": format!("see {piece}!")}}});
    let bindings = run.stage.bindings();
    bindings.patch("canary-planted", &PatchParams::default(), &Patch::Merge(&plant)).await.unwrap();
    run.search.place("a line of the log", format!("{{\"msg\":\"{piece}\"}}"));
    run.search.place("a line of the log", format!("{{\"msg\":\"{}\"}}", &piece[1..]));
    listed(&mut run.search, "a KymaBinding", run.stage.bindings()).await;
    let hits = run.search.hits();
    println!("planted: {} hits", hits.len());
    assert_eq!(
        hits,
        [
            "the second token of canary-3 in a KymaBinding",
            "the second token of canary-3 in a line of the log"
        ]
    );
    // The end of a stage finds it, too, and would fail this test if it were left there.
    let Stage { namespace, instance_namespace, .. } = &run.stage;
    let end = Stage::existing(run.stage.control(), namespace, instance_namespace);
    let told = catch_unwind(AssertUnwindSafe(|| drop(end))).unwrap_err();
    assert_eq!(told.downcast_ref::<String>().unwrap(), r#"in KymaBindings: {"a token that was issued"}"#);
    bindings.delete("canary-planted", &DeleteParams::default()).await.unwrap();
}
