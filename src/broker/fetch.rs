//! GET of a binding (OSB 2.17, "Fetching a Service Binding").

use jiff::Timestamp;

use super::ids::Ids;
use super::service::Broker;
use crate::broker::error::{Hidden, Problem, Why, refusal};
use crate::broker::response::Credentials;
use crate::broker::store_view::{Progress, View};

/// When the kubeconfig that may be shown ends. Pure.
///
/// # Errors
/// Why there is none.
pub(super) fn shown(view: &View, ids: &Ids, now: Timestamp) -> Result<Timestamp, Hidden> {
    if view.instance != ids.instance.as_str() {
        return Err(Hidden::OtherInstance);
    }
    match &view.progress {
        _ if view.ends <= now => Err(Hidden::Expired),
        _ if view.deleting => Err(Hidden::Deleting),
        Progress::Ready(ends) if *ends <= now => Err(Hidden::Expired),
        Progress::Ready(ends) => Ok(*ends),
        Progress::Pending => Err(Hidden::Making(Why(None))),
        Progress::Stopped(reason, message) if view.stalled || refusal(*reason).is_some() => {
            Err(Hidden::Refused(message.clone()))
        }
        Progress::Stopped(_, message) => Err(Hidden::Making(Why(Some(message.clone())))),
    }
}

/// The credentials of a binding that is ready.
///
/// # Errors
/// [`Problem::NoBinding`] or [`Problem::Hidden`] for all others.
pub async fn fetch(broker: &Broker, ids: &Ids) -> Result<Credentials, Problem> {
    let name = ids.binding.as_str();
    let show = |view: View| shown(&view, ids, Timestamp::now()).map(|ends| (view, ends));
    if let Some(Ok((view, expires_at))) = broker.bindings.seen(name).map(show) {
        match broker.kubeconfig(ids, &view.uid, expires_at, None).await {
            Err(Problem::SecretMissing | Problem::SecretChanged) => {}
            other => return Ok(broker.credentials(other?, expires_at, &view)),
        }
    }
    // The watch may be behind: another replica may have made it, or removed it, a moment ago.
    let found = broker.bindings.read(name).await?.ok_or(Problem::NoBinding)?;
    let (view, expires_at) = show(found)?;
    let kubeconfig = broker.kubeconfig(ids, &view.uid, expires_at, None).await?;
    Ok(broker.credentials(kubeconfig, expires_at, &view))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Reason;
    use crate::api::names::{BindingId, InstanceId};

    #[test]
    fn only_a_ready_unexpired_binding_of_the_instance_is_shown_and_why_others_are_not() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let ids = Ids { instance: InstanceId::parse("i").unwrap(), binding: BindingId::parse("b").unwrap() };
        let ready = View { progress: Progress::Ready(at(600)), ..View::pending() };
        assert_eq!(shown(&ready, &ids, at(599)), Ok(at(600)));
        assert_eq!(shown(&ready, &ids, at(600)), Err(Hidden::Expired));
        let stopped = |reason| View { progress: Progress::Stopped(reason, "m".into()), ..ready.clone() };
        for (view, hidden) in [
            (View { deleting: true, ..ready.clone() }, Hidden::Deleting),
            (View { deleting: true, ends: at(1), ..ready.clone() }, Hidden::Expired),
            (View { instance: "other".into(), ..ready.clone() }, Hidden::OtherInstance),
            (View { progress: Progress::Pending, ..ready.clone() }, Hidden::Making(Why(None))),
            (stopped(Reason::ClusterTimedOut), Hidden::Making(Why(Some("m".into())))),
            (stopped(Reason::InstanceSuspended), Hidden::Refused("m".into())),
            (View { stalled: true, ..stopped(Reason::TokenRefused) }, Hidden::Refused("m".into())),
        ] {
            assert_eq!(shown(&view, &ids, at(1)), Err(hidden));
        }
    }
}
