//! GET of a binding's last operation (OSB 2.17, "Polling Last Operation for Service Bindings").

use super::ids::Ids;
use super::operation::Operation;
use super::service::Broker;
use crate::broker::error::Problem;
use crate::broker::response::{LastOperation, OperationState};
use crate::broker::store_view::{Progress, View};
use jiff::Timestamp;

/// How an operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stands {
    /// It goes on.
    InProgress(String),
    /// It is done.
    Succeeded(&'static str),
    /// It will not be done.
    Failed(String),
}

impl Stands {
    /// The body of the answer.
    #[must_use]
    pub fn body(self) -> LastOperation {
        let (state, description) = match self {
            Self::InProgress(description) => (OperationState::InProgress, description),
            Self::Succeeded(description) => (OperationState::Succeeded, description.to_owned()),
            Self::Failed(description) => (OperationState::Failed, description),
        };
        LastOperation { state, description }
    }
}

/// Judges by what is there of the binding. Pure.
fn judge(
    operation: Option<&Operation>,
    found: Option<&View>,
    ids: &Ids,
    now: Timestamp,
) -> Result<Stands, Problem> {
    let found = found.filter(|view| view.instance == ids.instance.as_str());
    match (operation, found) {
        // Only a request that got this operation knows it: what it asked for is done.
        (Some(Operation::Unbind(uid)), view) if view.is_none_or(|view| view.uid != *uid) => {
            Err(Problem::Gone)
        }
        // Likewise: whatever has its id now, that binding won't be there any more.
        (Some(Operation::Bind(uid)), view) if view.is_none_or(|view| view.uid != *uid) => Ok(Stands::Failed(
            "the binding is gone: it was deleted, or its time is over; bind again".to_owned(),
        )),
        (_, None) => Err(Problem::NoBinding),
        (Some(Operation::Unbind(_)), Some(view)) if !view.deleting => Err(Problem::Operation),
        (Some(Operation::Bind(_)), Some(view)) if view.deleting => {
            Ok(Stands::Failed("the binding is being deleted".to_owned()))
        }
        (_, Some(view)) if view.deleting => {
            Ok(Stands::InProgress(with_cause("the binding is being removed", view)))
        }
        (_, Some(view)) => Ok(making(view, now)),
    }
}

fn making(view: &View, now: Timestamp) -> Stands {
    match &view.progress {
        _ if view.ends <= now => Stands::Failed("the binding has expired; bind again".to_owned()),
        Progress::Ready(_) => Stands::Succeeded("the binding is ready"),
        // What is held may be made yet; only what stalled never will.
        Progress::Stopped(_, message) if view.stalled => Stands::Failed(message.clone()),
        Progress::Pending | Progress::Stopped(..) => {
            Stands::InProgress(with_cause("the binding is being made", view))
        }
    }
}

fn with_cause(what: &str, view: &View) -> String {
    match &view.progress {
        Progress::Stopped(_, cause) => format!("{what}: {cause}"),
        Progress::Pending | Progress::Ready(_) => what.to_owned(),
    }
}

/// How the operation stands, or the binding's last one where none is named.
///
/// # Errors
/// [`Problem::Gone`] when an unbind is done, [`Problem::NoBinding`] when there is no binding and no operation is named,
/// [`Problem::Operation`] for one that was never answered for this binding.
pub async fn last_operation(
    broker: &Broker,
    ids: &Ids,
    operation: Option<&Operation>,
) -> Result<Stands, Problem> {
    let name = ids.binding.as_str();
    // The watch may be behind: another replica may have begun or ended it a moment ago. It is enough
    // to say how what it shows itself goes on, not to say that it is gone.
    let shown = |view: &View| operation.is_some_and(|operation| operation.uid() == view.uid);
    if let Some(seen) = broker.bindings.seen(name).filter(shown)
        && let Ok(stands) = judge(operation, Some(&seen), ids, Timestamp::now())
    {
        return Ok(stands);
    }
    let found = broker.bindings.read(name).await?;
    judge(operation, found.as_ref(), ids, Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Reason;
    use crate::api::names::{BindingId, InstanceId};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn judged(operation: Option<&Operation>, found: Option<&View>) -> Result<Stands, Problem> {
        let ids = Ids { instance: InstanceId::parse("i").unwrap(), binding: BindingId::parse("b").unwrap() };
        judge(operation, found, &ids, at(1))
    }

    fn bind() -> Operation {
        Operation::Bind("u".into())
    }

    fn unbind() -> Operation {
        Operation::Unbind("u".into())
    }

    fn stopped(reason: Reason) -> View {
        View { progress: Progress::Stopped(reason, "why".into()), ..View::pending() }
    }

    #[test]
    fn a_bind_goes_on_until_it_is_ready_or_refused() {
        for operation in [Some(&bind()), None] {
            let judged = |view: View| judged(operation, Some(&view)).unwrap();
            let going_on = |text: &str| Stands::InProgress(text.to_owned());
            assert_eq!(judged(View::pending()), going_on("the binding is being made"));
            assert_eq!(judged(stopped(Reason::ClusterTimedOut)), going_on("the binding is being made: why"));
            assert_eq!(
                judged(stopped(Reason::InstanceSuspended)),
                going_on("the binding is being made: why"),
                "it may come back"
            );
            let stalled = View { stalled: true, ..stopped(Reason::LimitReached) };
            assert_eq!(judged(stalled), Stands::Failed("why".into()));
            let ready = View { progress: Progress::Ready(at(600)), ..View::pending() };
            assert_eq!(judged(ready.clone()), Stands::Succeeded("the binding is ready"));
            assert!(matches!(judged(View { ends: at(1), ..ready }), Stands::Failed(_)));
        }
        let deleting = View { deleting: true, ..View::pending() };
        assert!(matches!(judged(Some(&bind()), Some(&deleting)).unwrap(), Stands::Failed(_)));
    }

    #[test]
    fn an_unbind_goes_on_until_the_binding_is_gone() {
        let deleting = View { deleting: true, ..stopped(Reason::ClusterTimedOut) };
        for operation in [Some(&unbind()), None] {
            assert_eq!(
                judged(operation, Some(&deleting)),
                Ok(Stands::InProgress("the binding is being removed: why".into()))
            );
        }
        assert_eq!(judged(Some(&unbind()), None), Err(Problem::Gone));
        let successor = View { uid: "another".into(), ..View::pending() };
        assert_eq!(judged(Some(&unbind()), Some(&successor)), Err(Problem::Gone), "made again since");
    }

    #[test]
    fn what_does_not_fit_is_told_apart() {
        assert_eq!(judged(None, None), Err(Problem::NoBinding));
        let elsewhere = View { instance: "other".into(), ..View::pending() };
        assert_eq!(judged(None, Some(&elsewhere)), Err(Problem::NoBinding));
        assert_eq!(
            judged(Some(&unbind()), Some(&View::pending())),
            Err(Problem::Operation),
            "nobody asked for it"
        );
    }

    #[test]
    fn a_bind_whose_binding_is_gone_has_failed_also_when_there_is_another_of_that_id() {
        let another = View { uid: "another".into(), ..View::pending() };
        let elsewhere = View { instance: "other".into(), ..View::pending() };
        for found in
            [None, Some(&another), Some(&View { deleting: true, ..another.clone() }), Some(&elsewhere)]
        {
            let failed = judged(Some(&bind()), found);
            assert!(matches!(&failed, Ok(Stands::Failed(why)) if why.contains("bind again")), "{failed:?}");
        }
    }
}
