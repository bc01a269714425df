//! The identity of the request that is being answered (`X-Broker-API-Request-Identity`, OSB "Request
//! Identity"), for the lines of whatever is called on its way.

use std::sync::Arc;

tokio::task_local! {
    static IDENTITY: Option<Arc<str>>;
}

/// Does the work for that request. A spawned task is another one: it needs this again.
pub async fn identified<T>(identity: Option<Arc<str>>, work: impl Future<Output = T>) -> T {
    IDENTITY.scope(identity, work).await
}

/// The identity of the request for which this runs, if it has one.
#[must_use]
pub fn identity() -> Option<Arc<str>> {
    IDENTITY.try_with(Clone::clone).ok().flatten()
}
