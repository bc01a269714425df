//! The process is killed at random times under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::invariants::{Witness, check_limit, check_nothing_left};
use e2e::osb::Answer;
use e2e::{Operator, Osb, Stage, WorkDir, eventually};
use futures::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

use crate::world::{program, world};

const KILLS: usize = 6;
const CLIENTS: usize = 8;
const INSTANCES: usize = 3;
/// Fewer than there are clients for an instance, so that some are refused.
const LIMIT: usize = 2;
/// How long an operator runs at most before it is killed.
const LONGEST_RUN: Duration = Duration::from_millis(3_500);
/// How long a client goes on repeating itself; a start of the operator fits in several times.
const PATIENCE: Duration = Duration::from_mins(1);

struct Load {
    stage: Stage<'static>,
    witness: Witness,
    /// The broker that runs now.
    broker: watch::Receiver<Osb>,
    over: watch::Receiver<bool>,
    under_way: AtomicUsize,
}

/// An answer, and whether a request before it got none or was put off.
struct Answered {
    answer: Answer,
    repeated: bool,
}

#[tokio::test]
async fn at_random_times_under_load() {
    let seed = match std::env::var("E2E_SEED") {
        Ok(seed) => seed.parse().expect("E2E_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("E2E_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = world().await;
    let stage = Stage::new(&world.control, "kills").await.unwrap();
    for i in 0..INSTANCES {
        let kubeconfig = world.managed.admin_kubeconfig();
        stage.register(&instance(i), &format!("r-kills-{i}"), &kubeconfig).await.unwrap();
    }
    let mut operator = start(&stage).await.unwrap();
    let (publish, broker) = watch::channel(operator.osb());
    let (finish, over) = watch::channel(false);
    let load = Load { stage, witness: Witness::default(), broker, over, under_way: AtomicUsize::new(0) };

    let kills = async {
        let mut interrupted = 0;
        for _ in 0..KILLS {
            // The drawn time is the test itself, not a wait for anything.
            tokio::time::sleep(random.random_range(Duration::ZERO..LONGEST_RUN)).await;
            interrupted += load.under_way.load(Ordering::Relaxed);
            operator.kill().await?;
            load.witness.check_secrets("the log of an operator that was killed", &operator.log())?;
            operator = start(&load.stage).await?;
            publish.send_replace(operator.osb());
        }
        finish.send_replace(true);
        anyhow::Ok(interrupted)
    };
    let clients = try_join_all((0..CLIENTS).map(|number| load.client(number)));
    let (interrupted, cycles) = tokio::try_join!(kills, clients).unwrap();
    let cycles: usize = cycles.iter().sum();
    println!("{cycles} bindings asked for; {interrupted} requests under way at {KILLS} kills");
    assert!(interrupted > 0, "no kill met a request: this proves nothing");
    assert!(load.witness.held() > 0, "nobody holds a binding at the end");

    let managed = [&world.managed];
    load.witness.check_all(&load.stage, &managed, &operator.osb(), LIMIT).await.unwrap();
    let held = load.witness.held_bindings();
    try_join_all(held.iter().map(|(instance, id)| load.unbind(instance, id))).await.unwrap();
    check_nothing_left(&load.stage, &managed).await.unwrap();
    operator.terminate().await.unwrap();
    load.witness.check_secrets("the log of the last operator", &operator.log()).unwrap();
}

fn instance(number: usize) -> String {
    format!("i-kills-{}", number % INSTANCES)
}

async fn start(stage: &Stage<'_>) -> Result<Operator> {
    let dir = Arc::new(WorkDir::new("operator")?);
    let limit = LIMIT.to_string();
    let args = [&stage.args()[..], &["--max-bindings-per-instance", &limit]].concat();
    let operator = Operator::launch(&dir, program(), stage.control().kubeconfig_path(), &args).await?;
    operator.ready().await?;
    Ok(operator)
}

impl Load {
    /// Binds, fetches and unbinds until it is over, and keeps the last one. Returns how many it
    /// asked for.
    async fn client(&self, number: usize) -> Result<usize> {
        for cycle in 0.. {
            let (instance, binding) = (instance(number + cycle), format!("kills-{number}-{cycle}"));
            let bound = self.bind(&instance, &binding).await.with_context(|| binding.clone())?;
            if *self.over.borrow() {
                return Ok(cycle + 1);
            }
            if bound {
                self.unbind(&instance, &binding).await.with_context(|| binding)?;
            }
        }
        Ok(0)
    }

    /// PUT and GET, repeated as a platform would; false when the instance is full.
    async fn bind(&self, instance: &str, binding: &str) -> Result<bool> {
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
        check_limit(&self.stage, LIMIT).await?;
        self.witness.check_tokens(binding).await?;
        let get = async |osb: &Osb| osb.fetch(instance, binding).await;
        let found = self.until("GET", &[200, 404], get).await?.answer;
        ensure!(found.status == 200, "I4: GET answers {} {}", found.status, found.description());
        self.witness.returned(instance, binding, &found)?;
        Ok(true)
    }

    /// DELETE, repeated; the token is refused when it has been answered.
    async fn unbind(&self, instance: &str, binding: &str) -> Result<()> {
        self.witness.deleting(binding);
        let delete = async |osb: &Osb| osb.unbind(instance, binding).await;
        let Answered { answer, repeated } = self.until("DELETE", &[200, 410], delete).await?;
        ensure!(answer.status == 200 || repeated, "I4: the first DELETE answers 410");
        self.witness.ended(binding);
        self.witness.check_tokens(binding).await
    }

    /// Repeats a request to whichever broker there is until it is answered with one of `finals`.
    async fn until(
        &self,
        what: &str,
        finals: &[u16],
        request: impl AsyncFn(&Osb) -> Result<Answer>,
    ) -> Result<Answered> {
        let mut tries = 0;
        let answer = eventually(what, PATIENCE, async || {
            tries += 1;
            let osb = self.broker.borrow().clone();
            self.under_way.fetch_add(1, Ordering::Relaxed);
            let answer = request(&osb).await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            let answer = answer?;
            if finals.contains(&answer.status) {
                return Ok(answer);
            }
            Err(anyhow!("{} {}", answer.status, answer.description()))
        });
        let answer = answer.await?;
        Ok(Answered { answer, repeated: tries > 1 })
    }
}
