//! Whether a catalog has the form that the API gives it (OSB 2.17, "Catalog Management"): each fault with its path.

use serde_json::{Map, Value};

const CATALOG: &[&str] = &["services"];
const SERVICE: &[&str] = &[
    "name",
    "id",
    "description",
    "tags",
    "requires",
    "bindable",
    "instances_retrievable",
    "bindings_retrievable",
    "allow_context_updates",
    "metadata",
    "dashboard_client",
    "plan_updateable",
    "plans",
];
const PLAN: &[&str] = &[
    "id",
    "name",
    "description",
    "metadata",
    "free",
    "bindable",
    "binding_rotatable",
    "plan_updateable",
    "schemas",
    "maximum_polling_duration",
    "maintenance_info",
];
/// Keys of both whose values must be texts.
const TEXTS: &[&str] = &["id", "name", "description"];
/// The same for truth values.
const BOOLEANS: &[&str] = &[
    "bindable",
    "instances_retrievable",
    "bindings_retrievable",
    "allow_context_updates",
    "plan_updateable",
    "free",
    "binding_rotatable",
];

/// Names of keys that the API doesn't have, by their paths: they are served as they stand, and no platform reads them.
pub fn unknown(file: &Map<String, Value>) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut look = |path: &str, object: &Map<String, Value>, known: &[&str]| {
        let strange = object.keys().filter(|key| !known.contains(&key.as_str()));
        unknown.extend(strange.map(|key| format!("{path}{}", printable(key))));
    };
    look("", file, CATALOG);
    for (path, service) in items("services", file.get("services")) {
        look(&format!("{path}."), service, SERVICE);
        for (path, plan) in items(&format!("{path}.plans"), service.get("plans")) {
            look(&format!("{path}."), plan, PLAN);
        }
    }
    unknown
}

/// The first thing that is missing or of another type than it must be.
///
/// # Errors
/// What is wrong, where, and what would be right.
pub fn check(file: &Map<String, Value>) -> Result<(), String> {
    let services = list("services", file.get("services"))?;
    for (path, service) in services {
        let service = object(&path, service)?;
        check_one(&path, service)?;
        for (path, plan) in list(&format!("{path}.plans"), service.get("plans"))? {
            check_one(&path, object(&path, plan)?)?;
        }
    }
    Ok(())
}

fn check_one(path: &str, one: &Map<String, Value>) -> Result<(), String> {
    for key in TEXTS {
        match one.get(*key) {
            Some(Value::String(text)) if !text.is_empty() => {}
            Some(Value::String(_)) => return Err(format!("{path}.{key} must not be empty")),
            None => return Err(format!("{path}.{key} must be given")),
            Some(other) => {
                return Err(format!(
                    "{path}.{key} must be a text, and is {}: put it in quotes",
                    read_as(other)
                ));
            }
        }
    }
    for key in BOOLEANS {
        if let Some(other) = one.get(*key).filter(|value| !value.is_boolean() && !value.is_null()) {
            return Err(format!("{path}.{key} must be true or false, and is {}", read_as(other)));
        }
    }
    Ok(())
}

/// What YAML has made of a value. Words such as `n` are truth values to it, where they have no quotes.
fn read_as(value: &Value) -> String {
    match value {
        Value::Null => "nothing to YAML (null)".to_owned(),
        Value::Bool(truth) => format!("{truth} to YAML, as y, n, yes, no, on and off are"),
        Value::Number(number) => format!("the number {number} to YAML"),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    }
}

fn list<'a>(
    path: &str,
    value: Option<&'a Value>,
) -> Result<impl Iterator<Item = (String, &'a Value)> + use<'a>, String> {
    let form = || format!("{path} must be a list, and is {}", value.map_or("missing".to_owned(), read_as));
    let items = value.and_then(Value::as_array).ok_or_else(form)?;
    let path = path.to_owned();
    Ok(items.iter().enumerate().map(move |(at, item)| (format!("{path}[{at}]"), item)))
}

fn object<'a>(path: &str, value: &'a Value) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{path} must be a map, and is {}", read_as(value)))
}

fn items<'a>(path: &str, value: Option<&'a Value>) -> Vec<(String, &'a Map<String, Value>)> {
    let items = list(path, value).into_iter().flatten();
    items.filter_map(|(path, item)| Some((path, item.as_object()?))).collect()
}

/// A key of a file may be anything.
fn printable(key: &str) -> String {
    key.escape_debug().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Map<String, Value> {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn unknown_keys_are_named_by_their_paths() {
        let text = r#"
servicse: []
services:
- {id: s, name: kyma, bindabel: true, metadata: {anything: 1}, plans: [{id: p}, {id: q, fre: true, "a\u001b[31m": 1}]}
"#;
        let expected = [
            "servicse",
            "services[0].bindabel",
            r"services[0].plans[1].a\u{1b}[31m",
            "services[0].plans[1].fre",
        ];
        let mut unknown = unknown(&file(text));
        unknown.sort();
        let mut expected = expected.map(str::to_owned);
        expected.sort();
        assert_eq!(unknown, expected);
    }

    #[test]
    fn what_yaml_takes_for_no_text_is_told_with_its_path() {
        let plan = |plan: &str| {
            let text = format!("services: [{{id: s, name: kyma, description: d, plans: [{plan}]}}]");
            check(&file(&text)).unwrap_err()
        };
        for (text, said) in [
            (
                "{id: p, name: n, description: d}",
                "services[0].plans[0].name must be a text, and is false to YAML, as y, n, yes, no, on and off are: put it \
                 in quotes",
            ),
            (
                "{id: 7, name: a, description: d}",
                "services[0].plans[0].id must be a text, and is the number 7",
            ),
            (
                "{id: ~, name: a, description: d}",
                "services[0].plans[0].id must be a text, and is nothing to YAML",
            ),
            ("{id: p, name: a}", "services[0].plans[0].description must be given"),
            ("{id: p, name: '', description: d}", "services[0].plans[0].name must not be empty"),
            (
                "{id: p, name: a, description: d, free: maybe}",
                "services[0].plans[0].free must be true or false",
            ),
            ("7", "services[0].plans[0] must be a map, and is the number 7"),
        ] {
            let wrong = plan(text);
            assert!(wrong.starts_with(said), "{said} is not in: {wrong}");
        }
        assert_eq!(check(&file("{}")), Err("services must be a list, and is missing".to_owned()));
    }
}
