//! The access of a binding whose kubeconfig is in somebody's hands: is it as it was made, and if
//! not, can it be again?

use super::access::{Bound, Uids};
use super::compare::rules_were_changed;
use super::manifest::Kind;
use super::ownership::Verdict;
use crate::cluster::error::Failure;

/// How a repair went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// All is as it was made; whether something had to be made again.
    Done {
        /// False when nothing was wrong.
        restored: bool,
    },
    /// The account is another one or none: the tokens died with it, and no repair brings them back.
    AccountLost,
    /// The role is gone and its owner had changed it: made anew, it would give back what was taken.
    RightsLost,
}

impl Bound<'_> {
    /// Whether the role binding gives the account its role, and nobody else.
    ///
    /// # Errors
    /// When the cluster fails.
    pub async fn is_intact(&self) -> Result<bool, Failure> {
        let kind = Kind::ClusterRoleBinding;
        Ok(self.find(kind).await?.is_some_and(|found| self.is_as_asked(kind, &found)))
    }

    /// Whether the cluster's owner has changed the rules of the role. One that is gone tells nothing.
    ///
    /// # Errors
    /// When the cluster fails.
    pub async fn is_changed(&self) -> Result<Option<bool>, Failure> {
        let found = self.find(Kind::ClusterRole).await?;
        Ok(found.map(|found| rules_were_changed(&found.object)))
    }

    /// Makes role and role binding again where they are missing or not as they were made. The
    /// role's rules belong to the cluster's owner: a role that is there stays as it is, and one that was
    /// seen `changed` is not made anew.
    ///
    /// # Errors
    /// When the cluster fails, or a name of ours belongs to somebody else now.
    pub async fn repair(&self, known: &Uids, changed: bool) -> Result<Repair, Failure> {
        let account = self.find(Kind::ServiceAccount).await?.map(|found| found.metadata);
        let Some(account) = account else { return Ok(Repair::AccountLost) };
        // Another account of the name and with our marks is a copy: no token of ours is good for it.
        let same = known.service_account.is_none() || known.service_account == account.uid;
        match self.owner.verdict(&account) {
            Verdict::Foreign => return Err(self.foreign(Kind::ServiceAccount)),
            Verdict::Ours if same && account.deletion_timestamp.is_none() => {}
            Verdict::Ours | Verdict::Leftover => return Ok(Repair::AccountLost),
        }
        let mut restored = false;
        for kind in [Kind::ClusterRole, Kind::ClusterRoleBinding] {
            let found = self.find(kind).await?;
            let ours = found.filter(|found| self.owner.verdict(&found.metadata) == Verdict::Ours);
            if ours.as_ref().is_some_and(|found| self.is_as_asked(kind, found)) {
                continue;
            }
            if kind == Kind::ClusterRole && changed {
                return Ok(Repair::RightsLost);
            }
            // A role binding's role can't be changed, so it is made anew.
            if let Some(uid) = ours.and_then(|found| found.metadata.uid) {
                self.delete(kind, &uid).await?;
            }
            self.ensure(kind).await?;
            restored = true;
        }
        Ok(Repair::Done { restored })
    }
}
