use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;

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

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

#[test]
fn seats_are_exact_and_kept() {
    let mut ledger = listed(vec![
        binding("a", 1, true, Some("2026-06-01T00:00:01Z")),
        binding("over", 1, true, Some("2026-06-01T00:00:00Z")),
    ]);
    for uid in ["b", "c"] {
        ledger.observe(&Event::Apply(binding(uid, 2, false, None)), now());
    }
    assert_eq!(ledger.admit("b", 2, now()), Admission::Seated);
    assert_eq!(ledger.admit("b", 2, now()), Admission::Seated, "a seat is kept");
    assert_eq!(ledger.admit("c", 2, now()), Admission::Full);
    ledger.release("b");
    assert_eq!(ledger.admit("c", 2, now()), Admission::Seated);
    ledger.observe(&Event::Delete(binding("c", 3, false, None)), now());
    assert_eq!(ledger.admit("b", 2, now()), Admission::Seated);
    assert_eq!(ledger.admit("gone", 2, now()), Admission::Full);
}

#[test]
fn a_relist_frees_the_seats_of_what_is_gone() {
    let mut ledger = listed(vec![binding("a", 1, true, None)]);
    ledger.observe(&Event::Apply(binding("b", 1, false, None)), now());
    assert_eq!(ledger.admit("b", 1, now()), Admission::Full);
    relist(&mut ledger, vec![binding("b", 1, false, None)]);
    assert_eq!(ledger.admit("b", 1, now()), Admission::Seated);
    assert_eq!(ledger.names_of("i"), ["n-b"]);
}

#[test]
fn what_was_found_undecided_is_claimed_before_anything_is_decided() {
    let undecided =
        vec![binding("a", 1, false, None), binding("b", 1, false, None), binding("c", 1, false, None)];
    let mut ledger = listed(undecided);
    ledger.observe(&Event::Apply(binding("new", 2, false, None)), now());
    assert_eq!(ledger.admit("a", 9, now()), Admission::ClaimFirst);
    assert_eq!(ledger.admit("new", 9, now()), Admission::Wait);
    // Our claim, somebody's write, and time.
    ledger.wrote("a", &binding("a", 3, false, None));
    assert_eq!(ledger.admit("a", 9, now()), Admission::Wait);
    ledger.observe(&Event::Apply(binding("b", 4, false, None)), now());
    assert_eq!(ledger.admit("a", 9, now()), Admission::Wait);
    assert_eq!(ledger.admit("a", 9, now() + LONGEST_WRITE), Admission::Seated);
    // What is decided, or going, or was known before, needs none.
    let mut going = binding("going", 1, false, None);
    going.metadata.deletion_timestamp = Some(Time(now()));
    let mut ledger = listed(vec![binding("accepted", 1, true, None), going]);
    ledger.observe(&Event::Apply(binding("new", 2, false, None)), now());
    relist(&mut ledger, vec![binding("accepted", 1, true, None), binding("new", 2, false, None)]);
    assert_eq!(ledger.admit("new", 9, now()), Admission::Seated);
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
    assert_eq!(ledger.admit("new", 1, now()), Admission::Full, "one may still be issued");
    assert_eq!(ledger.admit("new", 2, now()), Admission::Seated);
}

#[test]
fn an_object_from_before_our_write_is_an_echo() {
    let mut ledger = listed(vec![binding("a", 9, false, None)]);
    ledger.wrote("a", &binding("a", 10, false, None));
    assert!(ledger.is_echo("a", &binding("a", 9, false, None)));
    assert!(!ledger.is_echo("a", &binding("a", 10, false, None)));
}
