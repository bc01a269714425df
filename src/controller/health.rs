//! Managed clusters that do not answer, and the moment when they do again.
//!
//! A binding's own retries grow to minutes, so that a dead cluster costs next to nothing. That it is
//! back would be noticed as late. One small question a cluster, every few seconds, notices it for
//! all bindings that wait on it.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ledger::Ledger;
use crate::instances::Instances;
use crate::instances::state::{KubeconfigRef, State};
use crate::managed::{Clients, Failure};

/// How soon a cluster is asked after it has failed, and how much later at most.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(5);
/// At most, where questions are answered but what is needed keeps failing.
const HALF_WELL: Duration = Duration::from_mins(5);
/// Most clusters that are asked at once.
const AT_ONCE: usize = 64;

#[derive(Debug, Clone)]
struct Down {
    kubeconfig: KubeconfigRef,
    due: Instant,
    wait: Duration,
    longest: Duration,
}

/// The clusters that do not answer, by instance.
#[derive(Default)]
pub struct Health {
    down: Mutex<HashMap<String, Down>>,
    more: Notify,
}

/// Whether the failure is of a kind that a single question can find mended.
fn is_silence(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable(_) | Failure::TimedOut | Failure::Unavailable(_) => true,
        Failure::NotLeading
        | Failure::NoKubeconfig(_)
        | Failure::ReadKubeconfig
        | Failure::Kubeconfig(_)
        | Failure::Address(_)
        | Failure::Unauthorized
        | Failure::Forbidden(_)
        | Failure::RateLimited
        | Failure::Misbehaves(_)
        | Failure::NamespaceMissing(_)
        | Failure::Altered { .. }
        | Failure::Token(_)
        | Failure::Foreign { .. }
        | Failure::Kept { .. }
        | Failure::Lingers(_) => false,
    }
}

impl Health {
    /// Takes note of a failed call.
    pub fn failed(&self, instance: &str, kubeconfig: &KubeconfigRef, failure: &Failure) {
        if !is_silence(failure) {
            return;
        }
        let mut down = self.down.lock();
        let known = down.get(instance).is_some_and(|known| known.kubeconfig == *kubeconfig);
        if !known {
            let new = Down {
                kubeconfig: kubeconfig.clone(),
                due: Instant::now() + FIRST,
                wait: FIRST,
                longest: LONGEST,
            };
            down.insert(instance.to_owned(), new);
            self.more.notify_one();
        }
    }

    /// Takes note of a call that succeeded: it is well.
    pub fn succeeded(&self, instance: &str) {
        let mut down = self.down.lock();
        if !down.is_empty() {
            down.remove(instance);
        }
    }

    /// Asks the silent clusters, for ever. Of one that answers, all bindings are looked at again.
    pub async fn watch(&self, clients: &Clients, instances: &Instances, ledger: &Mutex<Ledger>) {
        loop {
            self.retain(|instance| match instances.state(instance) {
                // Nothing waits on it.
                _ if ledger.lock().names_of(instance).is_empty() => None,
                State::Ready(target) | State::Suspended(target) => target.kubeconfig,
                State::Unknown | State::InProgress | State::Failed | State::Ambiguous(..) => None,
            });
            let due = self.due();
            futures::stream::iter(due)
                .for_each_concurrent(AT_ONCE, async |(instance, down)| {
                    let answers = clients.answers(&down.kubeconfig).await;
                    if self.settle(&instance, &down, answers) {
                        tracing::info!(instance_id = instance, "the managed cluster answers again");
                        ledger.lock().forgive(&instance);
                        instances.look_again(instance).await;
                    }
                })
                .await;
            match self.next() {
                Some(next) => tokio::time::sleep_until(next).await,
                None => self.more.notified().await,
            }
        }
    }

    fn due(&self) -> Vec<(String, Down)> {
        let now = Instant::now();
        let down = self.down.lock();
        down.iter().filter(|(_, d)| d.due <= now).map(|(i, d)| (i.clone(), d.clone())).collect()
    }

    fn next(&self) -> Option<Instant> {
        self.down.lock().values().map(|down| down.due).min()
    }

    /// Whether the instance is to be looked at again. It is forgotten only when a call that was
    /// needed has succeeded: until then each answer makes the next question later, so that a cluster
    /// which answers and yet fails is tried no more often than its bindings would.
    fn settle(&self, instance: &str, asked: &Down, answers: bool) -> bool {
        if let Some(known) = self.down.lock().get_mut(instance)
            && known.kubeconfig == asked.kubeconfig
        {
            if answers {
                known.longest = HALF_WELL;
            }
            known.wait = (asked.wait * 2).min(known.longest);
            known.due = Instant::now() + known.wait;
        }
        answers
    }

    /// Forgets instances that have another kubeconfig now, or none: their bindings are looked at
    /// for that reason.
    fn retain(&self, current: impl Fn(&str) -> Option<KubeconfigRef>) {
        self.down.lock().retain(|instance, down| current(instance).as_ref() == Some(&down.kubeconfig));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managed::failure::{Call, Unreachable};

    fn kubeconfig(version: &str) -> KubeconfigRef {
        KubeconfigRef { secret: "s".into(), resource_version: version.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_cluster_is_asked_ever_more_seldom_and_forgotten_when_it_answers() {
        let health = Health::default();
        health.failed("i", &kubeconfig("1"), &Failure::Forbidden(Call { verb: "create", what: "x" }));
        assert!(health.next().is_none(), "that it forbids something is an answer");
        health.failed("i", &kubeconfig("1"), &Failure::Unreachable(Unreachable::Refused));
        let mut waits = Vec::new();
        for _ in 0..4 {
            let next = health.next().unwrap();
            waits.push((next - Instant::now()).as_secs());
            tokio::time::advance(next - Instant::now()).await;
            let (instance, down) = health.due().pop().unwrap();
            assert!(!health.settle(&instance, &down, false));
        }
        assert_eq!(waits, [2, 4, 5, 5]);
        tokio::time::advance(LONGEST).await;
        let (instance, down) = health.due().pop().unwrap();
        assert!(health.settle(&instance, &down, true));
        assert_eq!((health.next().unwrap() - Instant::now()).as_secs(), 10, "half well: ever more seldom");
        health.succeeded("i");
        assert!(health.next().is_none());
    }

    #[test]
    fn another_kubeconfig_is_another_question() {
        let health = Health::default();
        health.failed("i", &kubeconfig("1"), &Failure::TimedOut);
        health.retain(|_| Some(kubeconfig("2")));
        assert!(health.next().is_none());
    }
}
