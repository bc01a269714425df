//! The catalog (OSB 2.17, "Catalog Management"): a file of the operator's owner, with what only the
//! operator knows filled in.

mod form;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::request::Lifetimes;
use crate::broker::error::Problem;

/// Why a catalog can't be served.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file can't be read.
    #[error("the catalog {0} can't be read")]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is not what it should be.
    #[error(
        "the catalog {0} must be YAML or JSON with a list of services, as the Open Service Broker API has it: {1}"
    )]
    Parse(PathBuf, String),
    /// What it says can't be right.
    #[error("the catalog {0} can't be served: {1}")]
    Content(PathBuf, String),
}

/// Services and plans, and the ids that requests may name.
#[derive(Debug)]
pub struct Catalog {
    body: Value,
    plans: BTreeMap<String, BTreeSet<String>>,
}

/// What is read of a service; the rest of it is served as it stands in the file.
#[derive(Deserialize)]
struct Service {
    id: String,
    name: String,
    plans: Vec<Plan>,
}

#[derive(Deserialize)]
struct Plan {
    id: String,
}

impl Catalog {
    /// Reads a catalog file and fills in what isn't said: that bindings can be made, fetched and
    /// rotated, and the schema of their parameters.
    ///
    /// # Errors
    /// The [`CatalogError`] with the first thing that is wrong.
    pub fn load(path: &Path, lifetimes: Lifetimes) -> Result<Self, CatalogError> {
        let text = std::fs::read_to_string(path).map_err(|e| CatalogError::Read(path.to_owned(), e))?;
        // JSON is YAML.
        let file: Map<String, Value> = serde_saphyr::from_str(&text)
            .map_err(|error| CatalogError::Parse(path.to_owned(), error.to_string()))?;
        let unknown = form::unknown(&file);
        if !unknown.is_empty() {
            let (path, keys) = (path.display().to_string(), unknown.join(", "));
            tracing::warn!(
                path,
                keys,
                "--catalog has keys that OSB 2.17 doesn't have; they are served as they stand"
            );
        }
        Self::of(file, lifetimes).map_err(|wrong| CatalogError::Content(path.to_owned(), wrong))
    }

    fn of(mut file: Map<String, Value>, lifetimes: Lifetimes) -> Result<Self, String> {
        form::check(&file)?;
        let listed = file.get("services").cloned().unwrap_or_default();
        let services: Vec<Service> =
            serde_json::from_value(listed).map_err(|error| format!("services: {error}"))?;
        let plans = ids(&services)?;
        for service in list(&mut file, "services") {
            fill(service, "bindable", json!(true));
            fill(service, "bindings_retrievable", json!(true));
            for plan in list(service, "plans") {
                fill(plan, "binding_rotatable", json!(true));
                fill(
                    plan,
                    "schemas",
                    json!({"service_binding": {"create": {"parameters": schema(lifetimes)}}}),
                );
            }
        }
        Ok(Self { body: Value::Object(file), plans })
    }

    /// The body of the answer.
    #[must_use]
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// Whether there is such a service, with such a plan. One that isn't named is not checked.
    ///
    /// # Errors
    /// [`Problem::Unlisted`] for the first that isn't there.
    pub fn check(&self, service: Option<&str>, plan: Option<&str>) -> Result<(), Problem> {
        let unlisted = |field, listed: Vec<&str>| Err(Problem::Unlisted { field, listed: listed.join(", ") });
        let offered: BTreeSet<&str> = match service.map(|id| self.plans.get(id)) {
            Some(None) => return unlisted("service_id", self.plans.keys().map(String::as_str).collect()),
            Some(Some(plans)) => plans.iter().map(String::as_str).collect(),
            None => self.plans.values().flatten().map(String::as_str).collect(),
        };
        match plan {
            Some(id) if !offered.contains(id) => unlisted("plan_id", offered.into_iter().collect()),
            _ => Ok(()),
        }
    }
}

/// The plans of each service, if all has what the API demands.
fn ids(services: &[Service]) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut once = |id: &str| {
        seen.insert(id.to_owned()).then_some(()).ok_or_else(|| format!("the id '{id}' must be given once"))
    };
    for service in services {
        once(&service.id)?;
        if !names.insert(&service.name) {
            return Err(format!("the service name '{}' must be given once", service.name));
        }
        if service.plans.is_empty() {
            return Err(format!("service '{}' must have a plan", service.name));
        }
        for plan in &service.plans {
            once(&plan.id)?;
        }
    }
    if services.is_empty() {
        return Err("services must have at least one service".to_owned());
    }
    let plans = |service: &Service| service.plans.iter().map(|plan| plan.id.clone()).collect();
    Ok(services.iter().map(|service| (service.id.clone(), plans(service))).collect())
}

fn list<'a>(
    object: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let items = object.get_mut(key).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn fill(object: &mut Map<String, Value>, key: &str, value: Value) {
    object.entry(key).or_insert(value);
}

/// JSON Schema of a bind's `parameters` (OSB 2.17, "Input Parameters Schema Object").
fn schema(Lifetimes { default, min, max }: Lifetimes) -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-06/schema#",
        "type": "object",
        "properties": {"expiration_seconds": {
            "type": "integer", "minimum": min, "maximum": max, "default": default,
            "description": "Lifetime of the kubeconfig in seconds",
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes { default: 600, min: 600, max: 7200 };

    fn catalog(text: &str) -> Result<Catalog, String> {
        Catalog::of(serde_saphyr::from_str(text).unwrap(), LIFETIMES)
    }

    const GOOD: &str = "
services:
- id: s
  name: kyma
  description: Kyma
  tags: [kubernetes]
  plans:
  - {id: p, name: aws, description: AWS}
  - {id: q, name: gcp, description: GCP, binding_rotatable: false}
";

    #[test]
    fn what_only_the_operator_knows_is_filled_in() {
        let catalog = catalog(GOOD).unwrap();
        let service = &catalog.body()["services"][0];
        assert_eq!((&service["bindable"], &service["bindings_retrievable"]), (&json!(true), &json!(true)));
        assert_eq!(service["tags"], json!(["kubernetes"]), "the rest is kept");
        let parameters = &service["plans"][0]["schemas"]["service_binding"]["create"]["parameters"];
        assert_eq!(parameters["properties"]["expiration_seconds"]["maximum"], 7200);
        assert_eq!(service["plans"][0]["binding_rotatable"], true);
        assert_eq!(service["plans"][1]["binding_rotatable"], false, "what is said stays");
    }

    #[test]
    fn only_listed_ids_are_served() {
        let catalog = catalog(GOOD).unwrap();
        let unlisted = |field, listed: &str| Err(Problem::Unlisted { field, listed: listed.to_owned() });
        assert_eq!(catalog.check(Some("s"), Some("q")), Ok(()));
        assert_eq!(catalog.check(None, None), Ok(()));
        assert_eq!(catalog.check(Some("x"), Some("p")), unlisted("service_id", "s"));
        assert_eq!(catalog.check(Some("s"), Some("x")), unlisted("plan_id", "p, q"));
        assert_eq!(catalog.check(None, Some("x")), unlisted("plan_id", "p, q"));
    }

    #[test]
    fn a_catalog_that_breaks_the_api_is_refused() {
        for (text, words) in [
            ("{}", "services must be a list, and is missing"),
            ("services: []", "at least one service"),
            ("services: [{id: s, name: kyma, description: d, plans: []}]", "must have a plan"),
            ("services: [{id: s, name: kyma, plans: []}]", "services[0].description must be given"),
            ("services: [{id: s, name: kyma, description: '', plans: []}]", "must not be empty"),
            (
                "services: [{id: s, name: kyma, description: d, plans: [{id: s, name: p, description: d}]}]",
                "the id 's' must be given once",
            ),
        ] {
            let wrong = catalog(text).unwrap_err();
            assert!(wrong.contains(words), "{words} is not in: {wrong}");
        }
    }
}
