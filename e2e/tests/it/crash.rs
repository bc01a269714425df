//! The process is aborted before and after each of its outside calls, and started again.
//!
//! The calls of each flow are written down here. What a whole flow really calls is compared with
//! that first, so no call is added without being among those that are tried.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::invariants::{Witness, check_nothing_left};
use e2e::osb::Answer;
use e2e::stage::SOON;
use e2e::{Exit, Operator, Stage, WorkDir, eventually};
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{program, stage, world};

/// Bindings that an instance may have here: one at a time is made.
const LIMIT: usize = 1;

/// PUT, up to its 201.
const BIND: &[&str] = &[
    "broker: create the binding",
    "controller: read the kubeconfig",
    "managed: GET namespaces",
    "managed: POST serviceaccounts",
    "managed: POST clusterroles",
    "managed: POST clusterrolebindings",
    "managed: POST serviceaccounts/token",
    "managed: POST tokenreviews",
    "controller: create the Secret",
    "controller: write the status",
];

/// The same by `kubectl apply`.
const APPLY: &[&str] = &[
    "controller: add the finalizer",
    "controller: read the kubeconfig",
    "managed: GET namespaces",
    "managed: POST serviceaccounts",
    "managed: POST clusterroles",
    "managed: POST clusterrolebindings",
    "managed: POST serviceaccounts/token",
    "managed: POST tokenreviews",
    "controller: create the Secret",
    "controller: write the status",
    "controller: write the Event",
];

/// A bind that a process before has left with a Secret and without a status, taken up.
const RESUME: &[&str] = &[
    "controller: claim the binding",
    "controller: read the kubeconfig",
    "managed: GET namespaces",
    "managed: POST serviceaccounts",
    "managed: GET serviceaccounts",
    "managed: POST clusterroles",
    "managed: GET clusterroles",
    "managed: POST clusterrolebindings",
    "managed: GET clusterrolebindings",
    "managed: POST serviceaccounts/token",
    "managed: POST tokenreviews",
    "controller: create the Secret",
    "controller: read the binding",
    "controller: read the Secret",
    "controller: delete the Secret",
    "controller: write the status",
];

/// DELETE, by a process that has not made the binding: it knows what was made, because it is written down.
const UNBIND: &[&str] = &[
    "broker: delete the binding",
    "controller: read the kubeconfig",
    "managed: GET namespaces",
    "managed: DELETE clusterrolebindings",
    "managed: DELETE clusterroles",
    "managed: DELETE serviceaccounts",
    "controller: delete the Secret",
    "controller: remove the finalizer",
];

/// The end of its time instead.
const EXPIRY: &[&str] = &[
    "controller: delete the binding",
    "controller: read the kubeconfig",
    "managed: GET namespaces",
    "managed: DELETE clusterrolebindings",
    "managed: DELETE clusterroles",
    "managed: DELETE serviceaccounts",
    "controller: delete the Secret",
    "controller: remove the finalizer",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Bind,
    /// Begun by PUT; the object is deleted while nobody runs, before what was made is known.
    Abandon,
    Apply,
    Resume,
    Unbind,
    Expiry,
}

struct Scene {
    flow: Flow,
    stage: Stage<'static>,
    instance: String,
    witness: Witness,
}

#[tokio::test]
async fn at_each_call_of_a_bind() {
    try_all(Flow::Bind, "crash-bind", BIND).await.unwrap();
}

#[tokio::test]
async fn at_each_call_of_a_bind_that_is_given_up() {
    try_all(Flow::Abandon, "crash-abandon", BIND).await.unwrap();
}

#[tokio::test]
async fn at_each_call_of_an_applied_bind() {
    try_all(Flow::Apply, "crash-apply", APPLY).await.unwrap();
}

#[tokio::test]
async fn at_each_call_of_a_bind_that_is_taken_up() {
    try_all(Flow::Resume, "crash-resume", RESUME).await.unwrap();
}

#[tokio::test]
async fn at_each_call_of_an_unbind() {
    try_all(Flow::Unbind, "crash-unbind", UNBIND).await.unwrap();
}

#[tokio::test]
async fn at_each_call_of_an_expiry() {
    try_all(Flow::Expiry, "crash-expiry", EXPIRY).await.unwrap();
}

async fn try_all(flow: Flow, name: &str, calls: &[&str]) -> Result<()> {
    let points: Vec<_> =
        calls.iter().flat_map(|call| [format!("before {call}"), format!("after {call}")]).collect();
    let (stage, instance) = stage(name).await;
    let scene = Scene { flow, stage, instance, witness: Witness::default() };
    scene.compare_calls(&format!("{name}-calls"), &points).await.context("the calls of the whole flow")?;
    for (number, point) in points.iter().enumerate() {
        let tried = scene.try_point(&format!("{name}-{number}"), point).await;
        println!("{} {flow:?}: {point}", if tried.is_ok() { "✓" } else { "✗" });
        tried.with_context(|| format!("{flow:?}: {point}"))?;
    }
    Ok(())
}

impl Scene {
    /// Runs the whole flow once and compares the points on its way with the list.
    async fn compare_calls(&self, binding: &str, points: &[String]) -> Result<()> {
        self.prepare(binding).await?;
        let dir = WorkDir::new("points")?;
        let list = dir.path().join("points");
        let path = list.to_str().context("the path is not UTF-8")?;
        let operator = self.start(&[("KYMA_BINDINGS_LIST_POINTS", path)]).await?;
        let first = self.begin(&operator, binding).await?;
        self.take(binding, first?)?;
        let expected: BTreeSet<_> = points.iter().cloned().collect();
        let compare = || {
            let met: BTreeSet<_> = std::fs::read_to_string(&list)?.lines().map(str::to_owned).collect();
            let (new, old): (Vec<_>, Vec<_>) =
                (met.difference(&expected).collect(), expected.difference(&met).collect());
            ensure!(new.is_empty() && old.is_empty(), "not in this test: {new:?}; never met: {old:?}");
            Ok(())
        };
        // The watch brings what a call did, and with it the answer, before the call returns.
        eventually("the calls to be those in the list", SOON, async || compare()).await?;
        operator.terminate().await?;
        compare()?;
        self.finish(binding).await
    }

    /// Aborts the process at one point, starts another one and does what a platform would do.
    async fn try_point(&self, binding: &str, point: &str) -> Result<()> {
        self.prepare(binding).await?;
        let abort = [("KYMA_BINDINGS_ABORT_AT", point)];
        if self.flow == Flow::Resume {
            self.abort_by_itself(&abort).await?;
        } else {
            let operator = self.start(&abort).await?;
            let answered = self.begin(&operator, binding).await?;
            self.expect_abort(operator.ended().await?, &operator.log())?;
            // Whatever it still answered is a promise.
            if let Ok(answer) = answered {
                self.take(binding, answer)?;
            }
        }
        self.finish(binding).await
    }

    /// What the flow starts from.
    async fn prepare(&self, binding: &str) -> Result<()> {
        match self.flow {
            Flow::Bind | Flow::Abandon | Flow::Apply => {}
            Flow::Unbind | Flow::Expiry => {
                let operator = self.start(&[]).await?;
                self.take(binding, Some(operator.osb().bind(&self.instance, binding, None).await?))?;
                operator.kill().await?;
            }
            Flow::Resume => {
                let abort = [("KYMA_BINDINGS_ABORT_AT", "after controller: create the Secret")];
                let operator = self.start(&abort).await?;
                let answered = operator.osb().bind(&self.instance, binding, None).await;
                ensure!(answered.is_err(), "it answered before it had made anything");
                self.expect_abort(operator.ended().await?, &operator.log())?;
            }
        }
        Ok(())
    }

    /// Sets the flow going. The inner result is what the client got, if this flow has one.
    async fn begin(&self, operator: &Operator, binding: &str) -> Result<Result<Option<Answer>>> {
        let osb = operator.osb();
        Ok(match self.flow {
            Flow::Bind | Flow::Abandon => osb.bind(&self.instance, binding, None).await.map(Some),
            Flow::Apply => {
                self.stage.apply(binding, &self.instance, None).await?;
                Ok(None)
            }
            Flow::Resume => {
                self.stage.ready(binding).await?;
                Ok(None)
            }
            Flow::Unbind => {
                self.witness.deleting(binding);
                osb.unbind(&self.instance, binding).await.map(Some)
            }
            Flow::Expiry => {
                self.witness.deleting(binding);
                let past = Timestamp::now() - SignedDuration::from_secs(1);
                let patch = Patch::Merge(json!({"status": {"expiresAt": past}}));
                self.stage.bindings().patch_status(binding, &PatchParams::default(), &patch).await?;
                Ok(None)
            }
        })
    }

    /// Remembers an answer; one that isn't success is a failure of the test.
    fn take(&self, binding: &str, answer: Option<Answer>) -> Result<()> {
        let Some(answer) = answer else { return Ok(()) };
        match (self.flow, answer.status) {
            (Flow::Unbind, 200) if answer.kubeconfig().is_err() => self.witness.ended(binding),
            (_, 200 | 201) => self.witness.returned(&self.instance, binding, &answer)?,
            (_, status) => return Err(anyhow!("{status} {}", answer.description())),
        }
        Ok(())
    }

    /// Starts an undisturbed operator, brings the flow to its end, and checks what must hold: with
    /// the binding if there is one now, and when it is gone.
    async fn finish(&self, binding: &str) -> Result<()> {
        if self.flow == Flow::Abandon {
            self.witness.deleting(binding);
            match self.stage.bindings().delete(binding, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                deleted => drop(deleted?),
            }
        }
        let operator = self.start(&[]).await?;
        let osb = operator.osb();
        let managed = [&world().await.managed];
        match self.flow {
            Flow::Bind | Flow::Resume => {
                let answer = osb.bind(&self.instance, binding, None).await?;
                self.take(binding, Some(answer))?;
            }
            Flow::Apply => {
                self.stage.ready(binding).await?;
                self.take(binding, Some(osb.fetch(&self.instance, binding).await?))?;
            }
            Flow::Unbind => {}
            Flow::Abandon | Flow::Expiry => {
                self.stage.gone(binding, SOON).await?;
                self.witness.ended(binding);
            }
        }
        let makes = matches!(self.flow, Flow::Bind | Flow::Resume | Flow::Apply);
        ensure!(self.witness.held() == usize::from(makes), "{} are held", self.witness.held());
        if makes {
            self.witness.check_all(&self.stage, &managed, &osb, LIMIT).await?;
        }
        self.witness.deleting(binding);
        let gone_before = !self.witness.is_alive(binding);
        let answer = osb.unbind(&self.instance, binding).await?;
        let fits = match answer.status {
            // Somebody who asked before may have got it done, or the end of its time.
            410 => !makes,
            status => status == 200 && !gone_before,
        };
        ensure!(fits, "DELETE answers {} {}", answer.status, answer.description());
        self.witness.ended(binding);
        self.witness.check_tokens(binding).await?;
        let found = osb.fetch(&self.instance, binding).await?;
        ensure!(found.status == 404, "GET answers {} after the end", found.status);
        check_nothing_left(&self.stage, &managed).await?;
        self.witness.check_stage_for_secrets(&self.stage).await?;
        operator.kill().await?;
        self.witness.check_secrets("the log of the operator", &operator.log())
    }

    async fn start(&self, envs: &[(&str, &str)]) -> Result<Operator> {
        let dir = Arc::new(WorkDir::new("operator")?);
        let kubeconfig = self.stage.control().kubeconfig_path();
        let operator = Operator::launch_with(&dir, program(), kubeconfig, &self.args(), envs).await?;
        operator.ready().await?;
        Ok(operator)
    }

    /// Starts an operator that has work to do at once, so that it may end before it is ready.
    async fn abort_by_itself(&self, envs: &[(&str, &str)]) -> Result<()> {
        let dir = Arc::new(WorkDir::new("operator")?);
        let kubeconfig = self.stage.control().kubeconfig_path();
        let process = Operator::spawn(&dir, program(), kubeconfig, &self.args(), envs)?;
        self.expect_abort(process.wait(SOON).await?, &process.log())
    }

    fn args(&self) -> Vec<&str> {
        [&self.stage.args()[..], &["--max-bindings-per-instance", "1"]].concat()
    }

    fn expect_abort(&self, exit: Exit, log: &str) -> Result<()> {
        ensure!(exit == Exit::Signal(6), "the operator ended with {exit}, not by its abort");
        self.witness.check_secrets("the log of the operator that was aborted", log)
    }
}
