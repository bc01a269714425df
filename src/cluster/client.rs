//! Calls to one managed cluster, bounded in time and size.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use kube::client::Body;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::ServiceExt as _;

use super::cause::no_answer;
use super::places::Places;
use crate::cluster::error::{Call, Failure, Misbehaviour};
use crate::kubernetes::direct::Client;
use crate::support::failpoint;
use crate::support::secret::Zeroize as _;
use crate::telemetry::metrics::Metrics;

/// Most calls to one cluster under way at once; each has a connection.
const MAX_CALLS: usize = 16;

/// A client with a deadline for each call.
pub struct Wire {
    client: Client,
    deadline: Duration,
    calls: Places,
    /// For calls of which many come at once and none is in a hurry to overtake another of the same cluster: one
    /// connection serves them, where each would make its own.
    in_turn: Semaphore,
    gate: Gate,
    metrics: Arc<Metrics>,
}

/// Says whether this process may still change anything.
pub type Gate = Arc<dyn Fn() -> bool + Send + Sync>;

/// A whole answer, within the bounds.
pub struct Answer {
    /// Its status; which one is expected is the caller's to say.
    pub status: StatusCode,
    /// What was asked.
    call: Call,
    body: Vec<u8>,
}

/// An answer may be a token.
impl Drop for Answer {
    fn drop(&mut self) {
        self.body.zeroize();
    }
}

impl Wire {
    /// Calls end `deadline` after they begin, answered or not, and begin when they have a place among those
    /// under way; those that change anything are made only while the gate is open.
    #[must_use]
    pub fn new(client: Client, deadline: Duration, gate: Gate, metrics: Arc<Metrics>) -> Self {
        Self { client, deadline, calls: Places::new(MAX_CALLS), in_turn: Semaphore::new(1), gate, metrics }
    }

    /// Waits until all who asked before are done; nobody else is let in until that is dropped.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.in_turn.acquire().await.ok()
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// When there is no answer in time, none at all, or one that is too large.
    pub async fn call(&self, request: Request<Vec<u8>>) -> Result<Answer, Failure> {
        let place = self.calls.take(self.deadline).await;
        let (began, verb) = (Instant::now(), verb(request.method()));
        let (name, call) = (failpoint::name_of(&request), call_of(request.method(), request.uri().path()));
        let exchange = async {
            if place.is_none() {
                return Err(Failure::TimedOut);
            }
            if request.method() != Method::GET && !(self.gate)() {
                return Err(Failure::NotLeading);
            }
            let sent = self.client.clone().oneshot(request.map(Body::from)).await;
            let response = sent.map_err(|error| no_answer(error.as_ref()))?;
            Ok(Answer { status: response.status(), call, body: response.into_body().into() })
        };
        let exchange = failpoint::around("managed", name, exchange);
        let answer = tokio::time::timeout(self.deadline, exchange).await.unwrap_or(Err(Failure::TimedOut));
        if answer.is_ok() {
            self.calls.answered();
        }
        self.metrics.managed_cluster_call(verb, result(&answer), began.elapsed());
        answer
    }
}

impl Answer {
    /// The failure that an unexpected status stands for.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self.status {
            StatusCode::UNAUTHORIZED => Failure::Unauthorized,
            StatusCode::FORBIDDEN => Failure::Forbidden(self.call),
            StatusCode::TOO_MANY_REQUESTS => Failure::RateLimited,
            status if status.is_server_error() => Failure::Unavailable(status.as_u16()),
            status => Failure::Misbehaves(Misbehaviour::Status(status.as_u16())),
        }
    }

    /// The body as `T`. A parser's error text would quote the body, so it ends here.
    ///
    /// # Errors
    /// [`Misbehaviour::Form`] when it isn't one.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|_| Failure::Misbehaves(Misbehaviour::Form))
    }
}

/// A label of few values.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

/// A call as RBAC names it, which is how its right is given. All that is ever asked for has its word here.
fn call_of(method: &Method, path: &str) -> Call {
    const KINDS: [(&str, &str); 5] = [
        ("namespaces", "Namespaces"),
        ("serviceaccounts", "ServiceAccounts"),
        ("clusterroles", "ClusterRoles"),
        ("clusterrolebindings", "ClusterRoleBindings"),
        ("tokenreviews", "TokenReviews"),
    ];
    let mut parts = path.rsplit('/');
    let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let kind = |plural: &str| KINDS.iter().find(|(known, _)| *known == plural).map(|(_, kind)| *kind);
    let (what, one) = match (last, kind(last), kind(before)) {
        ("token", ..) => ("tokens of ServiceAccounts (serviceaccounts/token)", false),
        (_, Some(kind), _) => (kind, false),
        (_, None, Some(kind)) => (kind, true),
        (_, None, None) => ("what it was asked for", false),
    };
    let verb = match *method {
        Method::GET if one => "get",
        Method::GET => "list",
        _ => verb(method),
    };
    Call { verb, what }
}

/// A label of few values.
fn result(answer: &Result<Answer, Failure>) -> &'static str {
    match answer {
        Ok(answer) => match answer.status.as_u16() {
            200..300 => "2xx",
            400..500 => "4xx",
            500..600 => "5xx",
            _ => "other",
        },
        Err(Failure::TimedOut) => "timeout",
        Err(Failure::Unreachable(_) | Failure::Address(_)) => "unreachable",
        Err(Failure::NotLeading) => "not_leading",
        Err(_) => "misbehaves",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::error::{Tls, Unreachable};

    const ASKED: Call = Call { verb: "create", what: "ClusterRoles" };

    fn answer(status: StatusCode) -> Answer {
        Answer { status, call: ASKED, body: Vec::new() }
    }

    #[test]
    fn a_refused_call_is_named_as_rbac_names_it() {
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        for (method, path, expected) in [
            (Method::GET, "/api/v1/namespaces/kube-system", "get Namespaces"),
            (Method::POST, "/api/v1/namespaces/kyma-system/serviceaccounts", "create ServiceAccounts"),
            (Method::GET, "/api/v1/namespaces/kyma-system/serviceaccounts", "list ServiceAccounts"),
            (
                Method::POST,
                "/api/v1/namespaces/kyma-system/serviceaccounts/a/token",
                "create tokens of ServiceAccounts (serviceaccounts/token)",
            ),
            (Method::POST, &format!("{rbac}/clusterrolebindings"), "create ClusterRoleBindings"),
            (Method::DELETE, &format!("{rbac}/clusterroles/token-of-a"), "delete ClusterRoles"),
            (Method::PATCH, &format!("{rbac}/clusterroles/a"), "patch ClusterRoles"),
            (Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", "create TokenReviews"),
        ] {
            assert_eq!(call_of(&method, path).to_string(), expected);
        }
        let refused = answer(StatusCode::FORBIDDEN).failure().to_string();
        assert!(refused.contains("refuses to create ClusterRoles (HTTP 403)"), "{refused}");
    }

    #[test]
    fn labels_are_few() {
        let of = |code: u16| {
            let status = StatusCode::from_u16(code).unwrap();
            result(&Ok(answer(status)))
        };
        assert_eq!([201, 302, 404, 503, 999].map(of), ["2xx", "other", "4xx", "5xx", "other"]);
        assert_eq!(result(&Err(Failure::TimedOut)), "timeout");
        assert_eq!(result(&Err(Failure::Unreachable(Unreachable::Tls(Tls::Expired)))), "unreachable");
        assert_eq!(result(&Err(Failure::Misbehaves(Misbehaviour::TooLarge))), "misbehaves");
        assert_eq!((verb(&Method::POST), verb(&Method::TRACE)), ("create", "other"));
    }

    #[test]
    fn statuses_have_their_failures() {
        let of = |code: u16| {
            let status = StatusCode::from_u16(code).unwrap_or_default();
            answer(status).failure()
        };
        assert_eq!(of(401), Failure::Unauthorized);
        assert_eq!(of(403), Failure::Forbidden(ASKED));
        assert_eq!(of(429), Failure::RateLimited);
        assert_eq!(of(503), Failure::Unavailable(503));
        assert_eq!(of(302), Failure::Misbehaves(Misbehaviour::Status(302)));
        assert_eq!(of(200), Failure::Misbehaves(Misbehaviour::Status(200)));
    }
}
