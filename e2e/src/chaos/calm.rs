//! Moments of quiet between storms: nothing is under way, and all that must hold is looked at.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use jiff::{SignedDuration, Timestamp};

use super::arena::{Arena, PATIENCE, lock};
use crate::invariants::{check_limit, check_objects};
use crate::{Operator, eventually};

/// What a client for one instance's cluster keeps: a task, and three connections for the sweep.
const CLIENT: u64 = 4;

/// A binding that is left to its expiry.
pub struct Aging {
    /// Its id.
    pub binding: String,
    /// When its time is over.
    pub ends: Timestamp,
}

impl Arena<'_> {
    /// Everything that must hold, with nothing under way. The bindings that are left are aging.
    ///
    /// # Errors
    /// The first invariant that doesn't hold.
    pub async fn calm(&self, aging: &mut Vec<Aging>) -> Result<()> {
        let load = self.load;
        for (number, place) in self.places.iter().enumerate() {
            eventually("an operator to be ready again", PATIENCE, async || {
                self.revive(number).await?;
                place.operator.lock().await.ready().await
            })
            .await?;
        }
        let osb = self.places[0].operator.lock().await.osb();
        self.judge_victims().await?;
        // What a client that hung up has asked for may have been created after it asked for its end.
        let hung_up = std::mem::take(&mut *lock(&self.hung_up));
        for (instance, binding) in &hung_up {
            load.forget(instance, binding)
                .await
                .with_context(|| format!("{binding}, whose client hung up"))?;
        }
        self.expire(aging).await?;
        load.check_handed(&osb).await?;
        check_limit(&load.stage, load.limit).await?;
        load.holds("I3");
        check_objects(&load.stage, &self.managed()).await?;
        load.holds("I2");
        load.witness.check_stage_for_secrets(&load.stage).await?;
        load.holds("I6");
        for (instance, binding) in load.witness.held_bindings() {
            if !aging.iter().any(|a| a.binding == binding) {
                load.unbind(&instance, &binding).await?;
            }
        }
        check_objects(&load.stage, &self.managed()).await?;
        load.holds("I2");
        self.search_logs()?;
        self.check_levels().await
    }

    /// The managed clusters.
    #[must_use]
    pub fn managed(&self) -> Vec<&crate::Cluster> {
        self.sites.iter().map(|site| site.cluster).collect()
    }

    /// Those whose time is over are gone, and their tokens are refused.
    async fn expire(&self, aging: &mut Vec<Aging>) -> Result<()> {
        // One whose end comes while it is looked at may work or not.
        let soon = Timestamp::now() + SignedDuration::from_mins(1);
        aging.iter().filter(|a| a.ends <= soon).for_each(|a| self.load.witness.deleting(&a.binding));
        let over: Vec<_> = aging.extract_if(.., |a| a.ends <= Timestamp::now()).collect();
        let bindings = self.load.stage.bindings();
        for Aging { binding, ends } in over {
            eventually("a binding whose time is over to be gone", PATIENCE, async || {
                match bindings.get_opt(&binding).await? {
                    Some(there) => Err(anyhow!("it ended at {ends}: {:?}", there.status)),
                    None => Ok(()),
                }
            })
            .await?;
            self.load.witness.ended(&binding);
        }
        Ok(())
    }

    /// I6 in the logs of those that have ended since the last time.
    fn search_logs(&self) -> Result<()> {
        for log in std::mem::take(&mut *lock(&self.logs)) {
            self.load.witness.check_secrets("the log of an operator", &log)?;
            self.load.holds("I6");
        }
        Ok(())
    }

    /// I7 for those that have lived since the last time.
    async fn check_levels(&self) -> Result<()> {
        let before = std::mem::take(&mut *lock(&self.levels));
        let instances: usize = self.sites.iter().map(|site| site.runtimes.len()).sum();
        let spare = CLIENT * u64::try_from(instances)?;
        let mut now = BTreeMap::new();
        for place in &self.places {
            let operator: &Operator = &*place.operator.lock().await;
            let (pid, mut level) = (operator.pid(), operator.level().await?);
            if let Some(before) = before.get(&pid) {
                eventually("I7: a level to be what it was", PATIENCE, async || {
                    level = operator.level().await?;
                    level.check(*before, spare)
                })
                .await?;
                self.load.holds("I7");
            }
            now.insert(pid, level);
        }
        *lock(&self.levels) = now;
        Ok(())
    }
}
