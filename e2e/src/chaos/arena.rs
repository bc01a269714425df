//! Where the faults strike: clusters behind relays, operators in their places, and a tally.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::watch;

use super::fault::{Fault, Lane};
use crate::level::Level;
use crate::load::Load;
use crate::operator::this_program;
use crate::{Cluster, Exit, Operator, Osb, Relay, Rights, WorkDir, eventually};

/// How long anything may take while faults overlap.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// How often it is looked whether a process has ended by itself.
const KEPT: Duration = Duration::from_millis(100);

/// A managed cluster behind its relay, and the instances that have it.
pub struct Site<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What is in front of it.
    pub relay: Relay,
    /// Runtime ids of its instances.
    pub runtimes: Vec<String>,
    /// The instance whose binds show whether it works again.
    pub probe: String,
    /// Instances of bindings that something is done to.
    pub victims: Vec<String>,
}

/// Where an operator runs, behind a relay to the control plane of its own.
pub struct Place {
    /// What is between it and the control plane.
    pub relay: Relay,
    /// The kubeconfig through it.
    pub kubeconfig: PathBuf,
    /// Who runs there now.
    pub operator: tokio::sync::Mutex<Operator>,
}

/// What has happened so far.
#[derive(Default)]
pub struct Tally {
    /// How often each fault was made.
    pub faults: BTreeMap<Fault, usize>,
    /// How long it took after its end until all worked again, where that was waited for.
    pub recoveries: BTreeMap<Fault, Vec<Duration>>,
    /// Faults made while another one lasted, or had not been recovered from.
    pub overlapping: usize,
    /// Faults made with requests under way.
    pub met: usize,
}

/// A binding that something was done to.
pub struct Victim {
    pub(super) name: String,
    pub(super) site: usize,
    /// All kubeconfigs that were handed out for it.
    pub(super) kubeconfigs: Vec<String>,
    pub(super) fault: Fault,
    pub(super) hurt: Instant,
}

/// All of it.
pub struct Arena<'a> {
    /// The clients.
    pub load: &'a Load<'a>,
    /// The operator's rights in the control plane.
    pub rights: &'a Rights<'a>,
    /// The managed clusters.
    pub sites: [Site<'a>; 2],
    /// The operators.
    pub places: Vec<Place>,
    /// Their brokers, as the clients know them.
    pub publish: watch::Sender<Vec<Osb>>,
    /// What every operator is started with.
    pub args: Vec<String>,
    /// Bindings that something was done to, to be judged when it is quiet.
    pub victims: Mutex<Vec<Victim>>,
    /// Binds whose clients hung up: instance and id.
    pub hung_up: Mutex<Vec<(String, String)>>,
    /// Logs of operators that have ended, until they are searched.
    pub logs: Mutex<Vec<String>>,
    /// Levels of the processes at the last moment of quiet, by process id.
    pub levels: Mutex<BTreeMap<u32, Level>>,
    /// What has happened so far.
    pub tally: Mutex<Tally>,
    striking: AtomicUsize,
}

impl<'a> Arena<'a> {
    /// Starts the operators.
    ///
    /// # Errors
    /// When one of them can't be started.
    pub async fn open(
        load: &'a Load<'a>,
        rights: &'a Rights<'a>,
        sites: [Site<'a>; 2],
        publish: watch::Sender<Vec<Osb>>,
        args: Vec<String>,
        places: usize,
    ) -> Result<Self> {
        let mut arena = Self {
            load,
            rights,
            sites,
            places: Vec::new(),
            publish,
            args,
            victims: Mutex::default(),
            hung_up: Mutex::default(),
            logs: Mutex::default(),
            levels: Mutex::default(),
            tally: Mutex::default(),
            striking: AtomicUsize::default(),
        };
        for number in 0..places {
            let relay = Relay::start(load.stage.control().url()).await?;
            let kubeconfig = rights.kubeconfig(&format!("place-{number}.yaml"), Some(&relay))?;
            let operator = arena.launch(&kubeconfig).await?;
            arena.publish.send_modify(|brokers| brokers.push(operator.osb()));
            arena.places.push(Place { relay, kubeconfig, operator: tokio::sync::Mutex::new(operator) });
        }
        Ok(arena)
    }

    async fn launch(&self, kubeconfig: &std::path::Path) -> Result<Operator> {
        let dir = Arc::new(WorkDir::new("chaos-operator")?);
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        Operator::launch(&dir, &this_program()?, kubeconfig, &args).await
    }

    /// Puts a new operator in the place of one that has ended.
    ///
    /// # Errors
    /// When it can't be started, or the old one has ended by a defect.
    pub async fn replace(&self, place: usize, operator: &mut Operator) -> Result<()> {
        let kubeconfig = &self.places[place].kubeconfig;
        let ended = std::mem::replace(operator, self.launch(kubeconfig).await?);
        let log = ended.log();
        ensure!(!log.contains("panicked at"), "an operator panicked");
        lock(&self.logs).push(log);
        self.publish.send_modify(|brokers| brokers[place] = operator.osb());
        Ok(())
    }

    /// Starts what has ended by itself again, for ever, as a kubelet would.
    ///
    /// # Errors
    /// When one ended in another way than by saying why.
    pub async fn keep(&self) -> Result<()> {
        loop {
            tokio::time::sleep(KEPT).await;
            for number in 0..self.places.len() {
                self.revive(number).await?;
            }
        }
    }

    /// Starts the operator of a place again if it has ended by itself.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub async fn revive(&self, place: usize) -> Result<()> {
        // Whoever holds it is about to replace it.
        let Ok(mut operator) = self.places[place].operator.try_lock() else { return Ok(()) };
        if let Some(exit) = operator.exit() {
            ensure!(exit == Exit::Code(1), "an operator ended with {exit}");
            self.replace(place, &mut operator).await?;
        }
        Ok(())
    }

    /// Counts a fault while it is made and recovered from.
    ///
    /// # Errors
    /// What `inject` fails with.
    pub async fn strike<T>(&self, fault: Fault, inject: impl Future<Output = Result<T>>) -> Result<T> {
        let others = self.striking.fetch_add(1, Ordering::Relaxed);
        {
            let mut tally = lock(&self.tally);
            *tally.faults.entry(fault).or_default() += 1;
            tally.overlapping += usize::from(others > 0);
            tally.met += usize::from(self.load.under_way.load(Ordering::Relaxed) > 0);
        }
        let done = inject.await;
        self.striking.fetch_sub(1, Ordering::Relaxed);
        done
    }

    /// Waits until a bind works again, from the PUT to a token that is proven and a GET that finds it.
    ///
    /// # Errors
    /// An invariant that doesn't hold, or a bind that never works.
    pub async fn recover(&self, fault: Fault, lane: Lane, binding: &str) -> Result<()> {
        let began = Instant::now();
        let site = self.sites.iter().enumerate().find(|(number, _)| lane.probes(*number));
        let (_, site) = site.context("the lane has no probe")?;
        let instance = &format!("{}-{}", site.probe, lane.name());
        ensure!(self.load.bind(instance, binding).await?, "{instance} has no other bindings, and is full");
        self.recovered(fault, began.elapsed());
        self.load.unbind(instance, binding).await
    }

    /// Takes note of how long it took until all worked again.
    pub fn recovered(&self, fault: Fault, took: Duration) {
        lock(&self.tally).recoveries.entry(fault).or_default().push(took);
    }
}

/// Does something in spite of the trouble: repeats it until it is done.
///
/// # Errors
/// When it never is.
pub async fn persist<T>(what: &str, act: impl AsyncFn() -> Result<T>) -> Result<T> {
    Ok(eventually(what, PATIENCE, async || act().await).await?)
}

/// Locks, whatever happened to who held it before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
