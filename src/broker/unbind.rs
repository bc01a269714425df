//! DELETE of a binding (OSB 2.17, "Unbinding").

use tokio::time::Instant;

use super::bindings::Progress;
use super::problem::Problem;
use super::request::Ids;
use super::service::Broker;
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
