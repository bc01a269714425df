//! The OpenAPI document of the contract: what every client may rely on, whatever the flags of an
//! operator are. Operations are written once and nested under each prefix.

mod bodies;
mod operations;

use utoipa::OpenApi as _;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{OpenApi, OpenApiBuilder};

/// Prefixes of all paths, and what tells the operations of one from those of another.
const PREFIXES: [(&str, &str); 3] = [("/v2", ""), ("/oauth/v2", "-oauth"), ("/oauth/{region}/v2", "-region")];

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Kyma Bindings",
        version = "2.17",
        description = "Short-lived kubeconfigs for managed Kyma clusters, by the service bindings of the \
            [Open Service Broker API 2.17](https://github.com/cloudfoundry/servicebroker/blob/v2.17/spec.md). \
            The same operations are served under three prefixes.\n\n\
            Every answer is JSON with `Cache-Control: no-store` and `X-Content-Type-Options: nosniff`. A method that an operation doesn't have is \
            answered with 405 and `Allow`, an unknown path with 404, a message without one legal `Host` or with a \
            `Transfer-Encoding` other than `chunked` with 400. `traceparent` and `tracestate` \
            (W3C Trace Context) are taken up.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(
        crate::broker::response::Binding,
        crate::broker::response::Accepted,
        crate::broker::response::LastOperation,
        crate::broker::response::Refusal,
        crate::broker::response::Empty,
        bodies::NewBinding,
        bodies::Rotation,
        bodies::Catalog,
    )),
    security(("basic" = []), ("bearer" = [])),
)]
struct Frame;

/// The document.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = Frame::openapi();
    let components = document.components.get_or_insert_default();
    let mut basic = Http::new(HttpAuthScheme::Basic);
    basic.description = Some("A user of the operator's htpasswd file".to_owned());
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.bearer_format = Some("JWT".to_owned());
    bearer.description = Some("A token of the operator's issuer, with the scope that it asks for".to_owned());
    components.add_security_scheme("basic", SecurityScheme::Http(basic));
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    operations::share(components);
    for (prefix, suffix) in PREFIXES {
        let tag = TagBuilder::new().name(prefix).build();
        let nested = OpenApiBuilder::new().paths(operations::paths(prefix, suffix)).tags(Some([tag]));
        document = document.nest(prefix, nested.build());
    }
    document
}

/// Why the document could not be printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the OpenAPI document as JSON")]
pub struct RenderError(#[from] serde_json::Error);

/// The document as text, as it is printed and served.
///
/// # Errors
/// When it can't be serialized, which would be a defect of its types.
pub fn render() -> Result<String, RenderError> {
    // In one order, whatever the maps of the libraries keep.
    let mut document = serde_json::to_value(document())?;
    document.sort_all_objects();
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_file_in_docs_is_what_the_types_say() {
        let committed = include_str!("../../../docs/openapi.json");
        assert!(
            committed == render().unwrap(),
            "docs/openapi.json has drifted: cargo run -- openapi > docs/openapi.json"
        );
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
        fn walk<'a>(value: &'a serde_json::Value, see: &mut impl FnMut(&'a str, &'a str)) {
            for (key, inner) in value.as_object().into_iter().flatten() {
                match inner.as_str() {
                    Some(text) => see(key, text),
                    None => walk(inner, see),
                }
            }
            value.as_array().into_iter().flatten().for_each(|inner| walk(inner, see));
        }
        let document = serde_json::to_value(document()).unwrap();
        let (mut names, mut references) = (Vec::new(), 0);
        walk(&document, &mut |key, text| {
            if key == "$ref" {
                references += 1;
                assert!(document.pointer(&text[1..]).is_some(), "{text} leads nowhere");
            } else if key == "operationId" {
                names.push(text);
            }
        });
        assert!(references > 0);
        assert_eq!(names.len(), 3 * 5);
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    }

    #[test]
    fn only_the_prefix_tells_the_paths_apart() {
        let document = serde_json::to_value(document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for path in ["/catalog", "/service_instances/{instance_id}/service_bindings/{binding_id}"] {
            for (prefix, _) in PREFIXES {
                assert!(paths.contains_key(&format!("{prefix}{path}")), "{prefix}{path}");
            }
        }
        assert_eq!(document["openapi"], "3.1.0");
    }
}
