//! Two leaders and one limit: every order in which their writes can arrive is tried.
//!
//! The old leader has decided within the limit, and is gone; its writes are still under way. The new
//! one has listed everything after that. The API server takes a write only if the object is still of
//! the version that was decided on, and tells the watch of each.

use std::collections::{BTreeSet, HashSet, VecDeque};

use super::*;
use serde_json::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Decision {
    /// It is still to be issued.
    Accept,
    Issue,
    Reject,
    Claim,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Object {
    version: u64,
    decided: Option<Decision>,
}

/// A write that was sent and has not arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Write {
    binding: usize,
    decided_on: u64,
    decision: Decision,
    stale: bool,
}

#[derive(Debug, Clone)]
struct World {
    server: Vec<Object>,
    /// As the new leader's watch has them.
    seen: Vec<Object>,
    events: VecDeque<(usize, Object)>,
    under_way: Vec<Write>,
    ledger: Ledger,
    limit: usize,
    /// Those that wait for a place and have not been woken.
    asleep: BTreeSet<usize>,
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn uid(binding: usize) -> String {
    format!("u{binding}")
}

fn object(binding: usize, object: Object) -> KymaBinding {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "x", "message": "", "lastTransitionTime": now()});
    let conditions = match object.decided {
        Some(Decision::Accept | Decision::Issue) => vec![condition("Accepted")],
        Some(Decision::Reject) => vec![condition("Stalled")],
        _ => Vec::new(),
    };
    serde_json::from_value(json!({
        "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
        "metadata": {"name": uid(binding), "uid": uid(binding), "resourceVersion": object.version.to_string(),
            "creationTimestamp": now()},
        "spec": {"instanceId": "i", "expirationSeconds": 600},
        "status": if object.decided == Some(Decision::Issue) {
            json!({"conditions": conditions, "expiresAt": now() + SignedDuration::from_secs(600), "binding": {"name": "s"}})
        } else {
            json!({"conditions": conditions})
        },
    }))
    .unwrap()
}

impl World {
    /// As many writes of the old leader are under way as the limit allows, each of that decision.
    fn new(bindings: usize, limit: usize, late: Decision, claims: bool) -> Self {
        let server = vec![Object { version: 1, decided: None }; bindings];
        let mut ledger = Ledger::new(limit);
        ledger.observe(&Event::Init, now());
        for (binding, at) in server.iter().enumerate() {
            ledger.observe(&Event::InitApply(object(binding, *at)), now());
            if !claims {
                ledger.update(&uid(binding), |entry| entry.set_unclaimed(None));
            }
        }
        ledger.observe(&Event::InitDone, now());
        let stale = |binding| Write { binding, decided_on: 1, decision: late, stale: true };
        let under_way = (0..limit).map(stale).collect();
        let asleep = BTreeSet::new();
        Self { seen: server.clone(), server, events: VecDeque::new(), under_way, ledger, limit, asleep }
    }

    fn accepted(&self) -> usize {
        let accepted = |o: &&Object| matches!(o.decided, Some(Decision::Accept | Decision::Issue));
        self.server.iter().filter(accepted).count()
    }

    fn issued(&self) -> usize {
        self.server.iter().filter(|o| o.decided == Some(Decision::Issue)).count()
    }

    fn hear(&mut self) {
        let woken = self.ledger.take_woken();
        self.asleep.retain(|binding| !woken.contains(&uid(*binding).as_str().into()));
    }

    /// All worlds that are one step away.
    fn next(&self) -> Vec<Self> {
        let mut next = Vec::new();
        for index in 0..self.under_way.len() {
            let mut world = self.clone();
            world.arrive(index);
            next.push(world);
        }
        if !self.events.is_empty() {
            let mut world = self.clone();
            if let Some((binding, at)) = world.events.pop_front() {
                world.seen[binding] = at;
                world.ledger.observe(&Event::Apply(object(binding, at)), now());
                world.hear();
            }
            next.push(world);
        }
        next.extend((0..self.seen.len()).filter_map(|binding| self.round(binding)));
        next
    }

    fn arrive(&mut self, index: usize) {
        let Write { binding, decided_on, decision, stale } = self.under_way.remove(index);
        let version = self.server.iter().map(|o| o.version).max().unwrap_or(0) + 1;
        let there = &mut self.server[binding];
        if there.version != decided_on {
            return;
        }
        let decided = if decision == Decision::Claim { there.decided } else { Some(decision) };
        *there = Object { version, decided };
        self.events.push_back((binding, *there));
        if !stale {
            self.ledger.wrote(&uid(binding), &object(binding, *there));
        }
    }

    /// A round of the new leader, as far as it concerns the limit.
    fn round(&self, binding: usize) -> Option<Self> {
        let at = self.seen[binding];
        let busy = self.under_way.iter().any(|w| w.binding == binding && !w.stale);
        let done = matches!(at.decided, Some(Decision::Issue | Decision::Reject));
        if busy
            || done
            || self.asleep.contains(&binding)
            || self.ledger.is_echo(&uid(binding), &object(binding, at))
        {
            return None;
        }
        let mut world = self.clone();
        let decision = match world.ledger.admit(&uid(binding), None, now()) {
            // It may fail once, and then is issued.
            Admission::Seated if at.decided.is_none() && binding % 2 == 1 => Decision::Accept,
            Admission::Seated => Decision::Issue,
            Admission::Refused => {
                // What is issued stays so here.
                assert!(self.issued() >= self.limit, "refused beside one that is being made: {self:?}");
                Decision::Reject
            }
            Admission::ClaimFirst => Decision::Claim,
            Admission::Wait(_) => {
                world.asleep.insert(binding);
                world.hear();
                return Some(world);
            }
            Admission::ClaimOthers => return None,
            Admission::Gone => panic!("all are there"),
        };
        world.hear();
        world.under_way.push(Write { binding, decided_on: at.version, decision, stale: false });
        Some(world)
    }

    fn key(&self) -> String {
        let entries: Vec<_> = (0..self.seen.len())
            .filter_map(|b| self.ledger.entry(&uid(b)))
            .map(|e| (e.seat, e.progress, e.unclaimed(), e.written))
            .collect();
        let Self { server, seen, events, under_way, asleep, ledger, .. } = self;
        let line: Vec<_> = ledger.lines.of("i", now()).map(|waiting| &waiting.uid).collect();
        format!("{server:?}{seen:?}{events:?}{under_way:?}{asleep:?}{entries:?}{line:?}")
    }
}

/// How many worlds there are; or the first in which more are accepted than the limit allows, or in
/// which nothing happens any more though something is undecided.
fn explore(first: World) -> Result<usize, Box<World>> {
    let mut known = HashSet::from([first.key()]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        let next = world.next();
        let over = next.is_empty();
        let decided = |o: &Object| matches!(o.decided, Some(Decision::Issue | Decision::Reject));
        let done = world.server.iter().all(decided) && world.issued() == world.limit;
        if world.accepted() > world.limit || over && !done {
            return Err(Box::new(world));
        }
        open.extend(next.into_iter().filter(|world| known.insert(world.key())));
    }
    Ok(known.len())
}

#[test]
fn in_whatever_order_writes_arrive_the_limit_is_exact() {
    for (bindings, limit) in [(2, 1), (3, 1), (3, 2)] {
        for late in [Decision::Accept, Decision::Issue] {
            let worlds = explore(World::new(bindings, limit, late, true)).unwrap_or_else(|w| panic!("{w:?}"));
            println!("{bindings} bindings, limit {limit}, {late:?}: {worlds} worlds");
        }
    }
}

#[test]
fn without_claims_a_late_write_of_the_old_leader_would_break_it() {
    let broken = explore(World::new(2, 1, Decision::Accept, false)).unwrap_err();
    assert_eq!(broken.accepted(), 2);
}
