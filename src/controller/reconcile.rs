//! One round for one binding: act as was decided, write the status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt as _;

use super::context::{Context, reason};
use super::decide::{self, GiveUp, Removal, Step};
use super::events::Told;
use super::ledger::{Admission, Ledger};
use super::look::{Known, Plan, rest};
use super::permanent::{ABANDONED, Permanent};
use super::queue::Action;
use super::status::{self, Outcome, Pin};
use crate::api::binding::KymaBinding;
use crate::api::conditions::{Kind, Reason};
use crate::api::names::NameError;
use crate::cluster::Failure;
use crate::controller::bind::{self, Made, Revoked, Terms};
use crate::controller::ledger::backoff::Retry;
use crate::controller::ledger::waiting::Wait;
use crate::controller::writer::PlaneError;
use crate::instances::state::{State, Target};
use crate::support::clock;
use crate::telemetry::logs;

/// How soon it is looked again whether the others of an instance are claimed.
const CLAIMING: Duration = Duration::from_millis(50);

/// Why a round ended early. The next one begins where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control plane did not do what was needed.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The object's name can't name other objects.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A defect of ours.
    #[error("a reconcile panicked")]
    Panicked,
}

/// One round for one binding, with what was known when it began.
pub(super) struct Round<'a> {
    pub(super) ctx: &'a Context,
    pub(super) binding: &'a KymaBinding,
    pub(super) known: Known,
}

/// Takes the step that was found, and says when to look again.
///
/// # Errors
/// When the control plane fails; a failing managed cluster is a condition, not an error.
pub async fn act(plan: Plan, binding: Arc<KymaBinding>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Plan { step, known, instance, record } = plan;
    let round = Round { ctx: &ctx, binding: &binding, known };
    match step {
        Step::Rest(until) => Ok(rest(until)),
        Step::AddFinalizer => round.add_finalizer().await,
        Step::Delete(why) => round.end(why, &instance).await,
        Step::Remove(removal) => round.remove(removal).await,
        Step::Hold(why, message) => round.settle(Outcome::Held(why, message)).await,
        Step::Reject(why, message) => round.reject(why, message, &instance).await,
        Step::Make(target) => round.make(&target).await,
        Step::Repair(target) => round.repair(&target).await,
        Step::Renew(target) => round.renew(&target).await,
        Step::Keep => round.settle(Outcome::StillIssued(record)).await,
    }
}

impl Round<'_> {
    async fn add_finalizer(&self) -> Result<Action, Error> {
        let written = self.ctx.plane.add_finalizer(self.binding).await?;
        self.ctx.ledger.lock().wrote(&self.known.owner.uid, &written);
        // The watch brings the object with its finalizer on.
        Ok(Action::await_change())
    }

    pub(super) async fn delete(&self, why: Reason) -> Result<Action, Error> {
        self.ctx.plane.delete_binding(self.binding).await?;
        self.ctx.ledger.lock().update(&self.known.owner.uid, |entry| entry.backoff.succeed());
        tracing::info!(
            binding_id = %self.known.owner.binding, instance_id = self.binding.spec.instance_id,
            reason = why.as_str(), "binding has ended"
        );
        Ok(Action::await_change())
    }

    async fn make(&self, target: &Target) -> Result<Action, Error> {
        let max = self.ctx.settings.max_bindings;
        let Known { owner, ends, now, .. } = &self.known;
        let admit = |ledger: &mut Ledger| ledger.admit(&owner.uid, *ends, *now);
        let admission = self.ctx.touched.wake(&self.ctx.ledger, admit);
        match admission {
            Admission::Seated => {}
            Admission::Refused => {
                let message = format!("maximum number of non expired bindings reached: {max}");
                return self.reject(Reason::LimitReached, message, &State::Ready(target.clone())).await;
            }
            Admission::Wait(wait) => return self.wait(wait).await,
            // The watch brings its end, or its time is over and the next look ends it.
            Admission::Gone => return Ok(rest(*ends)),
            Admission::ClaimFirst => {
                let written = self.ctx.plane.claim(self.binding).await?;
                self.ctx.ledger.lock().wrote(&self.known.owner.uid, &written);
                // The watch brings the object as it is now.
                return Ok(Action::await_change());
            }
            Admission::ClaimOthers => return Ok(Action::requeue(CLAIMING)),
        }
        self.ctx.metrics.bind_phase("limit", self.known.began.elapsed());
        let terms = Terms::first(self.binding, self.known.ends);
        match bind::make(self.ctx, self.binding, &self.known.owner, target, terms).await? {
            Made::Issued(issue) => {
                let (until, began) = (issue.expires_at, Instant::now());
                self.settle(Outcome::Issued(issue)).await?;
                self.ctx.metrics.bind_phase("status", began.elapsed());
                self.ctx.metrics.bound("issued");
                tracing::info!(
                    binding_id = %self.known.owner.binding, instance_id = self.binding.spec.instance_id, "kubeconfig issued"
                );
                let note =
                    format!("Secret {} holds a working kubeconfig", self.known.owner.binding.object_name());
                self.ctx.tell_applicant(self.binding, Told::Bound, note).await;
                Ok(rest(Some(until)))
            }
            Made::Failed(failure, pin) => self.fail(target, &failure, pin).await,
            Made::ForeignSecret => {
                self.fail_for_good(target, Permanent::ForeignObject, &self.foreign_secret(), None).await
            }
            Made::ClusterReplaced => self.delete(Reason::ClusterReplaced).await,
            Made::Overtaken => Ok(Action::requeue(Duration::from_secs(1))),
        }
    }

    /// All places are held, not all of them by issued bindings. It is looked at again when what it would be told
    /// changes, and when the next place is free by time alone.
    async fn wait(&self, wait: Wait) -> Result<Action, Error> {
        let said = self.binding.condition(Kind::Ready).map(|ready| ready.reason.as_str());
        let (say, pause) = wait.pause(said == Some(Reason::WaitingForPlace.as_str()), self.known.now);
        if say {
            let message = wait.message(self.ctx.settings.max_bindings);
            self.settle(Outcome::Held(Reason::WaitingForPlace, message)).await?;
        }
        Ok(Action::requeue(self.known.retry.pause(pause, clock::now())))
    }

    /// A managed cluster failed: what it may hold is removed where that is due, then it is said.
    async fn fail(&self, target: &Target, failure: &Failure, pin: Option<Pin>) -> Result<Action, Error> {
        if matches!(failure, Failure::Foreign { .. }) {
            return self.fail_for_good(target, Permanent::ForeignObject, &failure.to_string(), pin).await;
        }
        let touched = self.ctx.ledger.lock().entry(&self.known.owner.uid).is_some_and(|entry| entry.touched);
        if touched && matches!(failure, Failure::Token(_) | Failure::Misbehaves(_) | Failure::Altered { .. })
        {
            // A cluster that lies may have issued a token that nobody of us has seen: without its role
            // it is good for nothing. What can't be removed now is removed with the binding.
            self.revoke(target).await?;
        }
        self.retry(Outcome::Failing(reason(failure), failure.to_string(), pin)).await
    }

    pub(super) async fn fail_for_good(
        &self,
        target: &Target,
        why: Permanent,
        what: &str,
        pin: Option<Pin>,
    ) -> Result<Action, Error> {
        let (reason, message) = (why.reason(), why.message(what));
        if !self.revoke(target).await? {
            return self.retry(Outcome::Failing(reason, message, pin)).await;
        }
        if decide::is_issued(self.binding) {
            // What it holds is good for nothing any more.
            bind::delete_secret(self.ctx, &self.known.owner).await?;
        }
        let action = self.settle(Outcome::Failed(reason, message.clone())).await?;
        if !decide::is_issued(self.binding) {
            self.ctx.metrics.bound("failed");
        }
        self.permanent(reason.as_str(), &message);
        self.ctx.tell(self.binding, Told::Permanent(why), message).await;
        Ok(action)
    }

    /// Logs and counts a failure for good.
    fn permanent(&self, reason: &'static str, message: &str) {
        tracing::warn!(
            binding_id = %self.known.owner.binding, instance_id = self.binding.spec.instance_id,
            reason, "failed for good: {message}"
        );
        self.ctx.metrics.permanent_failure(reason);
    }

    /// Removes what the cluster may hold of the binding; false when it may hold it still.
    async fn revoke(&self, target: &Target) -> Result<bool, Error> {
        let Some(kubeconfig) = &target.kubeconfig else { return Ok(false) };
        let revoked = bind::revoke(self.ctx, self.binding, &self.known.owner, kubeconfig).await?;
        Ok(!matches!(revoked, Revoked::Failed(_)))
    }

    /// Refuses for good. One whose history we don't know may have been half-made by a process
    /// before us; that is removed first, so that a rejected binding never has anything.
    async fn reject(&self, why: Reason, message: String, instance: &State) -> Result<Action, Error> {
        let touched = self.ctx.ledger.lock().entry(&self.known.owner.uid).is_some_and(|entry| entry.touched);
        if touched && let State::Ready(target) = instance {
            if !self.revoke(target).await? {
                let message =
                    "what may be left of an earlier try can't be removed from the managed cluster yet";
                return self.retry(Outcome::Held(Reason::ClusterUnreachable, message.to_owned())).await;
            }
            bind::delete_secret(self.ctx, &self.known.owner).await?;
        }
        let permanent = Permanent::of(why);
        // A request is answered with what is wrong; its binding goes, and nobody has to delete it.
        let message = match permanent {
            Some(permanent) if !self.binding.is_from_osb() => permanent.message(&message),
            _ => message,
        };
        let action = self.settle(Outcome::Rejected(why, message.clone())).await?;
        self.ctx.metrics.bound("rejected");
        if why == Reason::LimitReached {
            self.ctx.metrics.limit_rejection();
        }
        if let Some(permanent) = permanent {
            self.permanent(why.as_str(), &message);
            self.ctx.tell_applicant(self.binding, Told::Permanent(permanent), message).await;
        }
        Ok(action)
    }

    async fn remove(&self, removal: Removal) -> Result<Action, Error> {
        let (mut result, mut expired, mut made) = ("removed", None, true);
        match removal {
            Removal::Nothing => made = false,
            Removal::Later(why) => {
                return self.retry(Outcome::Removing(why, status::not_removed(why).to_owned())).await;
            }
            Removal::GiveUp(why) => {
                result = "abandoned";
                self.give_up(why).await;
            }
            Removal::Revoke(kubeconfig) => {
                match bind::revoke(self.ctx, self.binding, &self.known.owner, &kubeconfig).await? {
                    Revoked::Gone => expired = self.binding.expires_at().map(|ended| (ended, clock::now())),
                    Revoked::ClusterReplaced => {
                        result = "abandoned";
                        self.give_up(GiveUp::ClusterReplaced).await;
                    }
                    Revoked::Failed(_) if self.binding.is_forgotten() => {
                        result = "abandoned";
                        self.give_up(GiveUp::Forgotten).await;
                    }
                    Revoked::Failed(failure) => {
                        self.ctx.ledger.lock().update(&self.known.owner.uid, |entry| {
                            entry.refusals = entry.refusals.saturating_add(1);
                        });
                        let message = format!("{failure}; what was made for this binding is not removed yet");
                        self.ctx.tell(self.binding, Told::CleanupFailed, message.clone()).await;
                        return self.retry(Outcome::Removing(reason(&failure), message)).await;
                    }
                }
            }
        }
        if made {
            // Last of all that was made: on it stands where the access is, for a process after this one, too.
            bind::delete_secret(self.ctx, &self.known.owner).await?;
        }
        // Said before, since the watch may tell of the end before the call returns.
        self.ctx.ledger.lock().update(&self.known.owner.uid, |entry| entry.released = true);
        self.ctx.plane.remove_finalizer(self.binding).await?;
        self.ctx.metrics.unbound(result);
        if result == "abandoned" {
            self.ctx.metrics.permanent_failure(ABANDONED);
        }
        if let Some((ended, revoked)) = expired {
            self.ctx.metrics.revoked(ended, revoked);
        }
        tracing::info!(binding_id = %self.known.owner.binding, instance_id = self.binding.spec.instance_id, "binding removed");
        Ok(Action::await_change())
    }

    /// Says that nobody removes the access, and remembers it until its last token has ended by itself.
    async fn give_up(&self, why: GiveUp) {
        let known = &self.known;
        let secret = self.ctx.secrets.get(&known.owner.binding, &known.owner.uid);
        let record = self.ctx.record(&known.owner.uid);
        let ends = decide::tokens_end(
            self.binding,
            record.map(|record| record.expires_at),
            secret.and_then(|s| s.created),
        );
        let cluster = self.ctx.pin(self.binding);
        let instance = &self.binding.spec.instance_id;
        self.ctx.abandoned.remember(&known.owner.uid, instance, cluster.as_deref(), ends, known.now);
        let note = status::given_up(why, ends);
        tracing::warn!(
            binding_id = %known.owner.binding, instance_id = self.binding.spec.instance_id,
            reason = ABANDONED, "{note}"
        );
        self.ctx.tell(self.binding, Told::Abandoned, note).await;
    }

    /// Writes the outcome if it is news, and rests until the binding ends.
    pub(super) async fn settle(&self, outcome: Outcome) -> Result<Action, Error> {
        self.write(&outcome).await?;
        self.ctx.ledger.lock().update(&self.known.owner.uid, |entry| entry.backoff.succeed());
        Ok(rest(self.known.again))
    }

    /// Writes the outcome if it is news, and tries again after a wait of this binding's own, or
    /// looks at it when its time is up. People are told of news only: tries may be many.
    pub(super) async fn retry(&self, outcome: Outcome) -> Result<Action, Error> {
        let news = self.write(&outcome).await?;
        if let Outcome::Failing(why, message, _) | Outcome::Held(why, message) = &outcome
            && let Some(told) = Told::of_trouble(*why).filter(|_| news)
        {
            self.ctx.tell(self.binding, told, message.clone()).await;
        }
        match outcome {
            Outcome::Removing(..) => self.ctx.metrics.unbound("retried"),
            // One that is issued is only mended.
            _ if decide::is_issued(self.binding) => {}
            _ => self.ctx.metrics.bound("retried"),
        }
        let mut wait = Duration::ZERO;
        self.ctx.ledger.lock().update(&self.known.owner.uid, |entry| {
            wait = entry.backoff.fail(self.known.retry.with.clone(), clock::now(), rand::random());
        });
        tracing::warn!(
            binding_id = %self.known.owner.binding,
            instance_id = self.binding.spec.instance_id,
            reason = outcome.reason().as_str(),
            wait_s = logs::rounded(wait.as_secs_f64()),
            "not done yet; trying again"
        );
        Ok(Action::requeue(self.known.retry.pause(wait, clock::now())))
    }

    /// Whether it was news.
    async fn write(&self, outcome: &Outcome) -> Result<bool, Error> {
        let Some(status) = status::desired(self.binding, outcome, self.known.now) else { return Ok(false) };
        let written = self.ctx.plane.write_status(self.binding, status).await?;
        self.ctx.ledger.lock().wrote(&self.known.owner.uid, &written);
        Ok(true)
    }
}

/// How soon a round that ended early is taken up again.
#[must_use]
pub fn after_error(binding: &KymaBinding, error: &Error, retry: &Retry, ctx: &Context) -> Action {
    match error {
        // The watch brings what changed; the wait is only a net.
        Error::Plane(PlaneError::Changed(_) | PlaneError::Gone(_)) => {
            tracing::debug!(binding_id = binding.name_any(), %error, "decided on an old version; deciding anew");
            Action::requeue(Duration::from_secs(1))
        }
        Error::Plane(_) | Error::Name(_) | Error::Panicked => {
            tracing::warn!(binding_id = binding.name_any(), %error, "reconcile failed; trying again");
            let mut wait = Duration::from_secs(1);
            let uid = binding.uid().unwrap_or_default();
            ctx.ledger.lock().update(&uid, |entry| {
                wait = entry.backoff.fail(retry.with.clone(), clock::now(), rand::random());
            });
            Action::requeue(retry.pause(wait, clock::now()))
        }
    }
}
