//! The CRD manifest, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::binding::KymaBinding;
use super::conditions::{Kind, Reason};

/// Schema of one condition, worded for `kubectl explain`.
pub(super) struct ConditionSchema;

impl JsonSchema for ConditionSchema {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Condition".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "One aspect of the binding's state.",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 316,
                    "description": "Which aspect: Accepted, Ready or Stalled."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds: True, False or Unknown."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024,
                    "description": "Why, as one word for programs."},
                "message": {"type": "string", "maxLength": 32768,
                    "description": "Why, as a sentence for people, and what would mend it."},
                "lastTransitionTime": {"type": "string", "format": "date-time",
                    "description": "When status last changed (RFC 3339)."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0,
                    "description": "Generation of the object that the condition describes."},
            }
        })
    }
}

/// Schema of a point in time.
pub(super) struct TimeSchema;

impl JsonSchema for TimeSchema {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

/// What a binding says that no controller has looked at: one in another namespace than that of an operator, for ever. The
/// definition is the same wherever the operator is, so it can only say how to find out.
const UNSEEN: &str = "Waiting for the controller. It serves one namespace alone: that of its --namespace, by default \
    kyma-bindings, where its Lease kyma-bindings is (kubectl get leases -A). If this stays, see whether this \
    KymaBinding is there, and what kyma-bindings check says. Until a controller has looked, the time of this \
    condition is 1970.";

/// The `CustomResourceDefinition`, as `kyma-bindings crd` prints it and `crds/` holds it.
#[must_use]
pub fn custom_resource_definition() -> CustomResourceDefinition {
    let mut crd = KymaBinding::crd();
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        let status = schema.and_then(|s| s.properties.as_mut()?.get_mut("status"));
        if let Some(status) = status {
            // A tool that looks before the controller did must see "in progress" (kstatus takes
            // no Ready condition for done). Gateway API does the same, and it costs no write. A
            // default can't compute a time, and clients that know the type Condition need one: the
            // beginning of Unix time says "never", as Gateway API's default does.
            status.default =
                Some(k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSON(json!({
                    "conditions": [{
                        "type": Kind::Ready.as_str(),
                        "status": "Unknown",
                        "reason": Reason::Pending.as_str(),
                        "message": UNSEEN,
                        "lastTransitionTime": "1970-01-01T00:00:00Z",
                    }]
                })));
        }
    }
    crd
}

/// Why the CRD could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// It is no JSON.
    #[error("cannot write the CustomResourceDefinition as JSON")]
    Json(#[from] serde_json::Error),
    /// It is no YAML.
    #[error("cannot write the CustomResourceDefinition as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The CRD as a YAML document.
///
/// # Errors
/// When it can't be serialized, which would be a defect of the schema.
pub fn render() -> Result<String, RenderError> {
    // In one order, whatever the maps of the libraries keep.
    let mut crd = serde_json::to_value(custom_resource_definition())?;
    crd.sort_all_objects();
    Ok(serde_saphyr::to_string(&crd)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_in_crds_is_what_the_types_say() {
        let committed = include_str!("../../crds/kymabindings.yaml");
        assert!(
            committed == render().unwrap(),
            "crds/kymabindings.yaml has drifted: cargo run -- crd > crds/kymabindings.yaml"
        );
    }

    #[test]
    fn every_field_explains_itself() {
        fn walk(path: &str, schema: &serde_json::Value, missing: &mut Vec<String>) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                if field["description"].as_str().is_none_or(str::is_empty) && path != ".metadata" {
                    missing.push(path.clone());
                }
                walk(&path, field, missing);
                walk(&path, &field["items"], missing);
            }
        }
        let crd = serde_json::to_value(custom_resource_definition()).unwrap();
        let mut missing = Vec::new();
        walk("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn conditions_merge_by_type_and_start_unknown() {
        let crd = serde_json::to_value(custom_resource_definition()).unwrap();
        let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        let conditions = &status["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map");
        assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type");
        let default = &status["default"]["conditions"][0];
        assert_eq!(default["status"], "Unknown");
        let message = default["message"].as_str().unwrap();
        for words in ["--namespace", "kyma-bindings, where its Lease", "kyma-bindings check", "1970"] {
            assert!(message.contains(words), "{words} is not in: {message}");
        }
    }
}
