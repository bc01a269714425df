//! DELETE of a binding (OSB 2.17, "Unbinding").

use tokio::time::Instant;

use super::ids::Ids;
use super::operation::Operation;
use super::service::{Broker, Removed};
use crate::api::conditions::Reason;
use crate::broker::error::Problem;
use crate::broker::store_view::Progress;

/// Removes a binding and returns when its token no longer works; earlier, with the operation that
/// goes on, where the client takes an incomplete answer.
///
/// # Errors
/// [`Problem::Gone`] when there is none of that instance; [`Problem::NotRemoved`] when it takes
/// longer than the time limit.
pub async fn unbind(broker: &Broker, ids: &Ids, incomplete: bool) -> Result<Option<Operation>, Problem> {
    let deadline = broker.deadline(incomplete);
    let name = ids.binding.as_str();
    // The watch may be behind; it is not believed when it shows another instance's.
    let mut known = broker.bindings.seen(name).filter(|view| view.instance == ids.instance.as_str());
    loop {
        let view = match known.take() {
            Some(view) => view,
            None => broker.bindings.read(name).await?.ok_or(Problem::Gone)?,
        };
        if view.instance != ids.instance.as_str() {
            return Err(Problem::Gone);
        }
        match broker.remove(name, &view.uid, deadline).await? {
            Removed::Gone => {
                // What waited for an instance that nobody knows was never bound to anything.
                let unknown = matches!(view.progress, Progress::Stopped(Reason::InstanceUnknown, _));
                return if unknown { Err(Problem::Gone) } else { Ok(None) };
            }
            // The watch was behind, or somebody was faster: look past it.
            Removed::Absent if Instant::now() < deadline => {}
            Removed::NotYet if incomplete => return Ok(Some(Operation::Unbind(view.uid))),
            Removed::Absent | Removed::NotYet => return Err(Problem::NotRemoved(broker.why(name))),
        }
    }
}
