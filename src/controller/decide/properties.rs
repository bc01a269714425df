//! What holds for each next step, whatever the facts are.

use super::*;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Created at second 1000, with 600 s to live.
fn binding() -> impl Strategy<Value = KymaBinding> {
    let pin = option::of(prop_oneof![Just("r"), Just("other")]);
    let flags = any::<[bool; 5]>();
    (option::of(900..2_500_i64), pin, flags).prop_map(|(expires, pin, flags)| {
        let [deleting, ours, stalled, forgotten, secret] = flags;
        let condition = json!({"type": "Stalled", "status": "True", "reason": "x", "message": "",
            "lastTransitionTime": at(1000)});
        serde_json::from_value(json!({
            "apiVersion": "bindings.kyma-project.io/v1alpha1", "kind": "KymaBinding",
            "metadata": {
                "name": "b", "uid": "u", "creationTimestamp": at(1000),
                "finalizers": if ours { vec![FINALIZER] } else { vec![] },
                "deletionTimestamp": deleting.then(|| at(1001)),
                "annotations": {crate::api::names::FORGET: forgotten.to_string()},
            },
            "spec": {"instanceId": "i", "expirationSeconds": 600},
            "status": {
                "expiresAt": expires.map(at), "runtimeId": pin, "clusterId": pin,
                "binding": if secret { json!({"name": "kyma-binding-b"}) } else { Value::Null },
                "conditions": if stalled { vec![condition] } else { vec![] },
            },
        }))
        .unwrap()
    })
}

fn instance() -> impl Strategy<Value = State> {
    let kubeconfig = KubeconfigRef { secret: "s".into(), resource_version: "1".into() };
    let target =
        (prop_oneof![Just("r"), Just("other")], any::<bool>()).prop_map(move |(runtime, reachable)| {
            let kubeconfig = reachable.then(|| kubeconfig.clone());
            Target {
                runtime_id: runtime.into(),
                plan: Some("aws".into()),
                cluster_name: "c".into(),
                kubeconfig,
            }
        });
    prop_oneof![
        Just(State::Unknown),
        Just(State::InProgress),
        Just(State::Failed),
        Just(State::Ambiguous("a".into(), "b".into())),
        target.clone().prop_map(State::Ready),
        target.clone().prop_map(State::Suspended),
        target.prop_map(State::Deleting),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn each_step_is_allowed_by_its_facts(
        binding in binding(),
        instance in instance(),
        secret in option::of(990..1_700_i64),
        [doubted, touched, unrevoked, vanished] in any::<[bool; 4]>(),
        made_on in option::of(prop_oneof![Just("r"), Just("other")]),
        absent in 900..2_500_i64,
        now in 1_000..2_500_i64,
        named in any::<bool>(),
    ) {
        let bindable = if named { BindablePlans::Named(["azure".to_owned()].into()) } else { BindablePlans::All };
        let facts = Facts {
            binding: &binding, instance: &instance, secret_created: secret.map(at), doubted, touched, made_on, unrevoked,
            absence: Absence { since: at(absent), vanished }, bindable: &bindable, lifetimes: (600, 7200), now: at(now),
        };
        let step = decide(&facts);
        let over = end(&facts).is_none_or(|end| end <= at(now));
        let finalizer = has_finalizer(&binding);
        let absent_long = instance == State::Unknown && now - absent >= ABSENCE.as_secs();
        let said = binding.status.as_ref().and_then(|s| s.runtime_id.clone());
        let runtime = made_on.map(str::to_owned).or(said);
        let pinned_elsewhere = |target: &Target| runtime.as_ref().is_some_and(|r| *r != target.runtime_id);

        // Whatever is said, a binding doesn't outlive twice its time and a minute.
        prop_assert!(over || now < 1_000 + 600 + 600 + 60);
        // Once its end is asked for, only its removal follows; once its time is over, only its end.
        prop_assert_eq!(binding.is_deleting(), matches!(step, Step::Remove(_)) || (binding.is_deleting() && !finalizer));
        if !binding.is_deleting() {
            prop_assert_eq!(over, step == Step::Delete(Reason::Expired));
        }
        match &step {
            Step::Rest(until) => prop_assert!(until.is_none_or(|until| until > at(now))),
            Step::Make(target) => {
                prop_assert!(finalizer && !over && !named && !is_issued(&binding) && !binding.is(Kind::Stalled));
                prop_assert!(instance == State::Ready(target.clone()) && !pinned_elsewhere(target));
            }
            Step::Repair(target) | Step::Renew(target) => {
                prop_assert!(finalizer && is_issued(&binding) && !pinned_elsewhere(target));
            }
            // Nothing is called where the instance has another cluster by now.
            Step::Remove(Removal::Revoke(_)) => {
                let (target, _) = instance.reachable().unwrap();
                prop_assert!(touched && !pinned_elsewhere(target));
                prop_assert!(!binding.is_forgotten() || !unrevoked);
            }
            Step::Remove(Removal::GiveUp(why)) => {
                prop_assert!(touched);
                match why {
                    GiveUp::Forgotten => {
                        prop_assert!(binding.is_forgotten() && (unrevoked || instance.reachable().is_none()));
                    }
                    GiveUp::InstanceGone => prop_assert!(absent_long),
                    GiveUp::ClusterGone => {
                        prop_assert!(matches!(&instance, State::Deleting(t) if t.kubeconfig.is_none()));
                    }
                    GiveUp::ClusterReplaced => prop_assert!(instance.target().is_some_and(pinned_elsewhere)),
                }
            }
            Step::Delete(Reason::InstanceUnknown) => prop_assert!(absent_long && is_issued(&binding)),
            Step::Delete(Reason::ClusterReplaced) => {
                prop_assert!(instance.target().is_some_and(|t| runtime.as_ref() != Some(&t.runtime_id)));
            }
            Step::Keep | Step::Hold(..) | Step::Reject(..) => prop_assert!(!binding.is(Kind::Stalled)),
            Step::Delete(_) | Step::AddFinalizer | Step::Remove(_) => {}
        }
    }
}
