//! The access of a binding whose kubeconfig is in somebody's hands: is it as it was made, and if
//! not, can it be again?

use http::StatusCode;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::GetParams;
use kube::core::Request;

use super::access::{Bound, Kind, Uids};
use super::failure::{Failure, Misbehaviour};
use super::ownership::Verdict;

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
        let request =
            Request::new(self.path(Kind::ClusterRoleBinding)).get(&self.name, &GetParams::default());
        let answer = self.send(request).await?;
        match answer.status {
            StatusCode::OK => self.is_as_made(answer.parse()?),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(answer.failure()),
        }
    }

    /// Whether the cluster's owner has changed the rules of the role. One that is gone tells nothing.
    ///
    /// # Errors
    /// When the cluster fails.
    pub async fn is_changed(&self) -> Result<Option<bool>, Failure> {
        let request = Request::new(self.path(Kind::ClusterRole)).get(&self.name, &GetParams::default());
        let answer = self.send(request).await?;
        let found: ClusterRole = match answer.status {
            StatusCode::OK => answer.parse()?,
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(answer.failure()),
        };
        let made: ClusterRole = serde_json::from_value(self.manifest(Kind::ClusterRole))
            .map_err(|_| Failure::Misbehaves(Misbehaviour::Form))?;
        Ok(Some(found.rules != made.rules || found.aggregation_rule.is_some()))
    }

    /// Makes role and role binding again where they are missing or not as they were made. The
    /// role's rules belong to the cluster's owner: a role that is there stays as it is, and one that was
    /// seen `changed` is not made anew.
    ///
    /// # Errors
    /// When the cluster fails, or a name of ours belongs to somebody else now.
    pub async fn repair(&self, known: &Uids, changed: bool) -> Result<Repair, Failure> {
        let Some(account) = self.find(Kind::ServiceAccount).await? else { return Ok(Repair::AccountLost) };
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
            let ours = found.filter(|found| self.owner.verdict(found) == Verdict::Ours);
            let there = ours.as_ref().is_some_and(|found| found.deletion_timestamp.is_none());
            if there && (kind == Kind::ClusterRole || self.is_intact().await?) {
                continue;
            }
            if kind == Kind::ClusterRole && changed {
                return Ok(Repair::RightsLost);
            }
            // A role binding's role can't be changed, so it is made anew.
            if let Some(uid) = ours.and_then(|found| found.uid) {
                self.delete(kind, &uid).await?;
            }
            self.ensure(kind).await?;
            restored = true;
        }
        Ok(Repair::Done { restored })
    }

    fn is_as_made(&self, found: ClusterRoleBinding) -> Result<bool, Failure> {
        let made: ClusterRoleBinding = serde_json::from_value(self.manifest(Kind::ClusterRoleBinding))
            .map_err(|_| Failure::Misbehaves(Misbehaviour::Form))?;
        // An empty group is the group of accounts.
        let subjects = |binding: ClusterRoleBinding| -> Vec<_> {
            let subjects = binding.subjects.into_iter().flatten();
            subjects.map(|s| (s.api_group.filter(|g| !g.is_empty()), s.kind, s.name, s.namespace)).collect()
        };
        Ok(found.role_ref == made.role_ref && subjects(found) == subjects(made))
    }
}
