//! Does the API server that issued a token take it? A token for another audience says so of itself, but which audience
//! is right is a setting of that server. So the server is asked, once for all tokens that say the same.

use http::StatusCode;
use k8s_openapi::Resource as _;
use k8s_openapi::api::authentication::v1::TokenReview;
use kube::Resource as _;
use kube::api::PostParams;
use kube::core::Request;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

use super::token::Defect;
use crate::cluster::client::Wire;
use crate::cluster::error::{Failure, Misbehaviour};
use crate::support::secret::{ExposeSecret as _, SecretString};

/// The audiences of the last token that a cluster was seen to take.
#[derive(Debug, Default)]
pub(super) struct Proven(Mutex<Option<Vec<String>>>);

#[derive(Deserialize)]
struct Review {
    kind: String,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    username: String,
}

impl Proven {
    /// Has the cluster say whether it takes the token of `subject`, unless it has taken one with the same audiences.
    ///
    /// # Errors
    /// When it doesn't take it, or fails.
    pub(super) async fn prove(
        &self,
        wire: &Wire,
        token: &SecretString,
        subject: &str,
        audiences: Vec<String>,
    ) -> Result<(), Failure> {
        if self.0.lock().as_ref() == Some(&audiences) {
            return Ok(());
        }
        let body = json!({
            "apiVersion": TokenReview::API_VERSION, "kind": TokenReview::KIND,
            "spec": {"token": token.expose_secret()},
        });
        let form = |_| Failure::Misbehaves(Misbehaviour::Form);
        let body = serde_json::to_vec(&body).map_err(form)?;
        let request = Request::new(TokenReview::url_path(&(), None)).create(&PostParams::default(), body);
        let answer = wire.call(request.map_err(|_| Failure::Misbehaves(Misbehaviour::Form))?).await?;
        if answer.status != StatusCode::CREATED {
            return Err(answer.failure());
        }
        let Review { kind, status } = answer.parse()?;
        if kind != TokenReview::KIND {
            return Err(Failure::Misbehaves(Misbehaviour::Form));
        }
        if !status.authenticated || status.user.username != subject {
            return Err(Failure::Token(Defect::NotAccepted));
        }
        *self.0.lock() = Some(audiences);
        Ok(())
    }
}
