//! The end of a binding whose time is over: its rights go first.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::decide;
use super::queue::Action;
use super::reconcile::{Error, Round};
use crate::api::conditions::Reason;
use crate::cluster::Failure;
use crate::cluster::access::Bound;
use crate::controller::ledger::entry::Rights;
use crate::instances::state::{State, Target};

/// How long the rest of a binding waits for the rights of all.
const FIRST: Duration = Duration::from_secs(2);

/// A binding that is losing its rights.
struct Disarming<'a>(&'a watch::Sender<usize>);

impl<'a> Disarming<'a> {
    fn begin(all: &'a watch::Sender<usize>) -> Self {
        all.send_modify(|number| *number += 1);
        Self(all)
    }
}

impl Drop for Disarming<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|number| *number -= 1);
    }
}

impl Round<'_> {
    /// Deletes the object; where its time is over, its role binding before it. Many bindings may end in one second, and
    /// the access of none shall wait for what else is to be removed of the others. That goes by the road of all
    /// removals, and so does the role binding, if it can't be removed at once.
    pub(super) async fn end(&self, why: Reason, instance: &State) -> Result<Action, Error> {
        if let (Reason::Expired, Some(target)) = (why, instance.target())
            && decide::is_issued(self.binding)
        {
            let until = Instant::now() + FIRST;
            let disarming = Disarming::begin(&self.ctx.disarming);
            if let Ok(Ok(true)) = tokio::time::timeout_at(until, self.disarm(target)).await {
                self.ctx.ledger.lock().update(&self.known.owner.uid, |entry| entry.rights = Rights::Taken);
            }
            drop(disarming);
            let mut all = self.ctx.disarming.subscribe();
            // Whoever sends is there as long as the context.
            let _ = tokio::time::timeout_at(until, all.wait_for(|number| *number == 0)).await;
        }
        self.delete(why).await
    }

    /// Removes the role binding where all is known that is needed for it; false elsewhere.
    async fn disarm(&self, target: &Target) -> Result<bool, Failure> {
        let record =
            self.ctx.record(&self.known.owner.uid).filter(|made| made.runtime_id == target.runtime_id);
        let (Some(record), Some(kubeconfig)) = (record, &target.kubeconfig) else { return Ok(false) };
        let cluster = self.ctx.clients.get(kubeconfig).await?;
        if record.cluster_id != cluster.id {
            return Ok(false);
        }
        Bound::new(&cluster, &self.known.owner, &self.ctx.settings.managed_namespace)
            .disarm(&record.uids)
            .await
    }
}
