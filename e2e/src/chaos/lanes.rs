//! How each fault of processes, clusters and connections is made.

use std::time::Instant;

use anyhow::{Result, ensure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::arena::{Arena, Site, lock, persist};
use super::fault::{Drawn, Fault, Lane};
use super::victims;
use crate::{Conduct, Exit, Relay};

/// Each piece of a slow connection is late by the drawn length divided by this.
const LATER: u32 = 30;
/// A client hangs up after the drawn length divided by this.
const HANGS_UP: u32 = 8;

/// Faults of one lane, one after the other, until the end.
///
/// # Errors
/// The first invariant that doesn't hold, or what never recovers.
pub async fn run(arena: &Arena<'_>, lane: Lane, storm: Storm) -> Result<()> {
    let mut random = StdRng::seed_from_u64(storm.seed ^ seed_of(lane));
    for number in 0.. {
        let Some(drawn) = Drawn::next(&mut random, lane, storm.gentle) else { return Ok(()) };
        if Instant::now() >= storm.end {
            return Ok(());
        }
        let name = format!("{}-{}-{number}", lane.name(), storm.number);
        let one = async {
            match lane {
                Lane::Objects => victims::hurt(arena, drawn, &name).await,
                Lane::Clients => hang_up(arena, drawn, &name).await,
                Lane::Operators | Lane::ControlPlane | Lane::Cluster(_) => {
                    inject(arena, lane, drawn).await?;
                    if drawn.hurried {
                        return Ok(());
                    }
                    arena.recover(drawn.fault, lane, &name).await
                }
            }
        };
        arena.strike(drawn.fault, one).await.map_err(|error| error.context(format!("{name} {drawn:?}")))?;
        if matches!(lane, Lane::Clients | Lane::Objects) {
            tokio::time::sleep(drawn.length).await;
        }
    }
    Ok(())
}

/// A time of faults.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// Which one it is.
    pub number: usize,
    /// Draws its faults.
    pub seed: u64,
    /// Whether processes shall live through it.
    pub gentle: bool,
    /// No fault begins later.
    pub end: Instant,
}

fn seed_of(lane: Lane) -> u64 {
    lane.name().bytes().fold(0, |seed, byte| seed << 5 ^ u64::from(byte))
}

/// The drawn time is the fault itself: it is waited for nothing.
async fn for_as_long(drawn: Drawn) {
    tokio::time::sleep(drawn.length).await;
}

async fn inject(arena: &Arena<'_>, lane: Lane, drawn: Drawn) -> Result<()> {
    match lane {
        Lane::Operators => operators(arena, drawn).await,
        Lane::ControlPlane => control_plane(arena, drawn).await,
        Lane::Cluster(number) => cluster(arena, &arena.sites[number], drawn).await,
        Lane::Objects | Lane::Clients => Ok(()),
    }
}

async fn operators(arena: &Arena<'_>, drawn: Drawn) -> Result<()> {
    let number = drawn.which % arena.places.len();
    let place = &arena.places[number];
    if drawn.fault == Fault::OperatorCutOff {
        conduct(&[&place.relay], Conduct::Hole, drawn).await;
        return Ok(());
    }
    let mut operator = place.operator.lock().await;
    match drawn.fault {
        Fault::OperatorFrozen if operator.runs() => {
            // One that has lost its lease, also just before, ends by itself and is revived.
            if operator.pause().await? {
                for_as_long(drawn).await;
                operator.resume();
            }
            Ok(())
        }
        Fault::OperatorReplaced if operator.runs() => {
            // It may have just lost its lease, and end with that.
            let exit = operator.terminated().await?;
            ensure!(matches!(exit, Exit::Code(0 | 1)), "an operator ended with {exit} after SIGTERM");
            arena.replace(number, &mut operator).await
        }
        _ => {
            operator.kill().await?;
            arena.replace(number, &mut operator).await
        }
    }
}

async fn control_plane(arena: &Arena<'_>, drawn: Drawn) -> Result<()> {
    let relays: Vec<_> = arena.places.iter().map(|place| &place.relay).collect();
    let control = arena.load.stage.control();
    let cut = || relays.iter().for_each(|relay| relay.cut());
    match drawn.fault {
        Fault::ControlPlaneSlow => conduct(&relays, Conduct::Slow(drawn.length / LATER), drawn).await,
        Fault::ControlPlaneOverloaded => {
            let overload = arena.rights.overload().await?;
            for_as_long(drawn).await;
            arena.rights.relieve(overload).await?;
        }
        Fault::RightsTaken => {
            arena.rights.take_away().await?;
            for_as_long(drawn).await;
            arena.rights.grant().await?;
        }
        Fault::EtcdCompacted => {
            persist("a compaction", async || control.compact_etcd().await).await?;
            cut();
        }
        Fault::EtcdRestarted => {
            control.stop_etcd().await?;
            for_as_long(drawn).await;
            control.start_etcd().await?;
        }
        Fault::ApiServerRestarted => {
            control.stop_apiserver().await?;
            for_as_long(drawn).await;
            control.start_apiserver().await?;
        }
        Fault::WatchesExpired => {
            set_all(&relays, Conduct::Refuse);
            let restarted = async {
                persist("a compaction", async || control.compact_etcd().await).await?;
                control.stop_apiserver().await?;
                control.start_apiserver().await
            }
            .await;
            set_all(&relays, Conduct::Open);
            restarted?;
        }
        _ => cut(),
    }
    Ok(())
}

async fn cluster(arena: &Arena<'_>, site: &Site<'_>, drawn: Drawn) -> Result<()> {
    let relay = &site.relay;
    match drawn.fault {
        Fault::ClusterRefuses => conduct(&[relay], Conduct::Refuse, drawn).await,
        Fault::ClusterSilent => conduct(&[relay], Conduct::Hole, drawn).await,
        Fault::ClusterSlow => conduct(&[relay], Conduct::Slow(drawn.length / LATER), drawn).await,
        Fault::ClusterFrozen => {
            site.cluster.pause_apiserver().await;
            for_as_long(drawn).await;
            site.cluster.resume_apiserver().await;
        }
        Fault::ClusterRestarted => {
            site.cluster.stop_apiserver().await?;
            for_as_long(drawn).await;
            site.cluster.start_apiserver().await?;
        }
        Fault::KubeconfigEmptied => {
            rotate(arena, site, None).await?;
            for_as_long(drawn).await;
            rotate(arena, site, Some(&site.cluster.admin_kubeconfig())).await?;
        }
        Fault::KubeconfigRotated => {
            let other = format!("admin-{}", drawn.which);
            rotate(arena, site, Some(&site.cluster.kubeconfig_for(&other, &["system:masters"])?)).await?;
        }
        Fault::KubeconfigWrong => {
            rotate(arena, site, Some(&site.cluster.token_kubeconfig("a-token-of-nobody"))).await?;
            for_as_long(drawn).await;
            rotate(arena, site, Some(&site.cluster.admin_kubeconfig())).await?;
        }
        _ => relay.cut(),
    }
    Ok(())
}

async fn conduct(relays: &[&Relay], conduct: Conduct, drawn: Drawn) {
    set_all(relays, conduct);
    for_as_long(drawn).await;
    set_all(relays, Conduct::Open);
}

fn set_all(relays: &[&Relay], conduct: Conduct) {
    for relay in relays {
        relay.set(conduct);
    }
}

/// Gives all instances of a site another kubeconfig, or none.
async fn rotate(arena: &Arena<'_>, site: &Site<'_>, kubeconfig: Option<&str>) -> Result<()> {
    let kubeconfig = kubeconfig.map(|kubeconfig| site.relay.through(kubeconfig));
    for runtime in &site.runtimes {
        persist("a rotation", async || arena.load.stage.rotate(runtime, kubeconfig.as_deref()).await).await?;
    }
    Ok(())
}

async fn hang_up(arena: &Arena<'_>, drawn: Drawn, binding: &str) -> Result<()> {
    let site = &arena.sites[drawn.which % arena.sites.len()];
    let instance = format!("{}-{}", site.probe, Lane::Clients.name());
    let after = drawn.length / HANGS_UP;
    lock(&arena.hung_up).push((instance.clone(), binding.to_owned()));
    let began = Instant::now();
    arena.load.hang_up(&instance, binding, after).await?;
    arena.recovered(drawn.fault, began.elapsed().saturating_sub(after));
    Ok(())
}
