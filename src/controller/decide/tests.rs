use super::*;
use crate::instances::state::KubeconfigRef;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn target(runtime: &str) -> Target {
    Target {
        runtime_id: runtime.into(),
        plan: Some("aws".into()),
        cluster_name: "c".into(),
        kubeconfig: Some(kubeconfig()),
    }
}

fn kubeconfig() -> KubeconfigRef {
    KubeconfigRef { secret: "kubeconfig-r".into(), resource_version: "1".into() }
}

fn ready() -> State {
    State::Ready(target("r"))
}

/// Created at second 1000, with 600 s to live.
fn binding(changes: Value) -> KymaBinding {
    let mut object = json!({
        "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
        "metadata": {"name": "b", "uid": "u", "generation": 1, "finalizers": [FINALIZER], "creationTimestamp": at(1000)},
        "spec": {"instanceId": "i", "expirationSeconds": 600},
    });
    merge(&mut object, changes);
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, changes) => *into = changes,
    }
}

fn issued(expires: i64) -> Value {
    json!({"status": {"expiresAt": at(expires), "runtimeId": "r", "clusterId": "c", "binding": {"name": "kyma-binding-b"}}})
}

fn deleting(mut changes: Value) -> KymaBinding {
    merge(&mut changes, json!({"metadata": {"deletionTimestamp": at(1001)}}));
    binding(changes)
}

struct World {
    instance: State,
    secret_created: Option<Timestamp>,
    doubted: bool,
    touched: bool,
    made_on: Option<&'static str>,
    unrevoked: bool,
    absence: Absence,
    bindable: BindablePlans,
    now: Timestamp,
}

impl Default for World {
    fn default() -> Self {
        Self {
            instance: ready(),
            secret_created: Some(at(1001)),
            doubted: false,
            touched: true,
            made_on: None,
            unrevoked: false,
            absence: Absence { since: at(0), vanished: false },
            bindable: BindablePlans::All,
            now: at(1002),
        }
    }
}

impl World {
    fn decide(&self, binding: &KymaBinding) -> Step {
        decide(&Facts {
            binding,
            instance: &self.instance,
            secret_created: self.secret_created,
            doubted: self.doubted,
            touched: self.touched,
            made_on: self.made_on,
            unrevoked: self.unrevoked,
            absence: self.absence,
            bindable: &self.bindable,
            lifetimes: (600, 7200),
            now: self.now,
        })
    }
}

fn reason(step: &Step) -> Reason {
    match step {
        Step::Hold(reason, _) | Step::Reject(reason, _) | Step::Delete(reason) => *reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_binding_of_a_ready_instance_is_made_once_the_finalizer_is_on() {
    let world = World::default();
    assert_eq!(world.decide(&binding(json!({}))), Step::Make(target("r")));
    assert_eq!(world.decide(&binding(json!({"metadata": {"finalizers": []}}))), Step::AddFinalizer);
}

#[test]
fn other_instances_hold_it_until_its_time_is_up() {
    let new = binding(json!({}));
    for (instance, expected) in [
        (State::Unknown, Reason::InstanceUnknown),
        (State::Suspended(target("r")), Reason::InstanceSuspended),
        (State::Deleting(target("r")), Reason::InstanceSuspended),
        (State::InProgress, Reason::InstanceInProgress),
        (State::Failed, Reason::InstanceFailed),
        (State::Ambiguous("Secret a".into(), "Secret b".into()), Reason::InstanceAmbiguous),
    ] {
        let mut world = World { instance, ..World::default() };
        let step = world.decide(&new);
        assert!(matches!(step, Step::Hold(..)));
        assert_eq!(reason(&step), expected);
        world.now = at(1600);
        assert_eq!(world.decide(&new), Step::Delete(Reason::Expired));
    }
}

#[test]
fn an_ambiguity_names_both() {
    let world =
        World { instance: State::Ambiguous("Secret a".into(), "Secret b".into()), ..World::default() };
    let Step::Hold(_, message) = world.decide(&binding(json!({}))) else { panic!() };
    assert!(message.contains("Secret a and Secret b"));
}

#[test]
fn the_plan_of_the_instance_decides() {
    let bindable = BindablePlans::Named(["azure".to_owned(), "gcp".to_owned()].into());
    let mut world = World { bindable, ..World::default() };
    let Step::Reject(Reason::PlanNotBindable, message) = world.decide(&binding(json!({}))) else { panic!() };
    assert_eq!(message, "binding is not supported for plan 'aws'; bindable plans: azure, gcp");
    world.bindable = BindablePlans::Named(["aws".to_owned()].into());
    for plan in ["aws", "AWS", "Aws"] {
        world.instance = State::Ready(Target { plan: Some(plan.into()), ..target("r") });
        assert!(matches!(world.decide(&binding(json!({}))), Step::Make(_)), "{plan}");
    }
    world.instance = ready();
    // A binding that exists outlives a change of the plans.
    world.bindable = BindablePlans::Named(["azure".to_owned()].into());
    assert_eq!(world.decide(&binding(issued(1601))), Step::Keep);
}

#[test]
fn it_ends_when_the_token_ends() {
    let mut world = World::default();
    assert_eq!(world.decide(&binding(issued(1601))), Step::Keep);
    world.now = at(1601);
    assert_eq!(world.decide(&binding(issued(1601))), Step::Delete(Reason::Expired));
}

#[test]
fn a_status_never_makes_it_live_longer() {
    let far = binding(issued(99_999));
    let mut world = World { now: at(1660), ..World::default() };
    assert_eq!(world.decide(&far), Step::Keep);
    world.now = at(1001 + 660);
    assert_eq!(world.decide(&far), Step::Delete(Reason::Expired));
    world.secret_created = None;
    assert_eq!(world.decide(&far), Step::Renew(target("r")));
    // Nor does a Secret that was made again.
    world.secret_created = Some(at(2200));
    assert_eq!(world.decide(&far), Step::Keep);
    world.now = at(1000 + 1260);
    assert_eq!(world.decide(&far), Step::Delete(Reason::Expired));
}

#[test]
fn what_is_missing_of_an_issued_binding_is_mended_while_its_cluster_is_there() {
    let ready = binding(issued(1601));
    let mut world = World { doubted: true, secret_created: None, ..World::default() };
    assert_eq!(world.decide(&ready), Step::Repair(target("r")), "a dead account needs no Secret");
    world.doubted = false;
    assert_eq!(world.decide(&ready), Step::Renew(target("r")));
    world.instance = State::Suspended(target("r"));
    assert!(matches!(world.decide(&ready), Step::Hold(Reason::InstanceSuspended, _)));
    world.instance = State::InProgress;
    assert_eq!(world.decide(&ready), Step::Keep);
    world = World { doubted: true, secret_created: None, ..World::default() };
    assert_eq!(world.decide(&deleting(issued(1601))), Step::Remove(Removal::Revoke(kubeconfig())));
    world.now = at(1601);
    assert_eq!(world.decide(&ready), Step::Delete(Reason::Expired));
}

#[test]
fn what_failed_after_it_was_issued_stays_failed() {
    let mut failed = issued(1601);
    merge(
        &mut failed,
        json!({"status": {"conditions": [{"type": "Stalled", "status": "True", "reason": "AccessLost",
        "message": "", "lastTransitionTime": at(1000)}]}}),
    );
    let mut world = World { doubted: true, secret_created: None, ..World::default() };
    assert_eq!(world.decide(&binding(failed.clone())), Step::Rest(Some(at(1601))));
    world.now = at(1601);
    assert_eq!(world.decide(&binding(failed)), Step::Delete(Reason::Expired));
}

#[test]
fn a_lifetime_that_is_not_granted_here_is_rejected() {
    let long = binding(json!({"spec": {"expirationSeconds": 7201}}));
    assert_eq!(reason(&World::default().decide(&long)), Reason::ExpirationRefused);
}

#[test]
fn an_instance_that_has_just_vanished_may_come_back() {
    let absence = Absence { since: at(995), vanished: false };
    let mut world = World { instance: State::Unknown, absence, ..World::default() };
    assert_eq!(reason(&world.decide(&binding(json!({})))), Reason::InstanceUnknown, "never heard of");
    world.absence.vanished = true;
    assert_eq!(reason(&world.decide(&binding(json!({})))), Reason::InstanceMissing);
    // What was issued works, and is shown as before.
    assert_eq!(world.decide(&binding(issued(1601))), Step::Rest(Some(at(1005))));
    assert_eq!(world.decide(&binding(issued(1003))), Step::Rest(Some(at(1003))));
    assert_eq!(world.decide(&deleting(issued(1601))), Step::Remove(Removal::Later(Reason::InstanceMissing)));
    world.now = at(1005);
    assert_eq!(reason(&world.decide(&binding(json!({})))), Reason::InstanceUnknown);
    assert_eq!(world.decide(&binding(issued(1601))), Step::Delete(Reason::InstanceUnknown));
    assert_eq!(world.decide(&deleting(issued(1601))), Step::Remove(Removal::GiveUp(GiveUp::InstanceGone)));
}

#[test]
fn a_finalizer_that_was_taken_off_is_put_back() {
    let mut lost = issued(1601);
    merge(&mut lost, json!({"metadata": {"finalizers": []}}));
    assert_eq!(World::default().decide(&binding(lost)), Step::AddFinalizer);
}

#[test]
fn another_cluster_ends_it() {
    let world = World { instance: State::Ready(target("other")), ..World::default() };
    assert_eq!(world.decide(&binding(issued(1601))), Step::Delete(Reason::ClusterReplaced));
    assert_eq!(world.decide(&deleting(issued(1601))), Step::Remove(Removal::GiveUp(GiveUp::ClusterReplaced)));
}

#[test]
fn a_vanished_instance_takes_its_bindings_along_and_a_suspended_one_holds_them() {
    let mut world = World { instance: State::Unknown, ..World::default() };
    assert_eq!(world.decide(&binding(issued(1601))), Step::Delete(Reason::InstanceUnknown));
    for instance in [State::Suspended(target("r")), State::Deleting(target("r"))] {
        world.instance = instance;
        assert_eq!(reason(&world.decide(&binding(issued(1601)))), Reason::InstanceSuspended);
    }
    for instance in [State::InProgress, State::Failed, State::Ambiguous(String::new(), String::new())] {
        world.instance = instance;
        assert_eq!(world.decide(&binding(issued(1601))), Step::Keep);
    }
}

#[test]
fn a_stalled_binding_rests_until_it_is_collected() {
    let stalled = binding(
        json!({"status": {"conditions": [{"type": "Stalled", "status": "True", "reason": "LimitReached",
        "message": "", "lastTransitionTime": at(1000)}]}}),
    );
    let mut world = World::default();
    assert_eq!(world.decide(&stalled), Step::Rest(Some(at(1600))));
    world.now = at(1600);
    assert_eq!(world.decide(&stalled), Step::Delete(Reason::Expired));
}

#[test]
fn removal_goes_where_the_access_is() {
    let mut world = World::default();
    let gone = deleting(issued(1601));
    assert_eq!(world.decide(&gone), Step::Remove(Removal::Revoke(kubeconfig())));
    for instance in [State::Suspended(target("r")), State::Deleting(target("r"))] {
        world.instance = instance;
        assert_eq!(world.decide(&gone), Step::Remove(Removal::Revoke(kubeconfig())));
    }
    world.touched = false;
    assert_eq!(world.decide(&gone), Step::Remove(Removal::Nothing));
    assert_eq!(world.decide(&deleting(json!({"metadata": {"finalizers": ["other/one"]}}))), Step::Rest(None));
}

#[test]
fn what_cant_be_reached_is_retried_or_given_up() {
    let gone = deleting(issued(1601));
    let no_kubeconfig = Target { kubeconfig: None, ..target("r") };
    for (instance, expected) in [
        (State::Ready(no_kubeconfig.clone()), Removal::Later(Reason::KubeconfigMissing)),
        // The Runtime lives, and so do the tokens.
        (State::Suspended(no_kubeconfig.clone()), Removal::Later(Reason::KubeconfigMissing)),
        (State::Deleting(no_kubeconfig), Removal::GiveUp(GiveUp::ClusterGone)),
        (State::Unknown, Removal::GiveUp(GiveUp::InstanceGone)),
        (State::InProgress, Removal::Later(Reason::ClusterUnreachable)),
        (State::Ambiguous(String::new(), String::new()), Removal::Later(Reason::InstanceAmbiguous)),
    ] {
        let world = World { instance, ..World::default() };
        assert_eq!(world.decide(&gone), Step::Remove(expected));
    }
    let forget = json!({"metadata": {"annotations": {"bindings.kyma-project.io/forget": "true"}}});
    // Only a cluster that fails is forgotten.
    let mut world = World::default();
    assert_eq!(world.decide(&deleting(forget.clone())), Step::Remove(Removal::Revoke(kubeconfig())));
    world.unrevoked = true;
    assert_eq!(world.decide(&deleting(forget.clone())), Step::Remove(Removal::GiveUp(GiveUp::Forgotten)));
    let away = State::Ready(Target { kubeconfig: None, ..target("r") });
    world = World { instance: away, ..World::default() };
    assert_eq!(world.decide(&deleting(forget)), Step::Remove(Removal::GiveUp(GiveUp::Forgotten)));
}

#[test]
fn a_forged_pin_aims_nowhere_else() {
    let forged = json!({"status": {"expiresAt": at(1601), "runtimeId": "other", "clusterId": "other",
        "binding": {"name": "another"}}});
    let world = World { made_on: Some("r"), ..World::default() };
    assert_eq!(world.decide(&binding(forged.clone())), Step::Keep);
    assert_eq!(world.decide(&deleting(forged)), Step::Remove(Removal::Revoke(kubeconfig())));
}

#[test]
fn the_end_waits_for_no_failure_of_another_kind() {
    let (binding, instance) = (binding(json!({})), ready());
    let with = |step: &Step| circumstances(step, &binding, &instance);
    let (made, mended) = (with(&Step::Make(target("r"))), with(&Step::Renew(target("r"))));
    assert_eq!(made, mended, "the same cluster fails both");
    let ends: Vec<_> = [Reason::Expired, Reason::ClusterReplaced, Reason::InstanceUnknown]
        .map(|why| with(&Step::Delete(why)))
        .into();
    assert!(ends.iter().all(|end| *end != made));
    assert!(ends[0] != ends[1] && ends[1] != ends[2]);
    assert_ne!(with(&Step::Remove(Removal::Nothing)), ends[0]);
}

#[test]
fn it_is_known_when_the_last_token_ends() {
    let ready = binding(issued(1601));
    assert_eq!(
        tokens_end(&ready, Some(at(1600)), Some(at(1000))),
        at(1600),
        "what is written down goes first"
    );
    assert_eq!(tokens_end(&ready, None, Some(at(1000))), at(1601));
    assert_eq!(tokens_end(&ready, None, Some(at(1500))), at(2100), "its Secret was made again");
    assert_eq!(tokens_end(&binding(json!({})), None, None), at(1000 + 1260), "nobody knows what was issued");
}
