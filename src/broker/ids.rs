//! The ids in the path of a request.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::Deserialize;

use crate::api::names::{BindingId, InstanceId, NameError};
use crate::broker::error::Problem;

/// The ids in the path.
#[derive(Debug)]
pub struct Ids {
    /// The instance.
    pub instance: InstanceId,
    /// The binding.
    pub binding: BindingId,
}

#[derive(Deserialize)]
struct RawIds {
    instance_id: String,
    binding_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = Path::<RawIds>::from_request_parts(parts, state).await;
        let raw = raw.map_err(|rejection| not_utf8(&rejection))?;
        let instance = InstanceId::parse(&raw.instance_id)?;
        let binding = BindingId::parse(&raw.binding_id)?;
        Ok(Self { instance, binding })
    }
}

/// Which part of the path isn't UTF-8 once decoded: there is no other way to fail.
fn not_utf8(rejection: &PathRejection) -> Problem {
    let key = match rejection {
        PathRejection::FailedToDeserializePathParams(error) => match error.kind() {
            ErrorKind::InvalidUtf8InPathParam { key } => key.as_str(),
            _ => "",
        },
        _ => "",
    };
    match key {
        "instance_id" => NameError::InstanceId.into(),
        "binding_id" => NameError::BindingId.into(),
        _ => Problem::UnknownPath,
    }
}
