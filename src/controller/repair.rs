//! Mending a binding that was issued: its access in the managed cluster, and its Secret.

use std::time::Duration;

use super::context::reason;
use super::events::Told;
use super::look::rest;
use super::permanent::Permanent;
use super::queue::Action;
use super::reconcile::{Error, Round};
use super::status::Outcome;
use crate::api::conditions::Reason;
use crate::cluster::Failure;
use crate::cluster::error::Missing;
use crate::cluster::repair::Repair;
use crate::controller::bind::{self, Made, Terms};
use crate::instances::state::Target;

impl Round<'_> {
    /// The access of an issued binding may not be as it was made.
    pub(super) async fn repair(&self, target: &Target) -> Result<Action, Error> {
        // A doubt that comes while this looks is a new one.
        self.ctx.ledger.lock().update(&self.known.owner.uid, |entry| entry.doubted = false);
        let repaired = match &target.kubeconfig {
            Some(kubeconfig) => bind::repair(self.ctx, self.binding, &self.known.owner, kubeconfig).await?,
            None => Err(Missing::Secret(target.runtime_id.clone()).into()),
        };
        match repaired {
            Ok(Some(Repair::Done { restored })) => {
                self.ctx.ledger.lock().update(&self.known.owner.uid, |entry| entry.backoff.succeed());
                if restored {
                    let note = "role or role binding was missing or changed in the managed cluster; it was made again";
                    self.tell_repaired(note).await;
                }
                // Where the Secret is missing, too, it is its turn; else the status is set right.
                Ok(Action::requeue(Duration::ZERO))
            }
            Ok(Some(Repair::AccountLost)) => self.account_lost(target).await,
            Ok(Some(Repair::RightsLost)) => self.rights_lost(target).await,
            Ok(None) => self.delete(Reason::ClusterReplaced).await,
            Err(failure @ Failure::Foreign { .. }) => {
                self.fail_for_good(target, Permanent::ForeignObject, &failure.to_string(), None).await
            }
            Err(failure) => {
                self.ctx.ledger.lock().update(&self.known.owner.uid, |entry| entry.doubted = true);
                self.retry(Outcome::Held(reason(&failure), failure.to_string())).await
            }
        }
    }

    async fn account_lost(&self, target: &Target) -> Result<Action, Error> {
        let what =
            "the ServiceAccount was deleted in the managed cluster, and the kubeconfig's token with it";
        self.fail_for_good(target, Permanent::AccessLost, what, None).await
    }

    async fn rights_lost(&self, target: &Target) -> Result<Action, Error> {
        let what = "the ClusterRole was changed and then deleted in the managed cluster, and is not made again with all \
                    rights";
        self.fail_for_good(target, Permanent::AccessLost, what, None).await
    }

    /// The Secret of an issued binding is gone.
    pub(super) async fn renew(&self, target: &Target) -> Result<Action, Error> {
        // The watch may only be behind; a cluster that fails meanwhile is no reason to hide the binding.
        if bind::has_secret(self.ctx, &self.known.owner).await? {
            return Ok(Action::requeue(Duration::from_secs(1)));
        }
        // Whether its account is still there comes first: a new one would make the kubeconfigs that
        // are out work never again, and nobody would be told.
        // And a status that somebody forged is no admission: nothing is made where nothing was.
        if let Some(kubeconfig) = &target.kubeconfig {
            match bind::repair(self.ctx, self.binding, &self.known.owner, kubeconfig).await? {
                Ok(Some(Repair::Done { .. }) | None) | Err(Failure::Foreign { .. }) => {}
                Ok(Some(Repair::AccountLost)) => return self.account_lost(target).await,
                Ok(Some(Repair::RightsLost)) => return self.rights_lost(target).await,
                Err(failure) => return self.not_renewed(&failure).await,
            }
        }
        let terms = Terms::again(self.known.ends, self.known.now);
        match bind::make(self.ctx, self.binding, &self.known.owner, target, terms).await? {
            Made::Issued(issue) => {
                let until = issue.expires_at;
                self.settle(Outcome::Issued(issue)).await?;
                let note =
                    "the Secret was missing; it was made again with a fresh token for the time that is left";
                self.tell_repaired(note).await;
                Ok(rest(Some(until)))
            }
            Made::Failed(failure @ Failure::Foreign { .. }, pin) => {
                self.fail_for_good(target, Permanent::ForeignObject, &failure.to_string(), pin).await
            }
            Made::Failed(failure, _) => self.not_renewed(&failure).await,
            Made::ForeignSecret => {
                self.retry(Outcome::Held(Reason::ForeignObject, self.foreign_secret())).await
            }
            Made::ClusterReplaced => self.delete(Reason::ClusterReplaced).await,
            Made::Overtaken => Ok(Action::requeue(Duration::from_secs(1))),
        }
    }

    async fn not_renewed(&self, failure: &Failure) -> Result<Action, Error> {
        let message = format!("the Secret is missing and can't be made again yet: {failure}");
        self.retry(Outcome::Held(reason(failure), message)).await
    }

    async fn tell_repaired(&self, note: &str) {
        tracing::warn!(binding_id = %self.known.owner.binding, instance_id = self.binding.spec.instance_id, "{note}");
        self.ctx.tell(self.binding, Told::Repaired, note.to_owned()).await;
    }

    pub(super) fn foreign_secret(&self) -> String {
        let name = self.known.owner.binding.object_name();
        format!("Secret {name} exists in the control plane and was not made for this binding")
    }
}
