//! The limit in generated histories: bindings come, are tried, issued, deleted, expire; events are
//! late, lists are received anew, the process starts again.

use std::collections::VecDeque;

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

const BINDINGS: usize = 6;
const LIFETIME: i64 = 600;

#[derive(Debug, Clone)]
enum Happens {
    Created(usize),
    /// A round asks for a seat, and goes on from there.
    Tried(usize),
    /// A round that has a seat writes what it issued.
    Issued(usize),
    Deleted(usize),
    /// The watch brings its next event.
    Told,
    Relisted,
    Restarted,
    Later(i64),
}

fn happens() -> impl Strategy<Value = Happens> {
    let binding = 0..BINDINGS;
    prop_oneof![
        4 => binding.clone().prop_map(Happens::Created),
        6 => binding.clone().prop_map(Happens::Tried),
        6 => binding.clone().prop_map(Happens::Issued),
        2 => binding.prop_map(Happens::Deleted),
        8 => Just(Happens::Told),
        1 => Just(Happens::Relisted),
        1 => Just(Happens::Restarted),
        2 => (1..400_i64).prop_map(Happens::Later),
    ]
}

#[derive(Debug, Clone, Default)]
struct Object {
    uid: String,
    version: u64,
    created: i64,
    expires: Option<i64>,
    rejected: bool,
}

/// A control plane, and a controller as far as the limit needs one.
#[derive(Default)]
struct World {
    objects: [Option<Object>; BINDINGS],
    /// Bindings, by UID, whose round has a seat and has not written yet.
    making: HashSet<String>,
    events: VecDeque<Event<KymaBinding>>,
    ledger: Ledger,
    versions: u64,
    second: i64,
}

impl World {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.second).unwrap()
    }

    fn happens(&mut self, what: &Happens, limit: usize) {
        match *what {
            Happens::Created(i) if self.objects[i].is_none() => {
                let uid = format!("{i}-{}", self.versions);
                self.objects[i] = Some(Object { uid, created: self.second, ..Object::default() });
                self.write(i, |_| {});
            }
            Happens::Tried(i) => self.try_one(i, limit),
            Happens::Issued(i) => {
                let Some(object) = self.objects[i].clone().filter(|o| self.making.contains(&o.uid)) else {
                    return;
                };
                self.making.remove(&object.uid);
                let ends = self.second + LIFETIME;
                // `apply::make` looks at the clock: past its own time nothing is issued.
                if self.second < object.created + LIFETIME {
                    let written = self.write(i, |object| object.expires = Some(ends));
                    self.ledger.wrote(&object.uid, &written);
                }
            }
            Happens::Deleted(i) => {
                if let Some(object) = self.objects[i].take() {
                    self.making.remove(&object.uid);
                    self.events.push_back(Event::Delete(binding(&object)));
                }
            }
            Happens::Told => {
                if let Some(event) = self.events.pop_front() {
                    self.ledger.observe(&event, self.now());
                }
            }
            Happens::Relisted => self.list(),
            Happens::Restarted => {
                self.ledger = Ledger::default();
                self.making.clear();
                self.list();
            }
            Happens::Later(seconds) => self.second += seconds,
            Happens::Created(_) => {}
        }
    }

    fn try_one(&mut self, i: usize, limit: usize) {
        let Some(object) = self.objects[i].clone() else { return };
        if object.expires.is_some() || object.rejected || self.second >= object.created + LIFETIME {
            return;
        }
        match self.ledger.admit(&object.uid, limit, self.now()) {
            Admission::Seated => {
                self.making.insert(object.uid);
            }
            // A round begins with an object that the watch has shown.
            Admission::Full if self.ledger.entry(&object.uid).is_some() => {
                let written = self.write(i, |object| object.rejected = true);
                self.ledger.wrote(&object.uid, &written);
            }
            Admission::ClaimFirst => {
                let written = self.write(i, |_| {});
                self.ledger.wrote(&object.uid, &written);
            }
            Admission::Full | Admission::Wait => {}
        }
    }

    fn write(&mut self, i: usize, change: impl FnOnce(&mut Object)) -> KymaBinding {
        self.versions += 1;
        let object = self.objects[i].get_or_insert_default();
        object.version = self.versions;
        change(object);
        let written = binding(object);
        self.events.push_back(Event::Apply(written.clone()));
        written
    }

    fn list(&mut self) {
        self.events.clear();
        self.ledger.observe(&Event::Init, self.now());
        for object in self.objects.iter().flatten() {
            self.ledger.observe(&Event::InitApply(binding(object)), self.now());
        }
        self.ledger.observe(&Event::InitDone, self.now());
    }

    /// Unexpired accepted bindings, and those that may become such without asking again.
    fn accepted(&self) -> usize {
        let counts = |object: &&Object| {
            object.expires.is_some_and(|ends| ends > self.second) || self.making.contains(&object.uid)
        };
        self.objects.iter().flatten().filter(counts).count()
    }
}

fn binding(object: &Object) -> KymaBinding {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "x", "message": "", "lastTransitionTime": at(0)});
    let mut conditions = Vec::new();
    if object.expires.is_some() {
        conditions.push(condition("Accepted"));
    }
    if object.rejected {
        conditions.push(condition("Stalled"));
    }
    serde_json::from_value(json!({
        "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
        "metadata": {"name": object.uid, "uid": object.uid, "resourceVersion": object.version.to_string(),
            "creationTimestamp": at(object.created)},
        "spec": {"instanceId": "i", "expirationSeconds": LIFETIME},
        "status": {"conditions": conditions, "expiresAt": object.expires.map(at)},
    }))
    .unwrap()
}

proptest! {
    #[test]
    fn no_history_exceeds_the_limit(history in vec(happens(), 1..120), limit in 1..4_usize) {
        let mut world = World::default();
        world.list();
        for what in &history {
            world.happens(what, limit);
            prop_assert!(world.accepted() <= limit, "{} after {what:?}", world.accepted());
        }
    }

    /// A seat is never lost to nobody: when all is told, a table that isn't full has room.
    #[test]
    fn no_history_keeps_a_seat_for_nobody(history in vec(happens(), 1..120), limit in 1..4_usize) {
        let mut world = World::default();
        world.list();
        for what in &history {
            world.happens(what, limit);
        }
        while !world.events.is_empty() {
            world.happens(&Happens::Told, limit);
        }
        world.second += LONGEST_WRITE.as_secs();
        let taken = world.accepted();
        let version = world.versions + 1;
        let fresh = Object { uid: "fresh".into(), version, created: world.second, ..Object::default() };
        world.ledger.observe(&Event::Apply(binding(&fresh)), world.now());
        let seated = world.ledger.admit("fresh", limit, world.now()) == Admission::Seated;
        // A round that was ended by its own clock keeps its seat until the object goes.
        let ended = world.objects.iter().flatten().filter(|o| {
            o.expires.is_none() && world.ledger.entry(&o.uid).is_some_and(|e| e.seat.is_some())
        });
        let ended = ended.filter(|o| !world.making.contains(&o.uid)).count();
        prop_assert_eq!(seated, taken + ended < limit);
    }
}
