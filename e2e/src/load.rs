//! Clients that bind, fetch and unbind as platforms do, and look at every answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::sync::watch;

use crate::invariants::{Witness, check_limit};
use crate::osb::Answer;
use crate::stage::StillWorks;
use crate::{Osb, Stage, eventually};

/// How long a client goes on repeating itself; a start of the operator fits in many times.
const PATIENCE: Duration = Duration::from_mins(2);

/// A load on the brokers of one stage.
pub struct Load<'a> {
    /// Where it takes place.
    pub stage: Stage<'a>,
    /// What was answered.
    pub witness: Witness,
    /// The brokers that run now; a request goes to any of them.
    pub brokers: watch::Receiver<Vec<Osb>>,
    /// Whether clients shall come to an end.
    pub over: watch::Receiver<bool>,
    /// The instances that bindings are asked for.
    pub instances: Vec<String>,
    /// Most bindings of an instance.
    pub limit: usize,
    /// Requests that are under way.
    pub under_way: AtomicUsize,
    answers: Mutex<BTreeMap<String, usize>>,
    /// How often each invariant was looked at and held.
    held: Mutex<BTreeMap<&'static str, usize>>,
    turn: AtomicUsize,
}

/// An answer, and whether a request before it got none or was put off.
struct Answered {
    answer: Answer,
    repeated: bool,
}

impl<'a> Load<'a> {
    /// A load that has not begun.
    #[must_use]
    pub fn new(
        stage: Stage<'a>,
        brokers: watch::Receiver<Vec<Osb>>,
        over: watch::Receiver<bool>,
        instances: Vec<String>,
        limit: usize,
    ) -> Self {
        Self {
            stage,
            witness: Witness::default(),
            brokers,
            over,
            instances,
            limit,
            under_way: AtomicUsize::default(),
            answers: Mutex::default(),
            held: Mutex::default(),
            turn: AtomicUsize::default(),
        }
    }

    /// Binds, fetches and unbinds until it is over, and keeps the last one. Returns how many it
    /// asked for.
    ///
    /// # Errors
    /// The first invariant that doesn't hold, or an answer that never comes.
    pub async fn client(&self, name: &str, number: usize) -> Result<usize> {
        for cycle in 0.. {
            let instance = &self.instances[(number + cycle) % self.instances.len()];
            let binding = format!("{name}-{number}-{cycle}");
            let bound = self.bind(instance, &binding).await.with_context(|| binding.clone())?;
            if *self.over.borrow() {
                return Ok(cycle + 1);
            }
            if bound {
                self.unbind(instance, &binding).await.with_context(|| binding)?;
            }
        }
        Ok(0)
    }

    /// PUT and GET, repeated as a platform would; false when the instance is full.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub async fn bind(&self, instance: &str, binding: &str) -> Result<bool> {
        let put = async |osb: &Osb| osb.bind(instance, binding, None).await;
        let Answered { answer, .. } = self.until("PUT", &[200, 201, 400], put).await?;
        if answer.status == 400 {
            ensure!(answer.description().starts_with("maximum number"), "{}", answer.description());
            // The one that was refused may have been made by a request before, which got no answer.
            let delete = async |osb: &Osb| osb.unbind(instance, binding).await;
            self.until("DELETE after a refusal", &[200, 410], delete).await?;
            return Ok(false);
        }
        self.witness.returned(instance, binding, &answer)?;
        self.look("I3", "the limit", async || check_limit(&self.stage, self.limit).await).await?;
        self.check_tokens(binding).await?;
        let get = async |osb: &Osb| osb.fetch(instance, binding).await;
        let found = self.until("GET", &[200, 404], get).await?.answer;
        ensure!(found.status == 200, "I4: GET answers {} {}", found.status, found.description());
        self.holds("I4");
        self.witness.returned(instance, binding, &found)?;
        self.holds("I5");
        Ok(true)
    }

    /// DELETE, repeated; the token is refused when it has been answered.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub async fn unbind(&self, instance: &str, binding: &str) -> Result<()> {
        self.witness.deleting(binding);
        let delete = async |osb: &Osb| osb.unbind(instance, binding).await;
        let Answered { answer, repeated } = self.until("DELETE", &[200, 410], delete).await?;
        ensure!(answer.status == 200 || repeated, "I4: the first DELETE answers 410");
        self.witness.ended(binding);
        self.check_tokens(binding).await
    }

    /// I1, I4 and I5 at a moment of quiet, for all that was handed out and is not retired; then
    /// what has ended is.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub async fn check_handed(&self, osb: &Osb) -> Result<()> {
        for binding in self.witness.bindings() {
            self.check_tokens(&binding).await?;
            self.witness.check_found(osb, &binding).await?;
            self.holds("I4");
            self.holds("I5");
        }
        self.witness.retire();
        Ok(())
    }

    /// Takes note that an invariant was looked at and held.
    pub fn holds(&self, invariant: &'static str) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner).entry(invariant).or_default() += 1;
    }

    /// How often each invariant was looked at and held.
    #[must_use]
    pub fn held(&self) -> BTreeMap<&'static str, usize> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often each method was answered with each status, or not at all.
    #[must_use]
    pub fn answers(&self) -> BTreeMap<String, usize> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// I1, as soon as the managed cluster gives an answer that means something: an API server that
    /// has just started knows no roles yet.
    async fn check_tokens(&self, binding: &str) -> Result<()> {
        self.look("I1", "the token to be judged", async || self.witness.check_tokens(binding).await).await
    }

    async fn look(
        &self,
        invariant: &'static str,
        what: &str,
        check: impl AsyncFn() -> Result<()>,
    ) -> Result<()> {
        eventually(what, PATIENCE, async || match check().await {
            Err(violation) if violation.is::<StillWorks>() || violation.to_string().starts_with("I3") => {
                Ok(Err(violation))
            }
            other => other.map(Ok),
        })
        .await??;
        self.holds(invariant);
        Ok(())
    }

    /// Repeats a request to whichever brokers there are until it is answered with one of `finals`.
    async fn until(
        &self,
        what: &str,
        finals: &[u16],
        request: impl AsyncFn(&Osb) -> Result<Answer>,
    ) -> Result<Answered> {
        let mut tries = 0;
        let answer = eventually(what, PATIENCE, async || {
            tries += 1;
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let osb = self.broker(turn);
            self.under_way.fetch_add(1, Ordering::Relaxed);
            let answer = request(&osb).await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            self.count(what, &answer);
            let answer = answer?;
            if finals.contains(&answer.status) {
                return Ok(answer);
            }
            Err(anyhow!("{} {}", answer.status, answer.description()))
        });
        let answer = answer.await?;
        Ok(Answered { answer, repeated: tries > 1 })
    }

    /// Sends a PUT and hangs up after a while, whatever is under way by then; then removes what may
    /// have come of it, as the Open Service Broker API asks of platforms ("Orphan Mitigation").
    ///
    /// # Errors
    /// As [`Self::client`].
    pub async fn hang_up(&self, instance: &str, binding: &str, after: Duration) -> Result<()> {
        let osb = self.broker(self.turn.fetch_add(1, Ordering::Relaxed));
        let answer = tokio::time::timeout(after, osb.bind(instance, binding, None)).await;
        let answer = answer.unwrap_or_else(|late| Err(late.into()));
        self.count("PUT", &answer);
        if let Ok(answer) = answer.as_ref()
            && matches!(answer.status, 200 | 201)
        {
            self.witness.returned(instance, binding, answer)?;
        }
        self.forget(instance, binding).await
    }

    /// Removes a binding that may be there or not.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub async fn forget(&self, instance: &str, binding: &str) -> Result<()> {
        self.witness.deleting(binding);
        let delete = async |osb: &Osb| osb.unbind(instance, binding).await;
        self.until("DELETE", &[200, 410], delete).await?;
        self.witness.ended(binding);
        self.check_tokens(binding).await
    }

    fn broker(&self, turn: usize) -> Osb {
        let brokers = self.brokers.borrow();
        brokers[turn % brokers.len()].clone()
    }

    fn count(&self, what: &str, answer: &Result<Answer>) {
        let method = what.split(' ').next().unwrap_or_default();
        let key = match answer {
            Ok(answer) => format!("{method} {}", answer.status),
            Err(_) => format!("{method} without an answer"),
        };
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }
}
