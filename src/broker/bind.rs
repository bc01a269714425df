//! PUT of a binding (OSB 2.17, "Binding").

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::core::ObjectMeta;
use tokio::time::Instant;

use super::fetch;
use super::ids::Ids;
use super::operation::Operation;
use super::request::{BindRequest, Wish};
use super::service::{Broker, Removed};
use crate::api::binding::{KymaBinding, KymaBindingSpec};
use crate::api::names::{BindingId, FINALIZER, ORIGIN, ORIGIN_OSB, REQUEST_ID, TRACEPARENT, TRACESTATE};
use crate::broker::error::{self, Problem, refusal};
use crate::broker::response::Credentials;
use crate::broker::store_view::{Progress, Sight, View};
use crate::store::Awaited;
use crate::telemetry::traces;

/// How long a request waits for what may come back at any moment, or never.
const SOON: Duration = Duration::from_millis(1_500);
/// How often is looked whether it is that, from then on.
const AGAIN: Duration = Duration::from_millis(250);

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

/// What a bind leads to.
pub enum Bound {
    /// The kubeconfig, and whether this request created the binding.
    Ready(Credentials, bool),
    /// It goes on being made.
    Underway(Operation),
}

/// Judges a binding of the wished name. Pure.
fn judge(found: &View, ids: &Ids, wish: &Wish, now: Timestamp) -> Found {
    if found.ends <= now {
        return Found::Replace;
    }
    if found.deleting {
        return Found::Refuse(Problem::Concurrency);
    }
    let same = match wish {
        Wish::Lifetime(seconds) => found.seconds == *seconds,
        Wish::Successor(predecessor) => found.predecessor.as_deref() == Some(predecessor.as_str()),
    };
    if found.instance != ids.instance.as_str() {
        return Found::Refuse(Problem::OtherInstance);
    }
    if !same {
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
    if let Some(problem) = refused(view) {
        return Some(Waited::Refused(problem));
    }
    match view.progress {
        _ if view.deleting => Some(Waited::Deleting),
        Progress::Ready(expires_at) => Some(Waited::Ready(expires_at)),
        Progress::Pending | Progress::Stopped(..) => None,
    }
}

/// What the controller says against it, if that is an answer.
fn refused(view: &View) -> Option<Problem> {
    match &view.progress {
        Progress::Stopped(reason, message) if refusal(*reason).is_some() => {
            Some(Problem::Refused(*reason, message.clone()))
        }
        _ => None,
    }
}

/// Whether it makes no sense to wait longer for the binding of that UID. Pure.
fn is_told_soon(view: &View, uid: &str) -> bool {
    let told = matches!(&view.progress, Progress::Stopped(reason, _) if error::is_told_soon(*reason));
    told && view.uid == uid && !view.deleting
}

/// Waits for the binding of that name and UID, but not long for what makes no sense to be waited for.
async fn wait(broker: &Broker, name: &str, uid: &str, deadline: Instant) -> Result<Option<Waited>, Problem> {
    let mut next = Instant::now() + SOON;
    let sight = |(): &(), sight: Sight<'_>| look(uid, &sight);
    let waiting = broker.bindings.watch(name, deadline, std::future::ready(Ok(())), sight);
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            waited = &mut waiting => return waited.map(|((), waited)| waited),
            () = tokio::time::sleep_until(next) => {}
        }
        if broker.bindings.seen(name).is_some_and(|now| is_told_soon(&now, uid)) {
            return Ok(None);
        }
        next += AGAIN;
    }
}

/// Makes a binding, or joins whoever is making the same one.
///
/// # Errors
/// The [`Problem`] to answer with. A request that is refused leaves nothing behind.
pub async fn bind(
    broker: &Broker,
    ids: &Ids,
    request: &BindRequest,
    incomplete: bool,
) -> Result<Bound, Problem> {
    let deadline = broker.deadline(incomplete);
    let name = ids.binding.as_str();
    let secret = broker.bindings.await_secret(ids.binding.object_name());
    // The watch may be behind; what it shows is enough to join, not to refuse or replace.
    let joinable = |view: &View| judge(view, ids, &request.wish, Timestamp::now()) == Found::Join;
    let mut known = broker.bindings.seen(name).filter(joinable);
    while Instant::now() < deadline {
        let asked = Instant::now();
        let (view, created) = match known.take() {
            Some(view) => (view, false),
            None => match create(broker, ids, request).await? {
                Some(begun) => begun,
                None => continue,
            },
        };
        if !created {
            match judge(&view, ids, &request.wish, Timestamp::now()) {
                Found::Join => {}
                Found::Refuse(problem) => return Err(problem),
                Found::Replace => match broker.remove(name, &view.uid, deadline).await? {
                    Removed::Gone | Removed::Absent => continue,
                    Removed::NotYet => return Err(Problem::Concurrency),
                },
            }
        }
        let made = Instant::now();
        let waited = wait(broker, name, &view.uid, deadline).await?;
        let seen = Instant::now();
        match waited {
            Some(Waited::Ready(expires_at)) => match broker
                .kubeconfig(ids, &view.uid, expires_at, secret.as_ref().and_then(Awaited::take))
                .await
            {
                Ok(kubeconfig) => {
                    if created {
                        broker.metrics.bind_phase("create", made - asked);
                        broker.metrics.bind_phase("wait", seen - made);
                        broker.metrics.bind_phase("read", seen.elapsed());
                    }
                    let credentials = broker.credentials(kubeconfig, expires_at, &view);
                    return Ok(Bound::Ready(credentials, created));
                }
                // Another binding of that name may have taken its place.
                Err(problem @ (Problem::SecretMissing | Problem::SecretChanged)) => {
                    match broker.bindings.read(name).await? {
                        Some(now) if now.uid == view.uid => return Err(problem),
                        other => known = other,
                    }
                }
                Err(problem) => return Err(problem),
            },
            Some(Waited::Refused(problem)) if !(created || view.only_wished) => return Err(problem),
            // A refusal of what a request asked for is not kept, even if that request's broker ended
            // before it could clean up. The watch may be behind: what was issued since stays.
            Some(Waited::Refused(problem)) => match broker.bindings.read(name).await? {
                Some(now) if now.uid == view.uid => match refused(&now) {
                    Some(problem) => {
                        let version = Some(now.version.as_str());
                        match broker.remove_version(name, &now.uid, version, deadline).await? {
                            Removed::Absent => {}
                            Removed::Gone | Removed::NotYet => return Err(problem),
                        }
                    }
                    None => known = Some(now),
                },
                _ => return Err(problem),
            },
            // The one that was joined was refused and removed: take its place.
            Some(Waited::Gone) if !created => {}
            Some(Waited::Deleting | Waited::Gone) => return Err(Problem::Concurrency),
            None if incomplete => return Ok(Bound::Underway(Operation::Bind(view.uid))),
            None => break,
        }
    }
    Err(Problem::NotReady(broker.why(name)))
}

/// Creates the binding, or finds the one that has its name, and says whether it created it; `None`
/// when that one went at this very moment.
async fn create(broker: &Broker, ids: &Ids, request: &BindRequest) -> Result<Option<(View, bool)>, Problem> {
    let name = ids.binding.as_str();
    let refused = match spec(broker, ids, request).await {
        Ok(spec) => match broker.bindings.create(&object(name, spec, request)).await? {
            Some(created) => return Ok(Some((created, true))),
            None => None,
        },
        // The successor may be there already although its predecessor no longer is.
        Err(Problem::Predecessor) => Some(Problem::Predecessor),
        Err(problem) => return Err(problem),
    };
    match (broker.bindings.read(name).await?, refused) {
        (Some(found), Some(refused))
            if judge(&found, ids, &request.wish, Timestamp::now()) != Found::Join =>
        {
            Err(refused)
        }
        (Some(found), _) => Ok(Some((found, false))),
        (None, Some(refused)) => Err(refused),
        (None, None) => Ok(None),
    }
}

/// What the binding shall be; a successor is as its predecessor is.
async fn spec(broker: &Broker, ids: &Ids, request: &BindRequest) -> Result<KymaBindingSpec, Problem> {
    let wished = |seconds, predecessor: Option<&BindingId>| KymaBindingSpec {
        instance_id: ids.instance.to_string(),
        expiration_seconds: seconds,
        service_id: request.service_id.clone(),
        plan_id: request.plan_id.clone(),
        predecessor_binding_id: predecessor.map(ToString::to_string),
        created_by: request.created_by.clone(),
    };
    let predecessor = match &request.wish {
        Wish::Lifetime(seconds) => return Ok(wished(*seconds, None)),
        Wish::Successor(predecessor) if *predecessor == ids.binding => return Err(Problem::Predecessor),
        Wish::Successor(predecessor) => predecessor,
    };
    let found = broker.bindings.object(predecessor.as_str()).await?;
    let model = found.filter(|found| fetch::shown(&View::of(found), ids, Timestamp::now()).is_ok());
    let model = model.ok_or(Problem::Predecessor)?.spec;
    let spec = wished(model.expiration_seconds, Some(predecessor));
    Ok(KymaBindingSpec {
        service_id: spec.service_id.or(model.service_id),
        plan_id: spec.plan_id.or(model.plan_id),
        ..spec
    })
}

fn object(name: &str, spec: KymaBindingSpec, request: &BindRequest) -> KymaBinding {
    let mut annotations = BTreeMap::from([(ORIGIN.to_owned(), ORIGIN_OSB.to_owned())]);
    if let Some(id) = &request.request_id {
        annotations.insert(REQUEST_ID.to_owned(), id.clone());
    }
    if let Some(trace) = traces::here() {
        annotations.insert(TRACEPARENT.to_owned(), trace.parent);
        annotations.extend(trace.state.map(|state| (TRACESTATE.to_owned(), state)));
    }
    let mut binding = KymaBinding::new(name, spec);
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
    use crate::api::names::InstanceId;
    use std::collections::HashSet;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn judged(view: &View, now: i64) -> Found {
        let ids = Ids { instance: InstanceId::parse("i").unwrap(), binding: BindingId::parse("b").unwrap() };
        judge(view, &ids, &Wish::Lifetime(600), at(now))
    }

    #[test]
    fn only_the_same_binding_is_joined() {
        assert_eq!(judged(&View::pending(), 1), Found::Join);
        assert_eq!(judged(&View { seconds: 601, ..View::pending() }, 1), Found::Refuse(Problem::Different));
        assert_eq!(
            judged(&View { instance: "other".into(), ..View::pending() }, 1),
            Found::Refuse(Problem::OtherInstance)
        );
        assert_eq!(
            judged(&View { deleting: true, ..View::pending() }, 1),
            Found::Refuse(Problem::Concurrency)
        );
        assert_eq!(judged(&View { deleting: true, seconds: 601, ..View::pending() }, 600), Found::Replace);
    }

    #[test]
    fn a_successor_is_known_by_its_predecessor() {
        let ids = Ids { instance: InstanceId::parse("i").unwrap(), binding: BindingId::parse("b").unwrap() };
        let judged = |view: &View| judge(view, &ids, &Wish::Successor(BindingId::parse("a").unwrap()), at(1));
        let after = |name: &str| View { predecessor: Some(name.into()), seconds: 7200, ..View::pending() };
        assert_eq!(judged(&after("a")), Found::Join);
        for other in [after("c"), View::pending()] {
            assert_eq!(judged(&other), Found::Refuse(Problem::Different));
        }
        let elsewhere = View { instance: "other".into(), ..after("a") };
        assert_eq!(judged(&elsewhere), Found::Refuse(Problem::OtherInstance));
    }

    #[test]
    fn a_wait_ends_with_what_the_conditions_say() {
        let none = HashSet::new();
        let gone = HashSet::from(["u".to_owned()]);
        let look = |view: Option<&View>, gone: &HashSet<String>| look("u", &Sight { view, gone });
        assert!(look(None, &none).is_none(), "not seen yet is not gone");
        assert!(matches!(look(None, &gone), Some(Waited::Gone)));
        assert!(look(Some(&View::pending()), &none).is_none());
        let stopped = |reason| View { progress: Progress::Stopped(reason, "m".into()), ..View::pending() };
        for reason in [Reason::ClusterTimedOut, Reason::KubeconfigMissing, Reason::InstanceMissing] {
            assert!(look(Some(&stopped(reason)), &none).is_none(), "still being tried");
            assert_eq!(is_told_soon(&stopped(reason), "u"), reason != Reason::ClusterTimedOut);
            assert!(!is_told_soon(&stopped(reason), "another"));
        }
        let refused = View { deleting: true, ..stopped(Reason::LimitReached) };
        assert!(matches!(look(Some(&refused), &none), Some(Waited::Refused(_))));
        let ready = View { progress: Progress::Ready(at(600)), ..View::pending() };
        assert!(matches!(look(Some(&ready), &none), Some(Waited::Ready(_))));
        assert!(matches!(look(Some(&View { deleting: true, ..ready }), &none), Some(Waited::Deleting)));
    }
}
