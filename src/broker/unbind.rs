//! DELETE of a binding (OSB 2.17, "Unbinding").

use tokio::time::Instant;

use super::Broker;
use super::bindings::Progress;
use super::problem::Problem;
use super::request::Ids;
use crate::api::conditions::Reason;

/// Removes a binding and returns when its token no longer works.
///
/// # Errors
/// [`Problem::Gone`] when there is none of that instance; [`Problem::NotRemoved`] when it takes
/// longer than the time limit.
pub async fn unbind(broker: &Broker, ids: &Ids) -> Result<(), Problem> {
    let deadline = Instant::now() + broker.settings.create_timeout;
    let name = ids.binding.as_str();
    let view = match broker.bindings.seen(name) {
        Some(view) => view,
        None => broker.bindings.read(name).await?.ok_or(Problem::Gone)?,
    };
    if view.instance != ids.instance.as_str() {
        return Err(Problem::Gone);
    }
    if !broker.remove(name, &view.uid, deadline).await? {
        return Err(Problem::NotRemoved(broker.why(name)));
    }
    // What waited for an instance that nobody knows was never bound to anything.
    match view.progress {
        Progress::Stopped(Reason::InstanceUnknown, _) => Err(Problem::Gone),
        _ => Ok(()),
    }
}

impl Broker {
    /// Deletes the binding with that UID and waits until it is gone, which the controller lets
    /// happen only when nothing of it is left. False when the deadline comes first.
    pub(super) async fn remove(&self, name: &str, uid: &str, deadline: Instant) -> Result<bool, Problem> {
        let ask = self.bindings.delete(name, uid);
        let (found, gone) = self
            .bindings
            .watch(name, deadline, ask, |found, sight| (!found || sight.gone.contains(uid)).then_some(()))
            .await?;
        if !found || gone.is_some() {
            return Ok(true);
        }
        // A watch that had to start anew may never have seen it.
        let left = self.bindings.read(name).await?;
        Ok(left.is_none_or(|left| left.uid != uid))
    }
}
