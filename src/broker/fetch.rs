//! GET of a binding (OSB 2.17, "Fetching a Service Binding").

use jiff::Timestamp;

use super::answer::Credentials;
use super::bindings::{Progress, View};
use super::ids::Ids;
use super::problem::Problem;
use super::service::Broker;

/// When the kubeconfig that may be shown ends; `None` where there is none. Pure.
pub(super) fn shown(view: &View, ids: &Ids, now: Timestamp) -> Option<Timestamp> {
    match view.progress {
        Progress::Ready(ends) if !view.deleting && ends > now && view.instance == ids.instance.as_str() => {
            Some(ends)
        }
        _ => None,
    }
}

/// The credentials of a binding that is ready.
///
/// # Errors
/// [`Problem::NoBinding`] for all others.
pub async fn fetch(broker: &Broker, ids: &Ids) -> Result<Credentials, Problem> {
    let name = ids.binding.as_str();
    let show = |view: View| shown(&view, ids, Timestamp::now()).map(|ends| (view, ends));
    if let Some((view, expires_at)) = broker.bindings.seen(name).and_then(show) {
        match broker.kubeconfig(ids, &view.uid, expires_at, None).await {
            Err(Problem::SecretMissing | Problem::SecretChanged) => {}
            other => return Ok(broker.credentials(other?, expires_at, &view)),
        }
    }
    // The watch may be behind: another replica may have made it, or removed it, a moment ago.
    let found = broker.bindings.read(name).await?.and_then(show);
    let (view, expires_at) = found.ok_or(Problem::NoBinding)?;
    let kubeconfig = broker.kubeconfig(ids, &view.uid, expires_at, None).await?;
    Ok(broker.credentials(kubeconfig, expires_at, &view))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Reason;
    use crate::api::names::{BindingId, InstanceId};

    #[test]
    fn only_a_ready_unexpired_binding_of_the_instance_is_shown() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let ids = Ids { instance: InstanceId::parse("i").unwrap(), binding: BindingId::parse("b").unwrap() };
        let ready = View { progress: Progress::Ready(at(600)), ..View::pending() };
        assert_eq!(shown(&ready, &ids, at(599)), Some(at(600)));
        assert_eq!(shown(&ready, &ids, at(600)), None);
        for hidden in [
            View { deleting: true, ..ready.clone() },
            View { instance: "other".into(), ..ready.clone() },
            View { progress: Progress::Pending, ..ready.clone() },
            View { progress: Progress::Stopped(Reason::InstanceSuspended, String::new()), ..ready },
        ] {
            assert_eq!(shown(&hidden, &ids, at(1)), None);
        }
    }
}
