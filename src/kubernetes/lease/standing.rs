//! How the calls for the Lease go: what failed last, said sparingly, counted, and shown by `/readyz` when it lasts.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::kubernetes::error::Trouble;
use crate::support::grace::Lasting;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttle::Sparingly;

/// What is done with the Lease, in the words that a Role has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It is read.
    Get,
    /// It is made.
    Create,
    /// It is taken or renewed.
    Update,
}

impl Verb {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
        }
    }
}

/// Why something could not be done with the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseTrouble {
    /// What was tried.
    pub verb: Verb,
    /// Why it failed.
    pub trouble: Trouble,
    /// Where the Lease is.
    pub namespace: String,
}

impl std::error::Error for LeaseTrouble {}

impl fmt::Display for LeaseTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, trouble, namespace } = self;
        let verb = verb.as_str();
        match trouble {
            Trouble::NamespaceMissing => write!(
                f,
                "namespace {namespace}, where the Lease must be, does not exist: create it, or let --namespace name the \
                 right one"
            ),
            Trouble::NamespaceTerminating => write!(
                f,
                "namespace {namespace}, where the Lease must be, is being deleted: create it again when it is gone"
            ),
            Trouble::Refused(403) => write!(
                f,
                "'{verb}' on leases in namespace {namespace} is forbidden (HTTP 403): a Role there must allow 'get', \
                 'create' and 'update', as kyma-bindings rbac prints it, and no admission may refuse it"
            ),
            Trouble::Refused(404) => {
                write!(
                    f,
                    "'{verb}' on leases is not known there (HTTP 404): it must be a Kubernetes API server"
                )
            }
            Trouble::Refused(code) => {
                write!(f, "'{verb}' on the Lease failed (HTTP {code}): its API server must be well")
            }
            other => write!(f, "'{verb}' on the Lease failed: {other}"),
        }
    }
}

#[derive(Default)]
struct State {
    lasting: Lasting<LeaseTrouble>,
    sparingly: Sparingly,
}

/// How it stands with the Lease.
#[derive(Clone)]
pub struct Standing {
    metrics: Arc<Metrics>,
    state: Arc<Mutex<State>>,
}

impl Standing {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, state: Arc::default() }
    }

    /// Somebody holds the Lease, and whoever it is can go on.
    pub(super) fn well(&self) {
        let mut state = self.state.lock();
        if state.lasting.note(Ok(()), Instant::now()) {
            state.sparingly = Sparingly::default();
            tracing::info!("the Lease can be read and written again");
        }
    }

    pub(super) fn failed(&self, trouble: &LeaseTrouble) {
        self.metrics.lease_failure(trouble.verb.as_str(), trouble.trouble.label());
        let mut state = self.state.lock();
        let news = state.lasting.note(Err(trouble.clone()), Instant::now());
        // Another trouble is said at once, the same once a minute.
        if state.sparingly.due() || news {
            tracing::warn!(why = %trouble, "the Lease can't be held or taken; trying again");
        }
    }

    /// What failed last, unless it went well since.
    #[must_use]
    pub fn latest(&self) -> Option<LeaseTrouble> {
        self.state.lock().lasting.latest()
    }

    /// Why nobody here can lead, when that has lasted, or is not known yet.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let lasting = &self.state.lock().lasting;
        if !lasting.is_asked() {
            return Some("the Lease was not asked for yet".to_owned());
        }
        lasting.counts(Instant::now()).map(|trouble| trouble.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(verb: Verb, trouble: Trouble) -> String {
        LeaseTrouble { verb, trouble, namespace: "ns".into() }.to_string()
    }

    #[test]
    fn each_trouble_says_what_would_be_right() {
        for (verb, trouble, words) in [
            (
                Verb::Create,
                Trouble::NamespaceMissing,
                "namespace ns, where the Lease must be, does not exist",
            ),
            (Verb::Create, Trouble::NamespaceTerminating, "is being deleted"),
            (
                Verb::Update,
                Trouble::Refused(403),
                "'update' on leases in namespace ns is forbidden (HTTP 403)",
            ),
            (Verb::Get, Trouble::Unauthorized, "does not accept the credentials (HTTP 401)"),
            (Verb::Get, Trouble::ConnectionRefused, "connection refused; its API server must run"),
            (Verb::Get, Trouble::NotResolved, "can't be resolved"),
            (Verb::Get, Trouble::Silent, "no answer in time"),
            (Verb::Get, Trouble::Refused(500), "failed (HTTP 500)"),
        ] {
            let said = said(verb, trouble);
            assert!(said.contains(words), "{words} is not in: {said}");
            assert_eq!(said.contains("403"), trouble == Trouble::Refused(403), "{said}");
        }
    }

    #[test]
    fn what_fails_is_counted_and_remembered_until_it_goes_well() {
        let metrics = Arc::new(Metrics::default());
        let standing = Standing::new(metrics.clone());
        let trouble =
            LeaseTrouble { verb: Verb::Update, trouble: Trouble::Refused(403), namespace: "ns".into() };
        standing.failed(&trouble);
        standing.failed(&trouble);
        assert_eq!(standing.latest(), Some(trouble));
        assert!(standing.why_not().unwrap().contains("'update' on leases"));
        let counted = r#"kyma_bindings_lease_failures_total{verb="update",reason="forbidden"} 2"#;
        assert!(metrics.render().contains(counted), "{}", metrics.render());
        standing.well();
        assert_eq!((standing.latest(), standing.why_not()), (None, None));
    }
}
