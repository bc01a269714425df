//! The bodies of successful answers.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::secret::{ExposeSecret as _, SecretString};

/// A kubeconfig on its way to whoever asked for it.
pub struct Credentials {
    /// The kubeconfig.
    pub kubeconfig: SecretString,
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
    pub fn bound(&self) -> Value {
        json!({
            "credentials": {"kubeconfig": self.kubeconfig.expose_secret()},
            "metadata": {"expires_at": stamp(self.expires_at), "renew_before": stamp(self.renew_before())},
        })
    }

    /// The body for GET: the same, and the parameters.
    #[must_use]
    pub fn fetched(&self) -> Value {
        let mut body = self.bound();
        body["parameters"] = json!({"expiration_seconds": self.seconds});
        body
    }

    fn renew_before(&self) -> Timestamp {
        let margin = SignedDuration::from_secs(self.seconds * i64::from(self.renewal) / 100);
        self.expires_at.saturating_sub(margin).unwrap_or(self.expires_at)
    }
}

/// UTC with one fractional digit, as clients of this API have always been answered.
fn stamp(time: Timestamp) -> String {
    format!("{time:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_fractional_digit() {
        let credentials = Credentials {
            kubeconfig: "k".to_owned().into(),
            expires_at: "2026-01-31T12:00:00Z".parse().unwrap(),
            seconds: 600,
            renewal: 20,
        };
        let body = credentials.fetched();
        assert_eq!(body["metadata"]["expires_at"], "2026-01-31T12:00:00.0Z");
        assert_eq!(body["metadata"]["renew_before"], "2026-01-31T11:58:00.0Z");
        assert_eq!(body["parameters"]["expiration_seconds"], 600);
        assert_eq!(body["credentials"]["kubeconfig"], "k");
    }
}
