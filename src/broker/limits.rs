//! Bounds of every request: its head, how many at once, and how long.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::auth::Asker;
use super::message;
use super::service::Broker;
use crate::broker::error::Problem;
use crate::server::body::Outgoing;
use crate::telemetry::metrics::Held;

/// Longest request target, bytes.
const MAX_TARGET: usize = 8 * 1024;
/// Most fields of a head.
const MAX_FIELDS: usize = 100;
/// All names and values of a head together, bytes.
const MAX_FIELD_BYTES: usize = 32 * 1024;
/// What a request may take besides the wait for its binding: for its credentials and its body, and
/// for the control plane.
const BESIDES: Duration = Duration::from_secs(30);
/// How long a request may go on when the process shall end: less than connections are kept open, so
/// that it still gets an answer.
const LAST: Duration = Duration::from_secs(6);

/// The place of a request among those under way; it is free when whatever the request began has ended.
#[derive(Clone)]
pub struct Place(#[expect(dead_code, reason = "held, never read")] Arc<(OwnedSemaphorePermit, Held)>);

/// Goes on with a request within its bounds, or answers it.
pub async fn bounded(broker: &Broker, mut request: Request, next: Next) -> Response {
    if let Err(problem) = message::check(request.version(), request.uri(), request.headers()) {
        return problem.into_response();
    }
    let Ok(free) = broker.in_flight.clone().try_acquire_owned() else {
        return Problem::Overloaded.into_response();
    };
    let place = Place(Arc::new((free, broker.metrics.request())));
    request.extensions_mut().insert(place.clone());
    let asker = request.extensions().get::<Asker>().cloned().unwrap_or_default();
    let answer = in_time(next.run(request), broker.settings.create_timeout, &broker.stop).await;
    let answer = answer.unwrap_or_else(Problem::into_response);
    if asker.0.get().is_none() {
        // What strangers are told costs no memory, and they must not keep places by not reading it.
        return answer;
    }
    answer.map(|body| Outgoing::holding(body, place))
}

/// Waits for an answer, for as long as a request may take.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    create_timeout: Duration,
    stop: &CancellationToken,
) -> Result<T, Problem> {
    let stopping = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST).await;
    };
    tokio::select! {
        answer = answer => Ok(answer),
        () = tokio::time::sleep(create_timeout + BESIDES) => Err(Problem::Deadline),
        () = stopping => Err(Problem::Stopping),
    }
}

/// Whether a head is within its bounds.
///
/// # Errors
/// [`Problem::TargetTooLong`] or [`Problem::HeadTooLarge`].
pub fn check_head(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if target > MAX_TARGET {
        Err(Problem::TargetTooLong)
    } else if headers.len() > MAX_FIELDS || bytes > MAX_FIELD_BYTES {
        Err(Problem::HeadTooLarge)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: usize, fields: usize, length: usize) -> Result<(), Problem> {
        let uri = format!("/{}", "x".repeat(target - 1)).parse().unwrap();
        let mut headers = HeaderMap::new();
        for _ in 0..fields {
            headers.append("name", "v".repeat(length).parse().unwrap());
        }
        check_head(&uri, &headers)
    }

    #[tokio::test(start_paused = true)]
    async fn every_request_has_a_deadline_and_a_shorter_one_when_the_process_ends() {
        let began = tokio::time::Instant::now();
        let seconds = Duration::from_secs;
        let stop = CancellationToken::new();
        let just_in_time = async {
            tokio::time::sleep(seconds(44)).await;
            7
        };
        assert_eq!(in_time(just_in_time, seconds(15), &stop).await, Ok(7));
        let never = in_time(std::future::pending::<()>(), seconds(15), &stop).await;
        assert_eq!((never, began.elapsed()), (Err(Problem::Deadline), seconds(44 + 45)));
        let ends = tokio::time::Instant::now();
        stop.cancel();
        let stopped = in_time(std::future::pending::<()>(), seconds(15), &stop).await;
        assert_eq!((stopped, ends.elapsed()), (Err(Problem::Stopping), seconds(6)));
    }

    #[test]
    fn heads_are_bounded_in_all_their_parts() {
        assert_eq!(check(MAX_TARGET, MAX_FIELDS, 10), Ok(()));
        assert_eq!(check(MAX_TARGET + 1, 1, 10), Err(Problem::TargetTooLong));
        assert_eq!(check(1, MAX_FIELDS + 1, 10), Err(Problem::HeadTooLarge));
        assert_eq!(check(1, 1, MAX_FIELD_BYTES - 4), Ok(()));
        assert_eq!(check(1, 1, MAX_FIELD_BYTES - 3), Err(Problem::HeadTooLarge));
    }
}
