//! Leader election by a `coordination.k8s.io` Lease: many replicas, one reconciles.
//!
//! Whether a lease has run out is judged by how long we saw no change of it, by our own clock, which
//! goes on while the machine is suspended; clocks of two machines are never compared. Every write is a `replace` with the resource
//! version that was read, so of two who try at once one fails. The holder stops believing in its
//! lease before anybody else can: from the start of its last successful renewal it counts only
//! the renew deadline, which is shorter than the lease.

mod standing;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};

use super::fence::Fence;
use crate::api::text;
use crate::kubernetes::error::Trouble;
use crate::support::clock;
use crate::telemetry::metrics::Metrics;
pub use standing::{LeaseTrouble, Standing, Verb};

/// Most characters that are shown of a holder's name: whoever may write the Lease may write anything there.
pub const MAX_SHOWN: usize = 253;
/// Name of the Lease.
pub const LEASE_NAME: &str = "kyma-bindings";

/// How long things take in an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long others wait, after the last change they saw, before they take the lease.
    pub lease: Duration,
    /// How long the holder goes on without a successful renewal.
    pub renew_deadline: Duration,
    /// How often the holder renews and the others look.
    pub retry: Duration,
}

/// Why leadership ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaderError {
    /// No renewal succeeded in time, and what failed last.
    #[error("the lease could not be renewed in time, so somebody else may lead now: {0}")]
    NotRenewed(LeaseTrouble),
    /// Somebody else has the lease.
    #[error("the lease was taken by {0}")]
    Taken(String),
}

/// A lease as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    holder: String,
    version: String,
    /// As the holder said it.
    duration: Duration,
    /// When this version was seen first, on our clock.
    since: Duration,
}

/// What to do about the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is ours: renew it.
    Renew,
    /// Nobody has it, or its holder was silent for too long: take it.
    Take,
    /// Somebody has it.
    Wait,
}

impl Seen {
    /// What is known after another look; `now` is on our own clock ([`clock::since_boot`]).
    #[must_use]
    pub fn look(self, lease: &Lease, now: Duration) -> Self {
        let version = lease.resource_version().unwrap_or_default();
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: Duration::from_secs(
                spec.lease_duration_seconds.unwrap_or_default().try_into().unwrap_or(0),
            ),
            since: if version == self.version { self.since } else { now },
            version,
        }
    }

    /// Judges. A holder that says a shorter duration than ours is given ours.
    #[must_use]
    pub fn judge(&self, me: &str, ours: Duration, now: Duration) -> Verdict {
        if self.holder == me {
            Verdict::Renew
        } else if self.holder.is_empty() || now.saturating_sub(self.since) >= self.duration.max(ours) {
            Verdict::Take
        } else {
            Verdict::Wait
        }
    }
}

/// Takes part in the election.
pub struct Elector {
    leases: Api<Lease>,
    namespace: String,
    me: String,
    times: Times,
    fence: Fence,
    standing: Standing,
}

impl Elector {
    /// Takes part as `me`, a name that no other process has.
    #[must_use]
    pub fn new(client: Client, namespace: &str, me: String, times: Times, metrics: Arc<Metrics>) -> Self {
        let leases = Api::namespaced(client, namespace);
        let (namespace, fence) = (namespace.to_owned(), Fence::closed());
        Self { leases, namespace, me, times, fence, standing: Standing::new(metrics) }
    }

    /// What says how it stands with the Lease.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// What says whether we lead.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Returns when we lead, with the lease as we wrote it. Failures are said and looked past: there is
    /// nothing else to do than to try again.
    pub async fn acquire(&self) -> Lease {
        let mut seen = Seen::default();
        let mut announced = String::new();
        loop {
            let asked = clock::since_boot();
            let tried = self.try_acquire(&mut seen).await;
            match &tried {
                Ok(_) => self.standing.well(),
                Err(trouble) => self.standing.failed(trouble),
            }
            if let Ok(Some(lease)) = tried {
                self.fence.extend(asked + self.times.renew_deadline);
                tracing::info!(me = self.me, "leading");
                return lease;
            }
            if tried.is_ok() && seen.holder != announced {
                let holder = text::shown(&seen.holder, MAX_SHOWN);
                tracing::info!(holder, "standing by: another replica leads");
                announced.clone_from(&seen.holder);
            }
            tokio::time::sleep(jittered(self.times.retry)).await;
        }
    }

    /// `None` when it is somebody else's.
    async fn try_acquire(&self, seen: &mut Seen) -> Result<Option<Lease>, LeaseTrouble> {
        let read = self.read().await?;
        // After the answer: what it shows was true at the latest now, so silence counts from here.
        let now = clock::since_boot();
        let Some(lease) = read else {
            if seen.judge(&self.me, self.times.lease, now) == Verdict::Wait {
                // Somebody deleted it; whoever held it may still believe in it.
                return Ok(None);
            }
            return self.create().await;
        };
        *seen = std::mem::take(seen).look(&lease, now);
        match seen.judge(&self.me, self.times.lease, now) {
            Verdict::Renew | Verdict::Take => self.write(&self.claim(Some(&lease))).await,
            Verdict::Wait => Ok(None),
        }
    }

    /// Renews until that fails for too long or somebody else has the lease. Whoever awaits this
    /// must end the process then.
    pub async fn keep(&self, mut lease: Lease) -> LeaderError {
        let mut deadline = clock::since_boot() + self.times.renew_deadline;
        loop {
            tokio::time::sleep(self.times.retry).await;
            let asked = clock::since_boot();
            // Timers stand still while the machine is suspended, so the fence alone says what is still ours.
            let left = deadline.saturating_sub(asked);
            let renewed = tokio::time::timeout(left, self.renew(&lease)).await;
            let in_time = renewed.is_ok();
            let failed = match renewed {
                Ok(Ok(Ok(Some(renewed)))) => {
                    lease = renewed;
                    deadline = asked + self.times.renew_deadline;
                    self.fence.extend(deadline);
                    self.standing.well();
                    continue;
                }
                Ok(Err(lost)) => {
                    self.fence.close();
                    return lost;
                }
                // Somebody wrote it at the same moment.
                Ok(Ok(Ok(None))) => self.trouble(Verb::Update, Trouble::Refused(409)),
                Ok(Ok(Err(trouble))) => trouble,
                Err(_) => {
                    self.standing.latest().unwrap_or_else(|| self.trouble(Verb::Update, Trouble::Silent))
                }
            };
            self.standing.failed(&failed);
            if !in_time || clock::since_boot() >= deadline {
                self.fence.close();
                return LeaderError::NotRenewed(failed);
            }
        }
    }

    /// What is worth another try is inside: a failure, or `None` where somebody else was faster.
    async fn renew(&self, lease: &Lease) -> Result<Result<Option<Lease>, LeaseTrouble>, LeaderError> {
        let failed = match self.write(&self.claim(Some(lease))).await {
            Ok(Some(written)) => return Ok(Ok(Some(written))),
            Ok(None) => None,
            Err(trouble) => Some(trouble),
        };
        // The write may have been lost on its way back, or somebody else has written.
        let now = match self.read().await {
            Ok(Some(now)) => now,
            // Somebody deleted it while it was ours.
            Ok(None) => return Ok(self.create().await),
            Err(trouble) => return Ok(Err(failed.unwrap_or(trouble))),
        };
        let holder = now.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
        if holder == self.me {
            Ok(self.write(&self.claim(Some(&now))).await)
        } else {
            Err(LeaderError::Taken(text::shown(&holder, MAX_SHOWN)))
        }
    }

    /// Gives the lease up, so that nobody has to wait for its end. Nothing may be written as leader
    /// after this.
    pub async fn release(&self) {
        if !self.fence.holds() {
            return;
        }
        self.fence.close();
        let Ok(Some(mut lease)) = self.read().await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.me) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            // It ends by itself where that fails.
            let _ = self.write(&lease).await;
        }
    }

    fn claim(&self, before: Option<&Lease>) -> Lease {
        let now = Some(MicroTime(clock::now()));
        let old = before.and_then(|l| l.spec.clone()).unwrap_or_default();
        let renewal = old.holder_identity.as_deref() == Some(&self.me);
        let transitions = old.lease_transitions.unwrap_or(0);
        Lease {
            metadata: before.map_or_else(
                || ObjectMeta { name: Some(LEASE_NAME.to_owned()), ..ObjectMeta::default() },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                // A lease in whole seconds: never shorter for others than for us.
                lease_duration_seconds: i32::try_from(self.times.lease.as_millis().div_ceil(1000)).ok(),
                acquire_time: if renewal { old.acquire_time } else { now.clone() },
                renew_time: now,
                lease_transitions: Some(if renewal { transitions } else { transitions.saturating_add(1) }),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn read(&self) -> Result<Option<Lease>, LeaseTrouble> {
        self.bounded(Verb::Get, self.leases.get_opt(LEASE_NAME)).await.map(Option::flatten)
    }

    /// `None` when somebody else was faster.
    async fn create(&self) -> Result<Option<Lease>, LeaseTrouble> {
        let claim = self.claim(None);
        self.bounded(Verb::Create, self.leases.create(&PostParams::default(), &claim)).await
    }

    /// `None` when somebody else was faster.
    async fn write(&self, lease: &Lease) -> Result<Option<Lease>, LeaseTrouble> {
        self.bounded(Verb::Update, self.leases.replace(LEASE_NAME, &PostParams::default(), lease)).await
    }

    /// The answer, if one came in time and was a good one; `None` for a conflict.
    async fn bounded<T>(
        &self,
        verb: Verb,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<Option<T>, LeaseTrouble> {
        match tokio::time::timeout(self.times.renew_deadline / 2, call).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            Ok(Err(error)) => Err(self.trouble(verb, Trouble::of(&error))),
            Err(_) => Err(self.trouble(verb, Trouble::Silent)),
        }
    }

    fn trouble(&self, verb: Verb, trouble: Trouble) -> LeaseTrouble {
        LeaseTrouble { verb, trouble, namespace: self.namespace.clone() }
    }
}

/// Between the whole and one and a fifth of it, so that replicas don't try in step.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(1.0 + rand::random::<f64>() / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LEASE: Duration = Duration::from_secs(15);

    fn lease(holder: &str, version: &str, seconds: i32) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": LEASE_NAME, "resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds},
        }))
        .unwrap()
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn silence_is_counted_from_the_last_change_that_we_saw() {
        let seen = Seen::default().look(&lease("other", "1", 15), at(100));
        assert_eq!(seen.judge("me", LEASE, at(114)), Verdict::Wait);
        let seen = seen.look(&lease("other", "2", 15), at(114));
        assert_eq!(seen.judge("me", LEASE, at(128)), Verdict::Wait);
        let seen = seen.look(&lease("other", "2", 15), at(128));
        assert_eq!(seen.judge("me", LEASE, at(129)), Verdict::Take);
    }

    #[test]
    fn a_released_lease_is_free_and_our_own_is_renewed() {
        let seen = Seen::default().look(&lease("", "1", 1), at(0));
        assert_eq!(seen.judge("me", LEASE, at(0)), Verdict::Take);
        let seen = Seen::default().look(&lease("me", "1", 15), at(0));
        assert_eq!(seen.judge("me", LEASE, at(99)), Verdict::Renew);
    }

    #[test]
    fn the_longer_of_both_durations_is_waited_for() {
        let seen = Seen::default().look(&lease("other", "1", 60), at(0));
        assert_eq!(seen.judge("me", LEASE, at(59)), Verdict::Wait);
        let seen = Seen::default().look(&lease("other", "1", 1), at(0));
        assert_eq!(seen.judge("me", LEASE, at(14)), Verdict::Wait);
        assert_eq!(seen.judge("me", LEASE, at(15)), Verdict::Take);
    }

    /// Any history of one holder and one who waits: while the holder believes in its lease,
    /// nobody takes it.
    #[test]
    fn nobody_takes_a_lease_in_which_its_holder_still_believes() {
        let renew_deadline = at(10);
        for seed in 0..2_000_u64 {
            let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut roll = |max: u64| {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                dice % max
            };
            let (mut asked, mut version) = (0, 1);
            let mut seen = Seen::default();
            // Each round the holder may renew (its write lands up to 4 s after it was asked for),
            // and the one who waits looks at whatever is there, with a clock of its own.
            let skew = roll(1_000_000);
            for second in 0..120_u64 {
                if roll(4) == 0 {
                    let landed = second;
                    asked = landed.saturating_sub(roll(5)).max(asked);
                    version += 1;
                }
                if roll(3) == 0 {
                    seen = seen.look(&lease("holder", &version.to_string(), 15), at(second + skew));
                    if seen.judge("me", LEASE, at(second + skew)) == Verdict::Take {
                        assert!(at(second) >= at(asked) + renew_deadline, "seed {seed}, second {second}");
                        break;
                    }
                }
            }
        }
    }
}
