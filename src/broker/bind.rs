//! PUT of a binding (OSB 2.17, "Binding").

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::core::ObjectMeta;
use tokio::time::Instant;

use super::answer::Credentials;
use super::bindings::{Progress, Sight, View};
use super::problem::{Problem, refusal};
use super::request::{BindRequest, Ids};
use super::service::{Broker, Removed};
use crate::api::binding::{KymaBinding, KymaBindingSpec};
use crate::api::names::{FINALIZER, ORIGIN, ORIGIN_OSB, REQUEST_ID};

/// What to do about a binding of the wished name.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// It is what is wished: wait with whoever made it.
    Join,
    /// Its time is over: remove it, then make the wished one.
    Replace,
    /// Answer with this.
    Refuse(Problem),
}

/// Judges a binding of the wished name. Pure.
fn judge(found: &View, ids: &Ids, seconds: i64, now: Timestamp) -> Found {
    if found.ends <= now {
        return Found::Replace;
    }
    if found.deleting {
        return Found::Refuse(Problem::Concurrency);
    }
    if found.instance != ids.instance.as_str() || found.seconds != seconds {
        return Found::Refuse(Problem::Different);
    }
    Found::Join
}

/// How a wait for a binding ended.
enum Waited {
    Ready(Timestamp),
    Refused(Problem),
    Deleting,
    Gone,
}

/// Looks whether a wait is over. Pure.
fn look(uid: &str, sight: &Sight<'_>) -> Option<Waited> {
    let Some(view) = sight.view.filter(|view| view.uid == uid) else {
        return sight.gone.contains(uid).then_some(Waited::Gone);
    };
    match &view.progress {
        Progress::Stopped(reason, message) if refusal(*reason).is_some() => {
            Some(Waited::Refused(Problem::Refused(*reason, message.clone())))
        }
        _ if view.deleting => Some(Waited::Deleting),
        Progress::Ready(expires_at) => Some(Waited::Ready(*expires_at)),
        Progress::Pending | Progress::Stopped(..) => None,
    }
}

/// Makes a binding, or joins whoever is making the same one. The flag says whether this request
/// created it.
///
/// # Errors
/// The [`Problem`] to answer with. A request that is refused leaves nothing behind.
pub async fn bind(broker: &Broker, ids: &Ids, request: &BindRequest) -> Result<(Credentials, bool), Problem> {
    let deadline = Instant::now() + broker.settings.create_timeout;
    let name = ids.binding.as_str();
    // The watch may be behind; what it shows is enough to join, not to refuse or replace.
    let joinable = |view: &View| judge(view, ids, request.seconds, Timestamp::now()) == Found::Join;
    let mut known = broker.bindings.seen(name).filter(joinable);
    while Instant::now() < deadline {
        let (view, created) = match known.take() {
            Some(view) => (view, false),
            None => match broker.bindings.create(&object(ids, request)).await? {
                Some(created) => (created, true),
                None => match broker.bindings.read(name).await? {
                    Some(found) => (found, false),
                    None => continue,
                },
            },
        };
        if !created {
            match judge(&view, ids, request.seconds, Timestamp::now()) {
                Found::Join => {}
                Found::Refuse(problem) => return Err(problem),
                Found::Replace => match broker.remove(name, &view.uid, deadline).await? {
                    Removed::Gone | Removed::Absent => continue,
                    Removed::NotYet => return Err(Problem::Concurrency),
                },
            }
        }
        let sight = |(): &(), sight: Sight<'_>| look(&view.uid, &sight);
        let ((), waited) = broker.bindings.watch(name, deadline, std::future::ready(Ok(())), sight).await?;
        match waited {
            Some(Waited::Ready(expires_at)) => match broker.kubeconfig(ids, &view.uid, expires_at).await {
                Ok(kubeconfig) => {
                    return Ok((Credentials { kubeconfig, expires_at, seconds: request.seconds }, created));
                }
                // Another binding of that name may have taken its place.
                Err(Problem::Secret) => match broker.bindings.read(name).await? {
                    Some(now) if now.uid == view.uid => return Err(Problem::Secret),
                    other => known = other,
                },
                Err(problem) => return Err(problem),
            },
            Some(Waited::Refused(problem)) => {
                // A refusal of what a request asked for is not kept, even if that request's
                // broker ended before it could clean up.
                if created || view.only_wished {
                    broker.remove(name, &view.uid, deadline).await?;
                }
                return Err(problem);
            }
            // The one that was joined was refused and removed: take its place.
            Some(Waited::Gone) if !created => {}
            Some(Waited::Deleting | Waited::Gone) => return Err(Problem::Concurrency),
            None => break,
        }
    }
    Err(Problem::NotReady(broker.why(name)))
}

fn object(ids: &Ids, request: &BindRequest) -> KymaBinding {
    let spec = KymaBindingSpec {
        instance_id: ids.instance.to_string(),
        expiration_seconds: request.seconds,
        service_id: Some(request.service_id.clone()),
        plan_id: Some(request.plan_id.clone()),
        predecessor_binding_id: None,
        created_by: request.created_by.clone(),
    };
    let mut annotations = BTreeMap::from([(ORIGIN.to_owned(), ORIGIN_OSB.to_owned())]);
    if let Some(id) = &request.request_id {
        annotations.insert(REQUEST_ID.to_owned(), id.clone());
    }
    let mut binding = KymaBinding::new(ids.binding.as_str(), spec);
    binding.metadata = ObjectMeta {
        annotations: Some(annotations),
        // On from the start: the controller needs no write of its own before it makes anything.
        finalizers: Some(vec![FINALIZER.to_owned()]),
        ..binding.metadata
    };
    binding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Reason;
    use crate::api::names::{BindingId, InstanceId};
    use std::collections::HashSet;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn view() -> View {
        View {
            uid: "u".into(),
            instance: "i".into(),
            seconds: 600,
            ends: at(600),
            deleting: false,
            only_wished: true,
            progress: Progress::Pending,
        }
    }

    fn judged(view: &View, now: i64) -> Found {
        let ids = Ids { instance: InstanceId::parse("i").unwrap(), binding: BindingId::parse("b").unwrap() };
        judge(view, &ids, 600, at(now))
    }

    #[test]
    fn only_the_same_binding_is_joined() {
        assert_eq!(judged(&view(), 1), Found::Join);
        assert_eq!(judged(&View { seconds: 601, ..view() }, 1), Found::Refuse(Problem::Different));
        assert_eq!(
            judged(&View { instance: "other".into(), ..view() }, 1),
            Found::Refuse(Problem::Different)
        );
        assert_eq!(judged(&View { deleting: true, ..view() }, 1), Found::Refuse(Problem::Concurrency));
        assert_eq!(judged(&View { deleting: true, seconds: 601, ..view() }, 600), Found::Replace);
    }

    #[test]
    fn a_wait_ends_with_what_the_conditions_say() {
        let none = HashSet::new();
        let gone = HashSet::from(["u".to_owned()]);
        let look = |view: Option<&View>, gone: &HashSet<String>| look("u", &Sight { view, gone });
        assert!(look(None, &none).is_none(), "not seen yet is not gone");
        assert!(matches!(look(None, &gone), Some(Waited::Gone)));
        assert!(look(Some(&view()), &none).is_none());
        let stopped = |reason| View { progress: Progress::Stopped(reason, "m".into()), ..view() };
        assert!(look(Some(&stopped(Reason::ClusterTimedOut)), &none).is_none(), "still being tried");
        let refused = View { deleting: true, ..stopped(Reason::LimitReached) };
        assert!(matches!(look(Some(&refused), &none), Some(Waited::Refused(_))));
        let ready = View { progress: Progress::Ready(at(600)), ..view() };
        assert!(matches!(look(Some(&ready), &none), Some(Waited::Ready(_))));
        assert!(matches!(look(Some(&View { deleting: true, ..ready }), &none), Some(Waited::Deleting)));
    }
}
