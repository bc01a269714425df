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
    /// A round that has a seat fails, and writes that it was accepted.
    Failed(usize),
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
        3 => binding.clone().prop_map(Happens::Failed),
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
    accepted: bool,
    expires: Option<i64>,
    rejected: bool,
}

/// A control plane, and a controller as far as the limit needs one.
#[derive(Default)]
struct World {
    objects: [Option<Object>; BINDINGS],
    /// Bindings, by UID, whose round has a seat and has not written yet.
    making: HashSet<String>,
    /// Those that wait, and when they look for themselves.
    waiting: HashMap<String, Option<Timestamp>>,
    /// Names of those that were woken since they asked.
    woken: HashSet<Id>,
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
            Happens::Failed(i) => {
                let Some(uid) = self.objects[i].as_ref().map(|o| o.uid.clone()) else { return };
                if self.making.contains(&uid) {
                    let written = self.write(i, |object| object.accepted = true);
                    self.ledger.wrote(&uid, &written);
                }
            }
            Happens::Issued(i) => {
                let Some(object) = self.objects[i].clone().filter(|o| self.making.contains(&o.uid)) else {
                    return;
                };
                self.making.remove(&object.uid);
                let ends = self.second + LIFETIME;
                // `apply::make` looks at the clock: past its own time nothing is issued.
                if self.second < object.created + LIFETIME {
                    let written = self.write(i, |object| {
                        object.accepted = true;
                        object.expires = Some(ends);
                    });
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
                    self.hear();
                }
            }
            Happens::Relisted => self.list(),
            Happens::Restarted => {
                self.ledger = Ledger::new(limit);
                self.making.clear();
                self.waiting.clear();
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
        let until = Timestamp::from_second(object.created + LIFETIME).ok();
        self.waiting.remove(&object.uid);
        self.woken.remove(&Id::from(object.uid.as_str()));
        match self.ledger.admit(&object.uid, until, self.now()) {
            Admission::Seated => {
                self.making.insert(object.uid);
            }
            Admission::Refused => {
                let held = self.issued();
                assert!(held >= limit, "refused for good though only {held} of {limit} are issued");
                let written = self.write(i, |object| object.rejected = true);
                self.ledger.wrote(&object.uid, &written);
            }
            Admission::Wait(wait) => {
                self.waiting.insert(object.uid, wait.next);
            }
            Admission::ClaimFirst => {
                let written = self.write(i, |_| {});
                self.ledger.wrote(&object.uid, &written);
            }
            // A round begins with an object that the watch has shown.
            Admission::Gone | Admission::ClaimOthers => {}
        }
        self.hear();
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
        self.hear();
    }

    fn hear(&mut self) {
        self.woken.extend(self.ledger.take_woken());
    }

    /// Issued and unexpired, as far as the ledger has heard.
    fn issued(&self) -> usize {
        let seats = self.ledger.entries.values().filter(|entry| entry.progress == Progress::Issued);
        seats.filter(|entry| entry.seat.flatten().is_some_and(|ends| ends > self.now())).count()
    }

    /// Past its own time nothing is issued.
    fn may_be_issued(&self, object: &Object) -> bool {
        self.making.contains(&object.uid) && self.second < object.created + LIFETIME
    }

    /// Unexpired accepted bindings, and those that may become such without asking again.
    fn accepted(&self) -> usize {
        let counts = |object: &&Object| {
            object.expires.is_some_and(|ends| ends > self.second) || self.may_be_issued(object)
        };
        self.objects.iter().flatten().filter(counts).count()
    }
}

fn binding(object: &Object) -> KymaBinding {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "x", "message": "", "lastTransitionTime": at(0)});
    let mut conditions = Vec::new();
    if object.accepted {
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
        "status": {"conditions": conditions, "expiresAt": object.expires.map(at),
            "binding": object.expires.map(|_| json!({"name": "s"}))},
    }))
    .unwrap()
}

proptest! {
    #[test]
    fn no_history_exceeds_the_limit(history in vec(happens(), 1..120), limit in 1..4_usize) {
        let mut world = World { ledger: Ledger::new(limit), ..World::default() };
        world.list();
        for what in &history {
            world.happens(what, limit);
            prop_assert!(world.accepted() <= limit, "{} after {what:?}", world.accepted());
        }
    }

    /// Once an event is told, whoever waits has been woken, or looks by itself by now, when it would be told something
    /// else: nobody waits for ever beside a free place. What time alone has changed since the last event is for the
    /// look that each has by itself.
    #[test]
    fn no_history_forgets_who_waits(history in vec(happens(), 1..120), limit in 1..4_usize) {
        let mut world = World { ledger: Ledger::new(limit), ..World::default() };
        world.list();
        let mut by_time = false;
        for what in &history {
            let is_told = match what {
                Happens::Told => !world.events.is_empty(),
                Happens::Relisted | Happens::Restarted => true,
                _ => false,
            };
            by_time = !is_told && (by_time || matches!(what, Happens::Later(_)));
            world.happens(what, limit);
            for (uid, next) in &world.waiting {
                let Some(entry) = world.ledger.entry(uid).filter(|entry| entry.seat.is_none()) else { continue };
                let told = world.ledger.judge("i", world.now()).into_iter();
                let told = told.filter(|(other, _)| *other == Id::from(uid.as_str())).map(|(_, verdict)| verdict);
                let looks = world.woken.contains(&entry.name) || next.is_some_and(|next| next <= world.now());
                for verdict in told {
                    prop_assert!(verdict == Verdict::Wait || looks || by_time, "{uid}: {verdict:?} after {what:?}");
                }
            }
        }
    }

    /// A seat is never lost to nobody: when all is told, a table that isn't full has room.
    #[test]
    fn no_history_keeps_a_seat_for_nobody(history in vec(happens(), 1..120), limit in 1..4_usize) {
        let mut world = World { ledger: Ledger::new(limit), ..World::default() };
        world.list();
        for what in &history {
            world.happens(what, limit);
        }
        while !world.events.is_empty() {
            world.happens(&Happens::Told, limit);
        }
        world.second += LONGEST_WRITE.as_secs();
        // Who waits is before whoever comes.
        world.ledger.lines = Lines::default();
        let taken = world.accepted();
        let version = world.versions + 1;
        let fresh = Object { uid: "fresh".into(), version, created: world.second, ..Object::default() };
        world.ledger.observe(&Event::Apply(binding(&fresh)), world.now());
        let seated = world.ledger.admit("fresh", None, world.now()) == Admission::Seated;
        // A round that was ended by its own clock keeps its seat until the object goes.
        let keeps = |object: &&Object| {
            let seat = world.ledger.entry(&object.uid).and_then(|entry| entry.seat);
            seat.is_some_and(|seat| seat.is_none_or(|ends| ends > world.now()))
        };
        let ended = world.objects.iter().flatten().filter(keeps);
        let ended = ended.filter(|o| o.expires.is_none() && !world.may_be_issued(o)).count();
        prop_assert_eq!(seated, taken + ended < limit);
    }
}
