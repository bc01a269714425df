//! A managed cluster that lies, in every way that we could think of: each lie has its condition in our
//! words, costs a bounded time and memory, and leaves nothing behind, neither of us there nor of it here.

use std::time::Duration;

use e2e::level::peak_memory;
use e2e::liar::Liar;
use e2e::stage::{SOON, prove, prove_refused};
use e2e::{Osb, Stage, eventually};
use futures::future::join_all;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};

use crate::canary::pieces;
use crate::lies_told::{CONTROL, Row, STRANGER, rows};
use crate::world::{program, stage};

/// How much more memory than before all lies together may cost, MiB. Each of the calls under way may hold an
/// answer of 1 MiB, and what an allocator keeps of it.
const SPARE_MEMORY: u64 = 64;
/// How long any lie may keep anybody waiting: some calls and their retries, not more.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lies_harms_nobody_and_has_its_cause_named() {
    let (stage, instance) = stage("lies").await;
    let operator = stage.operator(program(), &["--create-timeout", "1s"]).await.unwrap();
    let osb = operator.osb();
    // A client, a watch and all else that is made once is there before it is measured.
    osb.bound(&instance, "lies-first").await.unwrap();
    let before = peak_memory(operator.pid()).unwrap();

    CONTROL.get_or_init(|| stage.control().url().to_owned());
    let rows = rows();
    let told = join_all(rows.iter().enumerate().map(|(i, row)| live_with(&stage, &osb, i, row)));
    let healthy = async {
        for i in 0..10 {
            let name = format!("lies-healthy-{i}");
            let kubeconfig = osb.bound(&instance, &name).await.unwrap().kubeconfig().unwrap().to_owned();
            prove(&kubeconfig).await.unwrap();
            assert_eq!(osb.unbind(&instance, &name).await.unwrap().status, 200);
            prove_refused(&kubeconfig).await.unwrap();
        }
    };
    let (told, ()) = futures::join!(told, healthy);

    let peak = peak_memory(operator.pid()).unwrap();
    let events: Api<Event> = Api::namespaced(stage.control().client(), &stage.namespace);
    let events = serde_json::to_string(&events.list(&ListParams::default()).await.unwrap().items).unwrap();
    let metrics = operator.admin("/metrics").await.unwrap().1;
    operator.terminate().await.unwrap();
    let log = operator.log();
    for (row, (said, secrets)) in rows.iter().zip(&told) {
        let places = [("log", &log), ("Events", &events), ("metrics", &metrics), ("answers", said)];
        for (place, text) in places {
            assert!(!text.contains(STRANGER), "{}: its words are in the {place}", row.lie);
            for piece in secrets.iter().flat_map(|secret| pieces(secret)) {
                assert!(!text.contains(piece), "{}: a credential is in the {place}", row.lie);
            }
        }
        println!("✔ {}: {} {}", row.lie, row.reason, row.says);
    }
    println!("{} lies; peak memory {peak} MiB, {before} MiB before", rows.len());
    assert!(peak <= before + SPARE_MEMORY, "{peak} MiB, {before} MiB before");
}

/// One instance whose cluster tells one lie. Returns all that was said of it here, and what is secret of it.
async fn live_with(stage: &Stage<'_>, osb: &Osb, i: usize, row: &Row) -> (String, Vec<String>) {
    let liar = Liar::start(row.tell).await.unwrap();
    let (instance, binding) = (format!("i-lies-{i}"), format!("lies-{i}"));
    stage.register(&instance, &format!("r-lies-{i}"), liar.kubeconfig()).await.unwrap();
    // Thirty are registered at this moment: one may be asked for before its registration is known.
    let first = eventually("the instance to be known", SOON, async || {
        let answer = osb.bind(&instance, &binding, None).await.unwrap();
        if answer.status == 404 { Err(answer.description().to_owned()) } else { Ok(answer) }
    });
    let first = first.await.unwrap();
    let issued = row.reason == "Issued";
    let status = if issued { "True" } else { "False" };
    let what = format!("{}: Ready={status} {} {}", row.lie, row.reason, row.says);
    let seen = eventually(&what, PATIENCE, async || {
        let binding = stage.bindings().get(&binding).await.unwrap();
        let conditions = binding.status.clone().unwrap_or_default().conditions;
        let fits = conditions.iter().any(|c| {
            (c.type_.as_str(), c.status.as_str(), c.reason.as_str()) == ("Ready", status, row.reason)
                && c.message.contains(row.says)
        });
        if fits { Ok(binding) } else { Err(format!("{conditions:?}")) }
    })
    .await
    .unwrap();
    // The same PUT joins it, and says why there is no kubeconfig.
    let joined = eventually(&format!("{what}, by HTTP"), PATIENCE, async || {
        let answer = osb.bind(&instance, &binding, None).await.unwrap();
        let fits = if issued {
            answer.kubeconfig().is_ok()
        } else {
            answer.status == 503 && answer.description().contains(row.says)
        };
        if fits { Ok(answer) } else { Err(answer.description().to_owned()) }
    })
    .await
    .unwrap();
    // Somebody may have a token that was not seen here: until the next try there is nothing to use it for.
    if matches!(row.reason, "TokenRefused" | "ClusterMisbehaves" | "ObjectAltered") && !row.about_everything {
        eventually(&format!("{}: what was made to be removed", row.lie), PATIENCE, async || {
            let left = liar.objects();
            if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
        })
        .await
        .unwrap();
    }
    if row.about_everything {
        liar.repent();
    }
    let removed = eventually(&format!("{}: the unbind", row.lie), PATIENCE, async || {
        let answer = osb.unbind(&instance, &binding).await.unwrap();
        if matches!(answer.status, 200 | 410) { Ok(answer.body.to_string()) } else { Err(answer.body) }
    })
    .await
    .unwrap();
    stage.gone(&binding, SOON).await.unwrap();
    assert_eq!(liar.objects(), Vec::<String>::new(), "{}: something is left", row.lie);
    // A kubeconfig that was handed out is its owner's; all else is for anybody to read.
    let said = [
        first.description().to_owned(),
        joined.description().to_owned(),
        serde_json::to_string(&seen).unwrap(),
        removed,
    ];
    (said.join("\n"), liar.secrets())
}
