//! Managed clusters that do not answer, and the moment when they do again.
//!
//! A binding's own retries grow to minutes, so that a dead cluster costs next to nothing. That it is
//! back would be noticed as late. One small question a cluster, every few seconds, notices it for
//! all bindings that wait on it.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ledger::Ledger;
use crate::cluster::{Clients, Failure};
use crate::instances::Instances;
use crate::instances::state::KubeconfigRef;

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
    /// `None` while it is being asked.
    due: Option<Instant>,
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
                due: Some(Instant::now() + FIRST),
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
        let current = |instance: &str| match instances.state(instance) {
            // Nothing waits on it.
            _ if ledger.lock().names_of(instance).is_empty() => None,
            state => state.reachable().map(|(_, kubeconfig)| kubeconfig.clone()),
        };
        let ask = |kubeconfig: KubeconfigRef| async move { clients.answers(&kubeconfig).await }.boxed();
        let answered = |instance: String| {
            async move {
                tracing::info!(instance_id = instance, "the managed cluster answers again");
                ledger.lock().forgive(&instance);
                instances.look_again(instance).await;
            }
            .boxed()
        };
        self.watch_by(current, ask, answered).await;
    }

    /// The same, whatever asks. Each cluster has its own times: none waits for the answer, or the pause, of another.
    async fn watch_by<'a>(
        &self,
        current: impl Fn(&str) -> Option<KubeconfigRef>,
        ask: impl Fn(KubeconfigRef) -> BoxFuture<'a, bool>,
        answered: impl Fn(String) -> BoxFuture<'a, ()>,
    ) {
        let mut asked = FuturesUnordered::new();
        loop {
            self.retain(&current);
            for (instance, down) in self.take_due(AT_ONCE - asked.len()) {
                let answers = ask(down.kubeconfig.clone());
                asked.push(async move { (instance, down, answers.await) });
            }
            let next = if asked.len() < AT_ONCE { self.next() } else { None };
            tokio::select! {
                Some((instance, down, answers)) = asked.next() => {
                    if self.settle(&instance, &down, answers) {
                        answered(instance).await;
                    }
                }
                () = until(next) => {}
                () = self.more.notified() => {}
            }
        }
    }

    /// Those whose turn it is; they have no next one before they are settled.
    fn take_due(&self, most: usize) -> Vec<(String, Down)> {
        let now = Instant::now();
        let mut down = self.down.lock();
        let due = down.iter_mut().filter(|(_, d)| d.due.is_some_and(|due| due <= now)).take(most);
        due.map(|(instance, d)| {
            d.due = None;
            (instance.clone(), d.clone())
        })
        .collect()
    }

    fn next(&self) -> Option<Instant> {
        self.down.lock().values().filter_map(|down| down.due).min()
    }

    /// Whether the instance is to be looked at again. It is forgotten only when a call that was
    /// needed has succeeded: until then each answer makes the next question later, so that a cluster
    /// which answers and yet fails is tried no more often than its bindings would.
    fn settle(&self, instance: &str, asked: &Down, answers: bool) -> bool {
        if let Some(known) = self.down.lock().get_mut(instance)
            && known.kubeconfig == asked.kubeconfig
        {
            // One that was half well and is silent now is as good as one that has just failed.
            known.longest = if answers { HALF_WELL } else { LONGEST };
            known.wait = (asked.wait * 2).min(known.longest);
            known.due = Some(Instant::now() + known.wait);
        }
        answers
    }

    /// Forgets instances that have another kubeconfig now, or none: their bindings are looked at
    /// for that reason.
    fn retain(&self, current: &impl Fn(&str) -> Option<KubeconfigRef>) {
        self.down.lock().retain(|instance, down| current(instance).as_ref() == Some(&down.kubeconfig));
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::error::{Call, Unreachable};

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
            let (instance, down) = health.take_due(AT_ONCE).pop().unwrap();
            assert!(!health.settle(&instance, &down, false));
        }
        assert_eq!(waits, [2, 4, 5, 5]);
        tokio::time::advance(LONGEST).await;
        let (instance, down) = health.take_due(AT_ONCE).pop().unwrap();
        assert!(health.settle(&instance, &down, true));
        assert_eq!((health.next().unwrap() - Instant::now()).as_secs(), 10, "half well: ever more seldom");
        health.succeeded("i");
        assert!(health.next().is_none());
    }

    #[test]
    fn another_kubeconfig_is_another_question() {
        let health = Health::default();
        health.failed("i", &kubeconfig("1"), &Failure::TimedOut);
        health.retain(&|_: &str| Some(kubeconfig("2")));
        assert!(health.next().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_has_just_failed_waits_for_no_other() {
        let (health, began) = (Health::default(), Instant::now());
        // When each was asked, in seconds.
        let asked = Mutex::new(HashMap::<String, Vec<u64>>::new());
        let (health_of, notes) = (&health, &asked);
        let ask = |kubeconfig: KubeconfigRef| {
            async move {
                let second = began.elapsed().as_secs();
                notes.lock().entry(kubeconfig.resource_version.clone()).or_default().push(second);
                if kubeconfig.resource_version == "half well" {
                    return true;
                }
                // Until the question is given up.
                tokio::time::sleep(Duration::from_secs(2)).await;
                second >= 220
            }
            .boxed()
        };
        let answered = |instance: String| {
            async move {
                if instance == "dead" {
                    health_of.succeeded("dead");
                }
            }
            .boxed()
        };
        let of = |instance: &str| match instance {
            "half" => Some(kubeconfig("half well")),
            other => Some(kubeconfig(other)),
        };
        let story = async {
            health.failed("half", &kubeconfig("half well"), &Failure::TimedOut);
            tokio::time::sleep(Duration::from_secs(200)).await;
            health.failed("dead", &kubeconfig("dead"), &Failure::TimedOut);
            tokio::time::sleep(Duration::from_secs(40)).await;
        };
        tokio::select! {
            () = health.watch_by(of, ask, answered) => {}
            () = story => {}
        }
        let asked = asked.into_inner();
        assert_eq!(asked["half well"], [2, 6, 14, 30, 62, 126], "ever more seldom");
        assert_eq!(asked["dead"], [202, 208, 215, 222], "at once, and until it answers");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_half_well_and_is_silent_now_is_asked_often_again() {
        let health = Health::default();
        health.failed("i", &kubeconfig("1"), &Failure::TimedOut);
        let mut waits = Vec::new();
        for answers in [true, true, true, true, false, false] {
            tokio::time::advance(health.next().unwrap() - Instant::now()).await;
            let (instance, down) = health.take_due(AT_ONCE).pop().unwrap();
            assert!(health.next().is_none(), "not asked twice at once");
            health.settle(&instance, &down, answers);
            waits.push((health.next().unwrap() - Instant::now()).as_secs());
        }
        assert_eq!(waits, [4, 8, 16, 32, 5, 5]);
    }
}
