//! Bodies as clients write them, and the catalog. What reads them is stricter with words and more
//! tolerant of what it doesn't know.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};

use crate::api::binding::{MAX_EXPIRATION_SECONDS, MIN_EXPIRATION_SECONDS};

/// A binding as it is wished for. Unknown fields are ignored.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct NewBinding {
    /// Id of the service.
    #[schema(min_length = 1, example = "kyma")]
    pub service_id: String,
    /// Id of the plan.
    #[schema(min_length = 1, example = "aws")]
    pub plan_id: String,
    /// Where the wish comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub context: Option<Context>,
    /// What the binding is for; accepted and not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object, nullable = false)]
    pub bind_resource: Option<Value>,
    /// The application that it is for; accepted and not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub app_guid: Option<String>,
    /// What the kubeconfig shall be like. Unknown keys are ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameters: Option<Wishes>,
}

/// A binding that takes over from another one (OSB 2.17, "Rotating a Service Binding"): it has the
/// parameters of that one.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rotation {
    /// Id of the binding that it takes over from: unexpired, and of the same instance.
    #[schema(min_length = 1, example = "my-binding")]
    pub predecessor_binding_id: String,
}

/// Where a wish comes from; kept with the binding.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Context {
    /// Who wishes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "jane@example.com")]
    pub email: Option<String>,
    /// By which platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub origin: Option<String>,
}

/// What a kubeconfig shall be like.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Wishes {
    /// Lifetime.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = lifetime)]
    pub expiration_seconds: Option<i64>,
}

fn lifetime() -> Schema {
    let whole = || ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Integer, Type::Null]));
    AnyOfBuilder::new()
        .item(whole().minimum(Some(MIN_EXPIRATION_SECONDS)).maximum(Some(MAX_EXPIRATION_SECONDS)))
        .item(whole().enum_values(Some([0])))
        .description(Some(
            "Lifetime of the kubeconfig, seconds. Missing, `null` and 0 mean the default (`--default-expiration-seconds`, \
             600 unless set); an operator may set narrower bounds.",
        ))
        .examples([MIN_EXPIRATION_SECONDS])
        .build()
        .into()
}

/// Either body of a bind.
pub(super) fn bind() -> RefOr<Schema> {
    let either = AnyOfBuilder::new()
        .item(Ref::from_schema_name(NewBinding::name()))
        .item(Ref::from_schema_name(Rotation::name()));
    Schema::from(either.build()).into()
}

/// What is offered (OSB 2.17, "Catalog Management").
#[derive(Debug, Serialize, ToSchema)]
pub struct Catalog {
    /// The services.
    pub services: Vec<Service>,
}

/// A service.
#[derive(Debug, Serialize, ToSchema)]
pub struct Service {
    /// Its id, `service_id` of requests.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Whether its instances can be bound.
    pub bindable: bool,
    /// Whether bindings can be fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub bindings_retrievable: Option<bool>,
    /// Its plans.
    pub plans: Vec<Plan>,
}

/// A plan of a service.
#[derive(Debug, Serialize, ToSchema)]
pub struct Plan {
    /// Its id, `plan_id` of requests.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Whether its instances can be bound; the service's word where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub bindable: Option<bool>,
    /// Whether bindings can be made with `predecessor_binding_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub binding_rotatable: Option<bool>,
    /// JSON Schemas, that of a bind's `parameters` in `service_binding.create.parameters`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object, nullable = false)]
    pub schemas: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::request::{BindRequest, Lifetimes, Wish};
    use axum::http::HeaderMap;

    #[test]
    fn what_is_described_is_what_is_read() {
        let described = NewBinding {
            service_id: "s".into(),
            plan_id: "p".into(),
            context: Some(Context { email: Some("a@b".into()), origin: Some("x".into()) }),
            bind_resource: Some(serde_json::json!({})),
            app_guid: Some("g".into()),
            parameters: Some(Wishes { expiration_seconds: Some(601) }),
        };
        let body = serde_json::to_vec(&described).unwrap();
        let read = BindRequest::parse(
            &HeaderMap::new(),
            &body,
            Lifetimes { default: 600, min: MIN_EXPIRATION_SECONDS, max: MAX_EXPIRATION_SECONDS },
        )
        .unwrap();
        assert_eq!((read.service_id.as_deref(), read.plan_id.as_deref()), (Some("s"), Some("p")));
        assert_eq!(read.wish, Wish::Lifetime(601));
        assert_eq!(read.created_by.as_deref(), Some("a@b x"));
    }
}
