//! From what went wrong to what is answered: one exhaustive match.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::auth::refused::Unauthenticated;
use crate::api::conditions::Reason;
use crate::api::names::NameError;
use crate::broker::response::{Empty, Refusal};

/// Why a binding that is there has no credentials to be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Hidden {
    /// Its id is known, but not here.
    #[error("binding does not exist in this instance: a binding of another instance has that id")]
    OtherInstance,
    /// Its time is over.
    #[error("binding has expired; make another one")]
    Expired,
    /// Somebody has asked for its end.
    #[error("binding is being deleted")]
    Deleting,
    /// It may have some yet.
    #[error("binding is still being made{0}; ask again, or repeat the PUT, which waits for it")]
    Making(Why),
    /// It has none, as the controller says.
    #[error("binding has no credentials: {0}")]
    Refused(String),
}

/// Why a request is not answered as it wishes. Every message says what was wrong and what would
/// be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No such path.
    #[error(
        "there is nothing at this path; service bindings are at …/v2/service_instances/{{instance_id}}/service_bindings/{{binding_id}}"
    )]
    UnknownPath,
    /// No region has such a name.
    #[error("a region in the path must consist of letters, digits, '-', '_' and '.', and not of dots alone")]
    Region,
    /// For whom is it?
    #[error(
        "there must be exactly one header Host, with a host name or address and, if needed, a port; \
         a URL's authority likewise, without a user"
    )]
    MalformedHost,
    /// Where does it end?
    #[error("Transfer-Encoding must be chunked and nothing else, or left out")]
    TransferEncoding,
    /// Nothing is decoded here.
    #[error("the body must be sent as it is, without the content encoding {0}")]
    ContentEncoding(String),
    /// No such method.
    #[error("this method is not supported here; the Allow header names those that are")]
    WrongMethod,
    /// OSB 2.17, "API Version Header".
    #[error("X-Broker-API-Version must be 2.x, such as 2.17; versions 2.0 to 2.17 are served")]
    Version,
    /// Nobody we know.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// Somebody we know, who may do something else.
    #[error("the token must have the scope that WWW-Authenticate names")]
    Scope,
    /// Tokens can't be checked.
    #[error(
        "the issuer's keys are not there at the moment, so no token can be checked; try again in a moment"
    )]
    NoKeys,
    /// Which one counts?
    #[error("there must be exactly one header Authorization")]
    RepeatedAuthorization,
    /// A page from elsewhere asks, in a browser here.
    #[error("the header Host must be localhost or a loopback address, because nobody is authenticated here")]
    Host,
    /// Too many requests under way.
    #[error("too many requests are under way; try again in a moment")]
    Overloaded,
    /// The request took longer than any may.
    #[error("the request took too long and was given up; try again in a moment")]
    Deadline,
    /// Path and query are too long.
    #[error("path and query must be at most 8192 bytes long")]
    TargetTooLong,
    /// The headers are too large.
    #[error("the headers must be at most 100, and at most 32768 bytes long in all")]
    HeadTooLarge,
    /// The body did not come.
    #[error("the body did not arrive within 10 s of the head")]
    BodyTooSlow,
    /// The body is too large.
    #[error("the body must be at most 65536 bytes long")]
    BodyTooLarge,
    /// The body is no JSON object.
    #[error("the body must be a JSON object with service_id, plan_id and, if wished, parameters")]
    BodyNotAnObject,
    /// An id can't be used.
    #[error(transparent)]
    Id(#[from] NameError),
    /// A field is missing.
    #[error("{0} must be given and must not be empty")]
    Missing(&'static str),
    /// The lifetime can't be granted.
    #[error("expiration_seconds must be a whole number between {min} and {max}")]
    Expiration {
        /// Shortest, seconds.
        min: i64,
        /// Longest, seconds.
        max: i64,
    },
    /// An id that the catalog doesn't have.
    #[error("{field} is not in the catalog; it must be one of: {listed}")]
    Unlisted {
        /// Which id.
        field: &'static str,
        /// Those that the catalog has.
        listed: String,
    },
    /// The query can't be read.
    #[error("the query must consist of name=value pairs joined by '&', each name once")]
    Query,
    /// The query says neither yes nor no.
    #[error("accepts_incomplete must be true or false")]
    Incomplete,
    /// OSB 2.17, "Binding Rotation": nothing to rotate.
    #[error(
        "predecessor_binding_id must be another binding of this instance that is ready and has not expired; \
         without it, a new binding is made"
    )]
    Predecessor,
    /// An operation that was never answered for this binding.
    #[error("operation must be what the answer 202 for this binding said, or be left out")]
    Operation,
    /// There is no catalog.
    #[error("no catalog is configured here (--catalog); service and plan ids are not checked")]
    NoCatalog,
    /// OSB 2.17, "Binding": same id, other parameters.
    #[error("binding already exists but with different parameters")]
    Different,
    /// The id is taken.
    #[error("binding_id is taken by a binding of another instance; give this one another id")]
    OtherInstance,
    /// OSB 2.17, "Blocking Operations".
    #[error("the binding is being deleted; try again when that is done")]
    Concurrency,
    /// No binding to fetch.
    #[error("binding does not exist")]
    NoBinding,
    /// There is one, without credentials to be shown.
    #[error(transparent)]
    Hidden(#[from] Hidden),
    /// No binding to delete.
    #[error("binding does not exist")]
    Gone,
    /// What the controller says against it.
    #[error("{1}")]
    Refused(Reason, String),
    /// Not made in time.
    #[error("the binding is not ready yet{0}; the same request joins it, a DELETE removes it")]
    NotReady(Why),
    /// Not removed in time.
    #[error("the binding is not removed yet{0}; removal goes on, the same request asks for its end")]
    NotRemoved(Why),
    /// Somebody deleted the Secret, and the controller makes another.
    #[error(
        "the binding's Secret is missing; it is made again within seconds, with a fresh token: ask again in a moment"
    )]
    SecretMissing,
    /// The Secret is not as we wrote it.
    #[error("the binding's Secret is not as it was written; delete the binding and create another")]
    SecretChanged,
    /// The process is about to end.
    #[error("this broker is being stopped; ask again: another one goes on with it")]
    Stopping,
    /// The control plane refused.
    #[error("the control plane refused a request of the broker (HTTP {0})")]
    ControlPlaneRefused(u16),
    /// The control plane did not answer.
    #[error("the control plane does not answer; try again in a moment")]
    ControlPlaneSilent,
}

/// A cause to put behind a message, if one is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why(pub Option<String>);

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

/// What a refusal by the controller is answered with; `None` while it goes on trying.
#[must_use]
pub fn refusal(reason: Reason) -> Option<StatusCode> {
    match reason {
        Reason::InstanceUnknown | Reason::InstanceSuspended => Some(StatusCode::NOT_FOUND),
        Reason::InstanceInProgress
        | Reason::InstanceFailed
        | Reason::ExpirationRefused
        | Reason::LimitReached => Some(StatusCode::BAD_REQUEST),
        Reason::PlanNotBindable => Some(StatusCode::UNPROCESSABLE_ENTITY),
        // The id is taken until its end by a binding that can never be what is asked for.
        Reason::ForeignObject | Reason::AccessLost => Some(StatusCode::CONFLICT),
        Reason::InstanceAmbiguous | Reason::KubeconfigRefused | Reason::AddressRefused => {
            Some(StatusCode::SERVICE_UNAVAILABLE)
        }
        Reason::Pending
        | Reason::Accepted
        | Reason::Issued
        | Reason::WaitingForPlace
        | Reason::ClusterUnreachable
        | Reason::ClusterTimedOut
        | Reason::ClusterUnauthorized
        | Reason::ClusterForbidden
        | Reason::ClusterRateLimited
        | Reason::ClusterUnavailable
        | Reason::ClusterMisbehaves
        | Reason::ObjectAltered
        | Reason::InstanceMissing
        | Reason::KubeconfigMissing
        | Reason::NamespaceMissing
        | Reason::TokenRefused
        | Reason::ClusterReplaced
        | Reason::Expired => None,
    }
}

/// Whether a request is answered soon, though its binding goes on being tried: what is missing comes back in a
/// moment, or not before somebody does something about it.
#[must_use]
pub fn is_told_soon(reason: Reason) -> bool {
    matches!(reason, Reason::InstanceMissing | Reason::KubeconfigMissing)
}

impl Problem {
    /// Status, OSB error code where one is defined, and seconds after which to try again.
    fn answer(&self) -> (StatusCode, Option<&'static str>, Option<u16>) {
        match self {
            Self::UnknownPath | Self::Region | Self::NoBinding | Self::Hidden(_) | Self::NoCatalog => {
                (StatusCode::NOT_FOUND, None, None)
            }
            Self::ContentEncoding(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, None, None),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, None, None),
            Self::Version => (StatusCode::PRECONDITION_FAILED, None, None),
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, None, None),
            Self::Host | Self::Scope => (StatusCode::FORBIDDEN, None, None),
            Self::Overloaded => (StatusCode::TOO_MANY_REQUESTS, None, Some(1)),
            Self::TargetTooLong => (StatusCode::URI_TOO_LONG, None, None),
            Self::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, None, None),
            Self::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, None, None),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, None, None),
            Self::MalformedHost
            | Self::TransferEncoding
            | Self::RepeatedAuthorization
            | Self::BodyNotAnObject
            | Self::Id(_)
            | Self::Missing(_)
            | Self::Expiration { .. }
            | Self::Unlisted { .. }
            | Self::Query
            | Self::Incomplete
            | Self::Predecessor
            | Self::Operation => (StatusCode::BAD_REQUEST, None, None),
            Self::Different | Self::OtherInstance => (StatusCode::CONFLICT, None, None),
            Self::Concurrency => (StatusCode::UNPROCESSABLE_ENTITY, Some("ConcurrencyError"), None),
            Self::Gone => (StatusCode::GONE, None, None),
            Self::Refused(reason, _) => {
                let status = refusal(*reason).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
                let code = (*reason == Reason::PlanNotBindable).then_some("BindingNotSupported");
                (status, code, (status == StatusCode::SERVICE_UNAVAILABLE).then_some(10))
            }
            Self::SecretMissing => (StatusCode::SERVICE_UNAVAILABLE, None, Some(1)),
            Self::NotReady(_)
            | Self::NotRemoved(_)
            | Self::Deadline
            | Self::Stopping
            | Self::NoKeys
            | Self::SecretChanged
            | Self::ControlPlaneRefused(_)
            | Self::ControlPlaneSilent => (StatusCode::SERVICE_UNAVAILABLE, None, Some(5)),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, retry_after) = self.answer();
        let more = match self {
            // What follows on the connection may be a part of this message.
            Self::TransferEncoding => Some((header::CONNECTION, HeaderValue::from_static("close"))),
            // RFC 9110, section 12.5.3.
            Self::ContentEncoding(_) => Some((header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))),
            _ => None,
        };
        let mut response = match self {
            // OSB 2.17, "Unbinding": the body of 410 is an empty object.
            Self::Gone => (status, Json(Empty {})).into_response(),
            _ => (status, Json(Refusal { error: code, description: self.to_string() })).into_response(),
        };
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.headers_mut().extend(more);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_the_contract() {
        let refused = |reason| Problem::Refused(reason, "m".into()).answer();
        assert_eq!(refused(Reason::InstanceUnknown).0, 404);
        assert_eq!(refused(Reason::InstanceSuspended).0, 404);
        assert_eq!(refused(Reason::InstanceInProgress).0, 400);
        assert_eq!(refused(Reason::LimitReached).0, 400);
        assert_eq!(
            refused(Reason::PlanNotBindable),
            (StatusCode::UNPROCESSABLE_ENTITY, Some("BindingNotSupported"), None)
        );
        assert_eq!(refused(Reason::ForeignObject).0, 409);
        assert_eq!(refused(Reason::AccessLost).0, 409);
        assert_eq!(refused(Reason::InstanceAmbiguous), (StatusCode::SERVICE_UNAVAILABLE, None, Some(10)));
        assert_eq!(Problem::Concurrency.answer().1, Some("ConcurrencyError"));
        assert_eq!(Problem::Version.answer().0, 412);
        assert_eq!(refusal(Reason::WaitingForPlace), None, "it may have its place yet");
        assert_eq!(Problem::SecretMissing.answer(), (StatusCode::SERVICE_UNAVAILABLE, None, Some(1)));
    }

    #[test]
    fn a_cause_follows_the_message_when_there_is_one() {
        let with = Problem::NotReady(Why(Some("the managed cluster did not answer in time".into())));
        assert_eq!(
            with.to_string(),
            "the binding is not ready yet: the managed cluster did not answer in time; the same request joins it, a DELETE removes it"
        );
        assert!(!Problem::NotReady(Why(None)).to_string().contains(':'));
    }
}
