//! Watches whose failures are said, sparingly, and whose events alone go on.

use std::time::Duration;

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event, ExponentialBackoff};

use crate::kubernetes::error::Trouble;
use crate::telemetry::throttle::Sparingly;

/// When a watch is taken up again: half a second later, then twice that, at most 3 s. A process has
/// a handful of watches, so this is kind enough to an API server, and an outage of it ends for us
/// when it ends.
#[must_use]
pub fn again() -> ExponentialBackoff {
    let waits = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(3))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times();
    waits.into()
}

/// The events of a watch that takes itself up again with backoff. `what` names it in the log.
pub fn heard<K>(
    what: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
) -> impl Stream<Item = Event<K>> {
    let mut sparingly = Sparingly::default();
    events.filter_map(move |event| {
        let event = event.inspect_err(|error| {
            if sparingly.due() {
                tracing::warn!(what, cause = failure(error), "a watch failed; it is tried again");
            }
        });
        std::future::ready(event.ok())
    })
}

/// Which step failed, and why; the error's own text may carry a server's words.
fn failure(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("the list failed: {}", why(error)),
        watcher::Error::WatchStartFailed(error) => format!("the watch failed: {}", why(error)),
        watcher::Error::WatchError(_) => "the server ended the watch with an error".to_owned(),
        watcher::Error::WatchFailed(kube::Error::SerdeError(_)) => {
            "an object can't be read, and is passed over until it changes".to_owned()
        }
        watcher::Error::WatchFailed(error) => format!("the watch broke: {}", why(error)),
        watcher::Error::NoResourceVersion => "the list has no resource version".to_owned(),
    }
}

fn why(error: &kube::Error) -> String {
    match Trouble::of(error) {
        Trouble::Refused(404) => {
            "no such kind is served (HTTP 404); its CRD must be installed".to_owned()
        }
        Trouble::Refused(403) => {
            "it is forbidden (HTTP 403); a Role must allow 'list' and 'watch', as kyma-bindings rbac prints it"
                .to_owned()
        }
        trouble => trouble.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_are_dropped_and_events_go_on() {
        let events = [Err(watcher::Error::NoResourceVersion), Ok(Event::Delete(1)), Ok(Event::InitDone)];
        let heard: Vec<Event<u8>> = heard("test", futures::stream::iter(events)).collect().await;
        assert!(matches!(heard.as_slice(), [Event::Delete(1), Event::InitDone]));
    }

    #[test]
    fn a_refusal_says_what_would_be_right() {
        let refused = |code: u16| {
            let status = serde_json::from_value(serde_json::json!({"code": code})).unwrap();
            failure(&watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))))
        };
        for (code, words) in
            [(404, "its CRD must be installed"), (403, "a Role must allow"), (401, "HTTP 401")]
        {
            let said = refused(code);
            assert!(said.starts_with("the list failed: ") && said.contains(words), "{said}");
        }
    }
}
