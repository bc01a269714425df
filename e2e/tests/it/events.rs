//! What people are told by Events. Those of a repair are in `sweep`, those of each death in `dead_clusters`.

use e2e::stage::SOON;
use e2e::{Stage, eventually};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{claim, program, stage, world};

/// Waits for the Event of that type and reason about a binding.
pub async fn told(stage: &Stage<'_>, binding: &str, type_: &str, reason: &str) -> Event {
    let events: Api<Event> = Api::namespaced(stage.control().client(), &stage.namespace);
    let about = |event: &Event| {
        let object = event.regarding.clone().unwrap_or_default();
        object.kind.as_deref() == Some("KymaBinding") && object.name.as_deref() == Some(binding)
    };
    eventually(&format!("the Event {reason} of {binding}"), SOON, async || {
        let events: Vec<_> = events.list(&ListParams::default()).await.unwrap().items;
        let events: Vec<_> = events.into_iter().filter(about).collect();
        let words: Vec<_> = events.iter().filter_map(|event| event.reason.clone()).collect();
        let mut fits = events.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
        fits.next().ok_or_else(|| words.join(" "))
    })
    .await
    .map(|event| {
        assert_eq!(event.type_.as_deref(), Some(type_), "{event:?}");
        event
    })
    .unwrap()
}

#[tokio::test]
async fn what_a_person_must_know_is_told_and_the_same_again_only_counts_up() {
    let (stage, instance) = stage("events").await;
    let operator = stage.operator(program(), &["--max-bindings-per-instance", "1"]).await.unwrap();
    stage.apply("events-1", &instance, None).await.unwrap();
    let bound = told(&stage, "events-1", "Normal", "Bound").await;
    assert!(bound.note.unwrap().contains("kyma-binding-events-1"));
    let described = ["-n", &stage.namespace, "describe", "kb", "events-1"];
    let described = stage.control().kubectl(&described).await.unwrap();
    assert!(described.contains("Normal  Bound"), "{described}");

    stage.apply("events-2", &instance, None).await.unwrap();
    let rejected = told(&stage, "events-2", "Warning", "LimitReached").await.note.unwrap();
    assert!(rejected.starts_with("maximum number of non expired bindings reached: 1"), "{rejected}");
    assert!(rejected.contains(": delete another binding of this instance"), "what to do: {rejected}");

    // While its cluster is away, a new one can't be made and an old one can't be removed.
    let admin = world().await.managed.admin_kubeconfig();
    let nobody = admin.replace(world().await.managed.url(), "https://127.0.0.1:9");
    stage.register("i-events-away", "r-events-away", &nobody).await.unwrap();
    stage.apply("events-3", "i-events-away", None).await.unwrap();
    let away = told(&stage, "events-3", "Warning", "ClusterUnreachable").await;
    assert!(away.note.unwrap().contains("connection refused"));
    stage.rotate("r-events", Some(&nobody)).await.unwrap();
    stage.bindings().delete("events-1", &DeleteParams::default()).await.unwrap();
    eventually("the second failure to be counted", SOON, async || {
        let failed = told(&stage, "events-1", "Warning", "CleanupFailed").await;
        let count = failed.series.as_ref().map_or(1, |series| series.count);
        if count >= 2 { Ok(()) } else { Err(count) }
    })
    .await
    .unwrap();
    let events: Api<Event> = Api::namespaced(stage.control().client(), &stage.namespace);
    let all = events.list(&ListParams::default()).await.unwrap().items;
    let failures = all.iter().filter(|event| event.reason.as_deref() == Some("CleanupFailed"));
    assert_eq!(failures.count(), 1, "one object, however often");
    let forget =
        Patch::Merge(json!({"metadata": {"annotations": {"bindings.kyma-project.io/forget": "true"}}}));
    stage.bindings().patch("events-1", &PatchParams::default(), &forget).await.unwrap();
    told(&stage, "events-1", "Warning", "Abandoned").await;
    stage.gone("events-1", SOON).await.unwrap();

    stage.register("i-events-refused", "r-events-refused", "apiVersion: v1\nkind: Config\n").await.unwrap();
    stage.apply("events-4", "i-events-refused", None).await.unwrap();
    told(&stage, "events-4", "Warning", "KubeconfigRefused").await;

    stage.register("i-events-foreign", "r-events-foreign", &admin).await.unwrap();
    claim("events-5").await;
    stage.apply("events-5", "i-events-foreign", None).await.unwrap();
    let foreign = told(&stage, "events-5", "Warning", "ForeignObject").await.note.unwrap();
    assert!(foreign.contains("delete it where nobody needs it, or take another name"), "{foreign}");

    // One name each in condition, Event, log and metric.
    for (name, binding) in [("LimitReached", "events-2"), ("ForeignObject", "events-5")] {
        stage.condition(binding, "Stalled", "True", name).await.unwrap();
    }
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    for (name, binding) in
        [("LimitReached", "events-2"), ("ForeignObject", "events-5"), ("Abandoned", "events-1")]
    {
        let counted = format!("kyma_bindings_permanent_failures_total{{reason=\"{name}\"}} 1\n");
        assert!(metrics.contains(&counted), "{counted} is not in: {metrics}");
        let reason = format!("\"reason\":\"{name}\"");
        let logged =
            |line: &str| line.contains("\"WARN\"") && line.contains(&reason) && line.contains(binding);
        assert!(operator.log().lines().any(logged), "{name} of {binding} is not in the log");
    }
}
