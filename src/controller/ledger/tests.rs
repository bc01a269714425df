use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use parking_lot::Mutex;
use serde_json::json;

use crate::api::binding::SecretReference;
use crate::controller::dirty::Touched;

fn binding(uid: &str, version: u64, accepted: bool, expires: Option<&str>) -> KymaBinding {
    let accepted = json!([{"type": "Accepted", "status": if accepted { "True" } else { "False" },
        "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    serde_json::from_value(json!({
        "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
        "metadata": {"name": format!("n-{uid}"), "uid": uid, "resourceVersion": version.to_string()},
        "spec": {"instanceId": "i"},
        "status": {"conditions": accepted, "expiresAt": expires},
    }))
    .unwrap()
}

fn listed(bindings: Vec<KymaBinding>) -> Ledger {
    let mut ledger = Ledger::default();
    relist(&mut ledger, bindings);
    ledger
}

fn relist(ledger: &mut Ledger, bindings: Vec<KymaBinding>) {
    ledger.observe(&Event::Init, now());
    for binding in bindings {
        ledger.observe(&Event::InitApply(binding), now());
    }
    ledger.observe(&Event::InitDone, now());
}

fn admit(ledger: &mut Ledger, uid: &str, max: usize) -> Admission {
    admit_at(ledger, uid, max, now())
}

fn admit_at(ledger: &mut Ledger, uid: &str, max: usize, now: Timestamp) -> Admission {
    ledger.max = max;
    ledger.admit(uid, None, now)
}

fn issued(uid: &str, version: u64, expires: &str) -> KymaBinding {
    let mut issued = binding(uid, version, true, Some(expires));
    issued.status.as_mut().unwrap().binding = Some(SecretReference { name: "s".into() });
    issued
}

fn deleting(mut binding: KymaBinding) -> KymaBinding {
    binding.metadata.deletion_timestamp = Some(Time(now()));
    binding
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

#[test]
fn seats_are_exact_and_kept() {
    let mut ledger =
        listed(vec![issued("a", 1, "2026-06-01T00:00:01Z"), issued("over", 1, "2026-06-01T00:00:00Z")]);
    for uid in ["b", "c"] {
        ledger.observe(&Event::Apply(binding(uid, 2, false, None)), now());
    }
    assert_eq!(admit(&mut ledger, "b", 2), Admission::Seated);
    assert_eq!(admit(&mut ledger, "b", 2), Admission::Seated, "a seat is kept");
    assert!(matches!(admit(&mut ledger, "c", 2), Admission::Wait(_)), "b is still being made");
    ledger.observe(&Event::Apply(issued("b", 3, "2026-06-01T00:10:00Z")), now());
    assert_eq!(ledger.take_woken(), ["n-c".into()]);
    assert_eq!(admit(&mut ledger, "c", 2), Admission::Refused);
    ledger.observe(&Event::Delete(binding("b", 4, true, None)), now());
    assert_eq!(admit(&mut ledger, "c", 2), Admission::Seated);
    assert_eq!(admit(&mut ledger, "gone", 2), Admission::Gone);
}

/// One that is being made holds the only place of an instance, and others wait for it.
fn waited_for(waiting: &[&str]) -> Ledger {
    let mut ledger = listed(vec![]);
    for uid in ["first"].iter().chain(waiting) {
        ledger.observe(&Event::Apply(binding(uid, 2, false, None)), now());
        let told = admit(&mut ledger, uid, 1);
        assert_eq!(told == Admission::Seated, *uid == "first", "{told:?}");
        assert!(matches!(told, Admission::Seated | Admission::Wait(_)), "{told:?}");
    }
    assert!(ledger.take_woken().is_empty());
    ledger
}

#[test]
fn whoever_waits_is_woken_when_it_would_be_told_something_else() {
    let gone = |uid: &str| Event::Delete(binding(uid, 9, false, None));
    let mut ledger = waited_for(&["b", "a"]);
    ledger.observe(&gone("first"), now());
    assert_eq!(ledger.take_woken(), ["n-a".into()], "of one second the first by name");
    assert!(matches!(admit(&mut ledger, "b", 1), Admission::Wait(_)), "it doesn't overtake");
    // The first in line goes before it has asked.
    ledger.observe(&gone("a"), now());
    assert_eq!(ledger.take_woken(), ["n-b".into()]);
    assert_eq!(admit(&mut ledger, "b", 1), Admission::Seated);

    let mut ledger = waited_for(&["a", "b"]);
    ledger.observe(&Event::Apply(issued("first", 3, "2026-06-01T00:10:00Z")), now());
    assert_eq!(ledger.take_woken(), ["n-a".into(), "n-b".into()], "both are refused");
    assert_eq!(admit(&mut ledger, "a", 1), Admission::Refused);

    let mut ledger = waited_for(&["a"]);
    relist(&mut ledger, vec![binding("a", 2, false, None)]);
    assert!(ledger.take_woken().contains(&"n-a".into()), "a list without the first");
    assert_eq!(admit(&mut ledger, "a", 1), Admission::Seated);
}

#[test]
fn who_no_longer_waits_stands_in_nobodys_way() {
    let mut ledger = waited_for(&["a", "b"]);
    ledger.observe(&Event::Apply(deleting(binding("a", 3, false, None))), now());
    assert_eq!(admit(&mut ledger, "a", 1), Admission::Gone, "a round that began before it was deleted");
    ledger.observe(&Event::Delete(binding("first", 4, false, None)), now());
    assert_eq!(ledger.take_woken(), ["n-b".into()]);
    assert_eq!(admit(&mut ledger, "b", 1), Admission::Seated);
    // One whose own time is over, but whose end can't be written.
    let mut ledger = waited_for(&[]);
    for uid in ["a", "b"] {
        ledger.observe(&Event::Apply(binding(uid, 2, false, None)), now());
    }
    let until = Some(now() + SignedDuration::from_secs(5));
    assert!(matches!(ledger.admit("a", until, now()), Admission::Wait(_)));
    let later = now() + SignedDuration::from_secs(5);
    assert!(matches!(ledger.admit("b", None, later), Admission::Wait(_)));
    assert_eq!(ledger.admit("a", until, later), Admission::Gone);
    ledger.observe(&Event::Delete(binding("first", 4, false, None)), later);
    assert_eq!(ledger.take_woken(), ["n-b".into()]);
}

#[test]
fn what_is_being_removed_keeps_its_place_and_refuses_nobody() {
    let mut ledger = listed(vec![issued("a", 1, "2026-06-01T00:10:00Z")]);
    ledger.observe(&Event::Apply(binding("b", 1, false, None)), now());
    ledger.observe(&Event::Apply(deleting(issued("a", 2, "2026-06-01T00:10:00Z"))), now());
    let told = admit(&mut ledger, "b", 1);
    let Admission::Wait(wait) = told else { panic!("{told:?}") };
    assert_eq!(wait.held.to_string(), "0 issued, 0 being made, 1 being removed");
    assert_eq!(wait.next, Some("2026-06-01T00:10:00Z".parse().unwrap()), "then it is free, removed or not");
}

#[test]
fn a_relist_frees_the_seats_of_what_is_gone() {
    let mut ledger = listed(vec![issued("a", 1, "2026-06-01T00:10:00Z")]);
    ledger.observe(&Event::Apply(binding("b", 1, false, None)), now());
    assert_eq!(admit(&mut ledger, "b", 1), Admission::Refused);
    relist(&mut ledger, vec![binding("b", 1, false, None)]);
    assert_eq!(admit(&mut ledger, "b", 1), Admission::Seated);
    assert_eq!(ledger.names_of("i"), ["n-b"]);
}

#[test]
fn what_was_found_undecided_is_claimed_before_anything_is_decided() {
    let undecided =
        vec![binding("a", 1, false, None), binding("b", 1, false, None), binding("c", 1, false, None)];
    let mut ledger = listed(undecided);
    ledger.observe(&Event::Apply(binding("new", 2, false, None)), now());
    assert_eq!(admit(&mut ledger, "a", 9), Admission::ClaimFirst);
    assert_eq!(admit(&mut ledger, "new", 9), Admission::ClaimOthers);
    // Our claim, somebody's write, and time.
    ledger.wrote("a", &binding("a", 3, false, None));
    assert_eq!(admit(&mut ledger, "a", 9), Admission::ClaimOthers);
    ledger.observe(&Event::Apply(binding("b", 4, false, None)), now());
    assert_eq!(admit(&mut ledger, "a", 9), Admission::ClaimOthers);
    assert_eq!(admit_at(&mut ledger, "a", 9, now() + LONGEST_WRITE), Admission::Seated);
    // What is decided, or going, or was known before, needs none.
    let mut going = binding("going", 1, false, None);
    going.metadata.deletion_timestamp = Some(Time(now()));
    let mut ledger = listed(vec![binding("accepted", 1, true, None), going]);
    ledger.observe(&Event::Apply(binding("new", 2, false, None)), now());
    relist(&mut ledger, vec![binding("accepted", 1, true, None), binding("new", 2, false, None)]);
    assert_eq!(admit(&mut ledger, "new", 9), Admission::Seated);
}

#[test]
fn whoever_waits_is_told_how_many_are_before_it() {
    let mut ledger = waited_for(&["b", "a", "c"]);
    let mut behind = |uid| match admit(&mut ledger, uid, 1) {
        Admission::Wait(wait) => wait.behind,
        told => panic!("{told:?}"),
    };
    assert_eq!(["a", "b", "c"].map(&mut behind), [0, 1, 2]);
}

/// Time alone has freed the place, so no event wakes the successor that may sit beside whoever takes it.
#[test]
fn whoever_is_given_a_place_wakes_those_who_may_sit_beside_it() {
    let line = |succeeds: bool| {
        let mut ledger = waited_for(&["a"]);
        ledger.update("first", |entry| entry.seat = Some(Some(now() + SignedDuration::from_secs(1))));
        let mut beside = binding("b", 2, false, None);
        beside.spec.predecessor_binding_id = succeeds.then(|| "n-a".to_owned());
        ledger.observe(&Event::Apply(beside), now());
        assert!(matches!(admit(&mut ledger, "b", 1), Admission::Wait(_)));
        (Mutex::new(ledger), Touched::default())
    };
    let later = now() + SignedDuration::from_secs(1);
    for (succeeds, woken) in [(true, vec![Id::from("n-b")]), (false, vec![])] {
        let (ledger, touched) = line(succeeds);
        assert!(touched.take().is_empty());
        assert_eq!(touched.wake(&ledger, |ledger| admit_at(ledger, "a", 1, later)), Admission::Seated);
        assert_eq!(touched.take().into_iter().collect::<Vec<_>>(), woken);
        assert!(ledger.lock().take_woken().is_empty());
    }
}

#[test]
fn only_what_is_born_under_our_eyes_is_untouched() {
    let mut ledger = listed(vec![binding("old", 1, false, None)]);
    ledger.observe(&Event::Apply(binding("new", 2, false, None)), now());
    ledger.observe(&Event::Apply(binding("old", 3, false, None)), now());
    assert!(ledger.entry("old").unwrap().touched);
    assert!(!ledger.entry("new").unwrap().touched);
}

#[test]
fn a_list_is_whole_from_its_end_on_and_emptiness_has_a_beginning() {
    let later = now() + SignedDuration::from_secs(60);
    let mut ledger = listed(vec![]);
    let knows = |whole_since, empty_since, bindings| Knowledge { whole_since, empty_since, bindings };
    assert_eq!(ledger.knowledge(), knows(Some(now()), Some(now()), 0));
    ledger.observe(&Event::Apply(binding("a", 1, false, None)), later);
    assert_eq!(ledger.knowledge(), knows(Some(now()), None, 1));
    ledger.observe(&Event::Init, later);
    assert_eq!(ledger.knowledge().whole_since, None, "a list under way knows nothing for certain");
    ledger.observe(&Event::InitDone, later);
    assert_eq!(ledger.knowledge(), knows(Some(later), Some(later), 0));
}

#[test]
fn only_what_went_past_our_finalizer_is_a_stray() {
    let mut ledger = listed(vec![binding("let-go", 1, true, None), binding("forced", 1, true, None)]);
    ledger.update("let-go", |entry| entry.released = true);
    assert!(!ledger.observe(&Event::Delete(binding("let-go", 2, true, None)), now()));
    ledger.observe(&Event::Apply(binding("never-made", 2, false, None)), now());
    assert!(!ledger.observe(&Event::Delete(binding("never-made", 3, false, None)), now()));
    assert!(ledger.observe(&Event::Delete(binding("forced", 4, true, None)), now()));
    let strays = ledger.take_strays();
    assert_eq!(
        strays.iter().map(|s| (s.name.as_str(), s.uid.as_str())).collect::<Vec<_>>(),
        [("n-forced", "forced")]
    );
    assert!(ledger.take_strays().is_empty());
    assert!(!ledger.observe(&Event::Delete(binding("forced", 4, true, None)), now()), "it is told once");
}

#[test]
fn what_failed_for_good_or_can_no_longer_be_issued_holds_no_seat() {
    let stalled: KymaBinding = {
        let mut binding = binding("stalled", 1, true, None);
        let conditions = &mut binding.status.as_mut().unwrap().conditions;
        let condition = Condition { type_: "Stalled".into(), ..conditions[0].clone() };
        conditions.push(condition);
        binding
    };
    let mut hanging = binding("hanging", 1, true, None);
    hanging.metadata.creation_timestamp = Some(Time(now() - SignedDuration::from_secs(660)));
    let mut making = binding("making", 1, true, None);
    making.metadata.creation_timestamp = Some(Time(now() - SignedDuration::from_secs(659)));
    let mut ledger = listed(vec![stalled, hanging, making]);
    ledger.observe(&Event::Apply(binding("new", 2, false, None)), now());
    assert!(matches!(admit(&mut ledger, "new", 1), Admission::Wait(_)), "one may still be issued");
    assert_eq!(admit(&mut ledger, "new", 2), Admission::Seated);
}

#[test]
fn an_object_from_before_our_write_is_an_echo() {
    let mut ledger = listed(vec![binding("a", 9, false, None)]);
    ledger.wrote("a", &binding("a", 10, false, None));
    assert!(ledger.is_echo("a", &binding("a", 9, false, None)));
    assert!(!ledger.is_echo("a", &binding("a", 10, false, None)));
}
