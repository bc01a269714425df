//! The bodies of answers, as they are sent and as `openapi` describes them.

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::support::secret::{ExposeSecret as _, SecretString};

/// A kubeconfig on its way to whoever asked for it.
pub struct Credentials {
    /// The kubeconfig.
    pub kubeconfig: SecretString,
    /// When its binding was created.
    pub created: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The lifetime that was asked for, seconds.
    pub seconds: i64,
    /// Which part of that, at its end, is for renewal, percent.
    pub renewal: u8,
}

impl Credentials {
    /// The body for PUT (OSB 2.17, "Binding", with "Binding Metadata").
    #[must_use]
    pub fn bound(self) -> Binding {
        let metadata = Metadata { expires_at: self.expires_at, renew_before: self.renew_before() };
        Binding { credentials: Granted { kubeconfig: self.kubeconfig }, metadata, parameters: None }
    }

    /// The body for GET: the same, and the parameters.
    #[must_use]
    pub fn fetched(self) -> Binding {
        let parameters = Some(Parameters { expiration_seconds: self.seconds });
        Binding { parameters, ..self.bound() }
    }

    fn renew_before(&self) -> Timestamp {
        // A cluster may grant less than was asked for.
        let lifetime = self.expires_at.duration_since(self.created).as_secs().min(self.seconds);
        let margin = SignedDuration::from_secs(lifetime * i64::from(self.renewal) / 100);
        self.expires_at.saturating_sub(margin).unwrap_or(self.expires_at)
    }
}

/// A binding that works.
#[derive(Serialize, ToSchema)]
pub struct Binding {
    credentials: Granted,
    metadata: Metadata,
    /// What the binding was made with; in answers to GET.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    parameters: Option<Parameters>,
}

/// What gives access.
#[derive(Serialize, ToSchema)]
#[schema(as = Credentials)]
struct Granted {
    /// A complete kubeconfig: one cluster, one user with a token, one context.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String)]
    kubeconfig: SecretString,
}

/// How long it works (OSB 2.17, "Binding Metadata").
#[derive(Serialize, ToSchema)]
struct Metadata {
    /// When the kubeconfig ends; UTC.
    #[serde(serialize_with = "stamp")]
    #[schema(value_type = String, format = DateTime, example = "2026-01-31T12:00:00.0Z")]
    expires_at: Timestamp,
    /// When another one should be asked for; UTC.
    #[serde(serialize_with = "stamp")]
    #[schema(value_type = String, format = DateTime, example = "2026-01-31T11:58:00.0Z")]
    renew_before: Timestamp,
}

/// Parameters of a binding, as they count.
#[derive(Serialize, ToSchema)]
struct Parameters {
    /// Lifetime of the kubeconfig, seconds.
    #[schema(minimum = 600, maximum = 7200)]
    expiration_seconds: i64,
}

/// An operation that goes on after the answer (OSB 2.17, "Asynchronous Operations").
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// Names it to `last_operation`.
    #[schema(example = "bind-6f7ce4f2-6a1b-4e7c-9b0a-5f6c1f0f9d11-0a1b2c3d")]
    pub operation: String,
}

/// How far an operation is (OSB 2.17, "Polling Last Operation for Service Bindings").
#[derive(Debug, Serialize, ToSchema)]
pub struct LastOperation {
    /// How far it is.
    pub state: OperationState,
    /// The same for people, with the cause of a failure.
    pub description: String,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub enum OperationState {
    /// It goes on.
    #[serde(rename = "in progress")]
    InProgress,
    /// It is done.
    #[serde(rename = "succeeded")]
    Succeeded,
    /// It ended without success.
    #[serde(rename = "failed")]
    Failed,
}

/// Why a request was not answered as it wished (OSB 2.17, "Service Broker Errors").
#[derive(Debug, Serialize, ToSchema)]
pub struct Refusal {
    /// A code, where OSB defines one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "ConcurrencyError")]
    pub error: Option<&'static str>,
    /// One sentence: what was wrong, and what would be right.
    pub description: String,
}

/// An empty object.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

fn expose<S: Serializer>(secret: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose_secret())
}

/// UTC with one fractional digit, as clients of this API have always been answered.
fn stamp<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn credentials() -> Credentials {
        Credentials {
            kubeconfig: "k".to_owned().into(),
            created: "2026-01-31T11:50:00Z".parse().unwrap(),
            expires_at: "2026-01-31T12:00:00Z".parse().unwrap(),
            seconds: 600,
            renewal: 20,
        }
    }

    #[test]
    fn times_have_one_fractional_digit() {
        let bound = json!({
            "credentials": {"kubeconfig": "k"},
            "metadata": {"expires_at": "2026-01-31T12:00:00.0Z", "renew_before": "2026-01-31T11:58:00.0Z"},
        });
        assert_eq!(serde_json::to_value(credentials().bound()).unwrap(), bound);
        let fetched = serde_json::to_value(credentials().fetched()).unwrap();
        assert_eq!(fetched["parameters"], json!({"expiration_seconds": 600}));
        assert_eq!(fetched["credentials"], bound["credentials"]);
    }

    #[test]
    fn the_margin_is_a_part_of_what_was_granted() {
        let margin = |seconds, renewal| {
            let granted = Credentials { seconds, renewal, ..credentials() };
            granted.expires_at.duration_since(granted.renew_before()).as_secs()
        };
        assert_eq!((margin(600, 20), margin(600, 50)), (120, 300));
        assert_eq!(margin(7200, 50), 300, "asked for 7200, granted 600");
    }

    #[test]
    fn states_are_those_of_osb() {
        let states = [OperationState::InProgress, OperationState::Succeeded, OperationState::Failed];
        assert_eq!(serde_json::to_value(states).unwrap(), json!(["in progress", "succeeded", "failed"]));
        assert_eq!(serde_json::to_value(Empty {}).unwrap(), json!({}));
    }
}
