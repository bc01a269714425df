//! What a served schema lacks of the one that this program was built with. Pure.

use serde_json::Value;

use crate::api::crd::custom_resource_definition;

/// The schema of a `KymaBinding` in an OpenAPI v3 document of its group.
#[must_use]
pub fn served(document: &Value) -> Option<&Value> {
    let schemas = document["components"]["schemas"].as_object()?;
    schemas.iter().find(|(name, _)| name.ends_with(".KymaBinding")).map(|(_, schema)| schema)
}

/// What the served schema lacks, as paths. A later version may have more.
#[must_use]
pub fn lacks(served: &Value) -> Vec<String> {
    let mut lacks = Vec::new();
    // Ours is always one.
    let crd = serde_json::to_value(custom_resource_definition()).unwrap_or_default();
    let ours = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    compare("", ours, served, &mut lacks);
    lacks
}

fn compare(path: &str, ours: &Value, theirs: &Value, lacks: &mut Vec<String>) {
    let here = if path.is_empty() { "the object" } else { path };
    if !ours["default"].is_null() && ours["default"] != theirs["default"] {
        lacks.push(format!("the default of {here}"));
    }
    let all = |key: &str, part: &dyn Fn(&Value) -> Value| {
        let theirs: Vec<_> = theirs[key].as_array().into_iter().flatten().map(part).collect();
        ours[key].as_array().into_iter().flatten().all(|one| theirs.contains(&part(one)))
    };
    if !all("x-kubernetes-validations", &|rule| rule["rule"].clone()) {
        lacks.push(format!("a rule for {here}"));
    }
    // Where there is no enumeration, anything may be written.
    if !theirs["enum"].is_null() && !all("enum", &Value::clone) {
        lacks.push(format!("a value of {here}"));
    }
    // Metadata is the API server's own.
    let fields = ours["properties"].as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata");
    for (name, field) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match theirs["properties"].get(name) {
            Some(theirs) => compare(&path, field, theirs, lacks),
            None => lacks.push(path),
        }
    }
    if ours["items"].is_object() {
        compare(&format!("{path}[]"), &ours["items"], &theirs["items"], lacks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ours() -> Value {
        let crd = serde_json::to_value(custom_resource_definition()).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn a_schema_lacks_nothing_of_itself_or_when_it_has_more() {
        let mut later = ours();
        assert_eq!(lacks(&later), Vec::<String>::new());
        later["properties"]["spec"]["properties"]["more"] = json!({"type": "string"});
        later["properties"]["status"]["properties"]["phase"]["enum"]
            .as_array_mut()
            .unwrap()
            .push("New".into());
        assert_eq!(lacks(&later), Vec::<String>::new());
    }

    #[test]
    fn fields_defaults_rules_and_values_are_missed() {
        let mut older = ours();
        older["properties"]["status"]["default"] = Value::Null;
        older["properties"]["status"]["properties"]["phase"]["enum"] = json!(["Pending"]);
        let spec = &mut older["properties"]["spec"];
        spec["properties"].as_object_mut().unwrap().remove("predecessorBindingId");
        spec["x-kubernetes-validations"] = json!([]);
        let conditions = &mut older["properties"]["status"]["properties"]["conditions"];
        conditions["items"]["properties"].as_object_mut().unwrap().remove("observedGeneration");
        let mut missed = lacks(&older);
        missed.sort();
        assert_eq!(
            missed,
            [
                "a rule for spec",
                "a value of status.phase",
                "spec.predecessorBindingId",
                "status.conditions[].observedGeneration",
                "the default of status",
            ]
        );
    }

    #[test]
    fn the_schema_is_found_in_the_document_of_its_group() {
        let document = json!({"components": {"schemas": {
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {},
            "io.kyma-project.bindings.v1alpha1.KymaBinding": {"type": "object"},
            "io.kyma-project.bindings.v1alpha1.KymaBindingList": {},
        }}});
        assert_eq!(served(&document), Some(&json!({"type": "object"})));
        assert_eq!(served(&json!({})), None);
    }
}
