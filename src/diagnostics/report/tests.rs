use super::*;
use crate::diagnostics::rbac::{self, BROKER, CONTROLLER};

const ASKED: Asked = Asked { role: "all", namespace: "bindings", instance_namespace: "instances" };

fn good() -> Seen {
    Seen {
        version: Ok(Version { text: "v1.36.0".into(), number: Some((1, 36)) }),
        crd: Ok(Some(Served { status: true, lacks: vec![] })),
        rights: rbac::rights(CONTROLLER).into_iter().map(|right| (right, Ok(true))).collect(),
        namespace: Ok(Presence::There),
        instance_namespace: Some(Ok(Presence::There)),
        instances: Some(Ok(Kubeconfigs { taken: 2, refused: vec![] })),
        runtimes: Some(Ok(true)),
        leader: Some(Ok(Leader::Fresh("pod-1".into()))),
        trial: Ok(()),
    }
}

/// The lines of what is not right.
fn said(seen: &Seen) -> Vec<String> {
    let lines = lines(seen, ASKED).into_iter().filter(|line| line.mark != Mark::Right);
    lines.map(|line| line.to_string()).collect()
}

#[test]
fn where_all_is_right_each_line_says_so() {
    let lines: Vec<_> = lines(&good(), ASKED).iter().map(ToString::to_string).collect();
    assert!(lines.iter().all(|line| line.starts_with("✔ ")), "{lines:?}");
    assert_eq!(lines.len(), 9);
    assert!(
        lines.contains(&"✔ rights: this account has all 31 that --role all needs".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn a_role_is_told_only_of_what_it_needs() {
    let seen = Seen {
        rights: rbac::rights(BROKER).into_iter().map(|right| (right, Ok(true))).collect(),
        instance_namespace: None,
        instances: None,
        runtimes: None,
        leader: None,
        ..good()
    };
    assert_eq!(lines(&seen, ASKED).len(), 5);
    assert_eq!(said(&seen), Vec::<String>::new());
}

#[test]
fn each_fault_is_one_line_that_says_what_would_be_right() {
    let faults = [
        (Seen { crd: Ok(None), ..good() }, "✗ CRD: KymaBindings are not served as v1alpha1; install it: "),
        (
            Seen { crd: Ok(Some(Served { status: true, lacks: vec!["spec.x".into()] })), ..good() },
            "✗ CRD: it is older than this program, and lacks spec.x; upgrade it: ",
        ),
        (
            Seen { crd: Ok(Some(Served { status: false, lacks: vec![] })), ..good() },
            "✗ CRD: KymaBindings are served without their status; replace it: ",
        ),
        (
            Seen { version: Ok(Version { text: "v1.29.4".into(), number: Some((1, 29)) }), ..good() },
            "✗ control plane: Kubernetes v1.29.4 is too old; it must be 1.30 or later",
        ),
        (
            Seen { namespace: Ok(Presence::Missing), ..good() },
            "✗ namespace bindings: it is not there; create it, or let --namespace name",
        ),
        (
            Seen { instance_namespace: Some(Ok(Presence::Missing)), ..good() },
            "✗ namespace instances: it is not there; create it, or let --instance-namespace name",
        ),
        (
            Seen { instances: Some(Ok(Kubeconfigs::default())), ..good() },
            "► instances: they can be read, but no Secret in instances has",
        ),
        (
            Seen { instances: Some(Err(Trouble::Refused(500))), ..good() },
            "✗ instances: the Secrets in instances can't",
        ),
        (Seen { runtimes: Some(Ok(false)), ..good() }, "► Runtimes: not served here"),
        (Seen { leader: Some(Ok(Leader::Never)), ..good() }, "► lease: there is none"),
        (Seen { leader: Some(Ok(Leader::Nobody)), ..good() }, "► lease: it was given up"),
        (
            Seen { leader: Some(Ok(Leader::Stale("pod-1".into()))), ..good() },
            "✗ lease: pod-1 does not renew it",
        ),
        (
            Seen { trial: Err(Trouble::Refused(422)), ..good() },
            "✗ trial: a KymaBinding that is not kept is refused in",
        ),
    ];
    for (seen, expected) in faults {
        let said = said(&seen);
        assert!(said.len() == 1 && said[0].starts_with(expected), "{expected}: {said:?}");
    }
}

#[test]
fn a_right_that_is_missing_is_named_and_what_follows_from_it_is_a_note() {
    let mut seen = good();
    for (right, allowed) in &mut seen.rights {
        let create = right.resource == "kymabindings" && right.verb == "create";
        let status = right.resource == "kymabindings/status" && right.verb == "patch";
        let id = right.resource == "namespaces";
        *allowed = Ok(!(create || status || id));
    }
    seen.trial = Err(Trouble::Refused(403));
    let said = said(&seen);
    let expected = [
        "✗ rights: this account may not create kymabindings.bindings.kyma-project.io in bindings; a Role there",
        "✗ rights: this account may not patch kymabindings.bindings.kyma-project.io/status in bindings;",
        "✗ rights: this account may not get namespaces in bindings;",
        "► trial: a KymaBinding that is not kept could not be tried: the right to create it is missing",
    ];
    assert_eq!(said.len(), expected.len(), "{said:?}");
    for (line, expected) in said.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
fn an_account_that_may_not_look_learns_of_its_namespace_from_the_trial() {
    let hidden = |trial| Seen { namespace: Ok(Presence::Hidden), trial, ..good() };
    assert_eq!(said(&hidden(Ok(()))), Vec::<String>::new());
    let said_of = said(&hidden(Err(Trouble::NamespaceMissing)));
    assert!(said_of[0].starts_with("✗ namespace bindings: it is not there"), "{said_of:?}");
    let unknown = Seen { crd: Ok(None), ..hidden(Err(Trouble::Refused(404))) };
    assert!(
        said(&unknown)[1].starts_with("► namespace bindings: this account can't see"),
        "{:?}",
        said(&unknown)
    );
}

#[test]
fn each_kubeconfig_that_is_refused_has_its_line() {
    let refused = |secret: &str| (secret.to_owned(), "i".to_owned(), "its key config is empty".to_owned());
    let seen = |taken| Seen {
        instances: Some(Ok(Kubeconfigs { taken, refused: vec![refused("a"), refused("b")] })),
        ..good()
    };
    let expected =
        |secret| format!("✗ instances: Secret {secret} in instances, of instance i: its key config is empty");
    assert_eq!(said(&seen(3)), ["a", "b"].map(expected));
    let begin = |taken, words: &str| {
        let lines = lines(&seen(taken), ASKED);
        lines.iter().filter(|line| line.to_string().starts_with(words)).count()
    };
    assert_eq!(begin(3, "✔ instances: 3 with"), 1);
    assert_eq!(begin(0, "✔ instances:"), 0, "no tick where none is good");
}

#[test]
fn a_control_plane_that_is_away_is_said_once() {
    for trouble in [Trouble::NotResolved, Trouble::ConnectionRefused, Trouble::Tls, Trouble::Unauthorized] {
        let said = said(&Seen { version: Err(trouble), ..good() });
        assert_eq!(said, [format!("✗ control plane: {trouble}")]);
    }
}

#[test]
fn the_oldest_control_plane_is_the_one_of_the_chart() {
    let chart = include_str!("../../../charts/kyma-bindings/Chart.yaml");
    assert!(chart.contains(&format!("\nkubeVersion: \">={}.{}.0-0\"\n", OLDEST.0, OLDEST.1)), "{chart}");
}
