//! The operations, with every status they answer with.

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem, Paths,
    PathsBuilder,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder, ResponsesBuilder};
use utoipa::openapi::schema::{Components, ObjectBuilder, Type};
use utoipa::openapi::{Ref, Required};

use super::bodies::{self, Catalog};
use crate::api::names::{BINDING_ID_MAX, INSTANCE_ID_MAX};
use crate::broker::response::{Accepted, Binding, Empty, LastOperation, Refusal};

const REQUEST_IDENTITY: &str = "X-Broker-API-Request-Identity";
const JSON: &str = "application/json";
const BINDING: &str = "/service_instances/{instance_id}/service_bindings/{binding_id}";

/// What any operation may answer with: status, name and what it means.
const COMMON: [(u16, &str, &str); 9] = [
    (401, "Unauthenticated", "No credentials, or none that are accepted."),
    (
        403,
        "Forbidden",
        "The token is good but lacks the scope that is asked for; or nobody is authenticated here, and `Host` is not this machine.",
    ),
    (408, "TooSlow", "The request did not arrive in time."),
    (
        412,
        "Version",
        "`X-Broker-API-Version` is missing or is no version that is served; the description names those that are.",
    ),
    (413, "BodyTooLarge", "The body is longer than 64 KiB."),
    (414, "PathTooLong", "The request line is too long."),
    (429, "Overloaded", "Too many requests are under way."),
    (431, "HeadersTooLarge", "The headers are too large."),
    (
        503,
        "Unavailable",
        "It can't be done now: the control plane or the managed cluster does not answer or refuses, or it takes longer than \
        a request may wait. What was begun goes on; the same request asks for its end.",
    ),
];

/// Adds the answers, headers and parameters that operations share, by name.
pub(super) fn share(components: &mut Components) {
    let method = (405, "WrongMethod", "This path has other methods; `Allow` names them.");
    for (status, name, meaning) in COMMON.into_iter().chain([method]) {
        components.responses.insert(name.to_owned(), refusal(status, meaning).into());
    }
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    for (name, header) in [
        ("RequestIdentity", told("That of the request, if it had one.")),
        ("CacheControl", told("Always `no-store`.")),
        ("ContentTypeOptions", told("Always `nosniff`.")),
        ("RetryAfter", described("Seconds after which to ask again.", seconds)),
    ] {
        components.headers.insert(name.to_owned(), header.into());
    }
    for (name, parameter) in parameters() {
        components.parameters.insert(name.to_owned(), parameter.into());
    }
}

/// The operations under `prefix`; `suffix` keeps their names apart from those of other prefixes.
pub(super) fn paths(prefix: &str, suffix: &str) -> Paths {
    let finish = |name: &str, mut operation: OperationBuilder| -> Operation {
        if prefix.contains("{region}") {
            operation = operation.parameter_ref(parameter_ref("Region"));
        }
        if prefix.contains("{region}") && name == "unbind" {
            operation = operation.response("404", refusal(404, "There is no such region."));
        }
        common(operation).operation_id(Some(format!("{name}{suffix}"))).tag(prefix).build()
    };
    let mut binding = PathItem::new(HttpMethod::Put, finish("bind", bind()));
    binding.get = Some(finish("fetch", fetch()));
    binding.delete = Some(finish("unbind", unbind()));
    PathsBuilder::new()
        .path(BINDING, binding)
        .path(
            format!("{BINDING}/last_operation"),
            PathItem::new(HttpMethod::Get, finish("last_operation", last_operation())),
        )
        .path("/catalog", PathItem::new(HttpMethod::Get, finish("catalog", catalog())))
        .build()
}

fn bind() -> OperationBuilder {
    let operation = OperationBuilder::new()
        .summary(Some("Make a binding"))
        .description(Some(
            "Makes a kubeconfig, or answers with the one that the same request has made. Identical requests share one binding.",
        ))
        .parameter(accepts_incomplete())
        .request_body(Some(bind_body()));
    let responses = ResponsesBuilder::new()
        .response("200", success::<Binding>("The same binding exists already; its kubeconfig."))
        .response("201", success::<Binding>("The binding was made; its kubeconfig."))
        .response("202", accepted("It takes longer, and goes on."))
        .response("400", refusal(400, "An id, a field or a parameter can't be used, the limit of unexpired bindings is reached, or the \
            instance is being provisioned or has failed."))
        .response("404", refusal(404, "The instance does not exist."))
        .response("415", refusal(415, "The body has a content encoding; it must be sent as it is."))
        .response("409", refusal(409, "The id is taken: by a binding with other parameters or of another instance, by one whose access was \
            lost, or by something in the managed cluster that isn't ours."))
        .response("422", refusal(422, "`ConcurrencyError`: the binding is being deleted. `BindingNotSupported`: the instance's plan has no \
            bindings."));
    ids(operation).responses(responses)
}

fn fetch() -> OperationBuilder {
    let operation = OperationBuilder::new()
        .summary(Some("Fetch a binding"))
        .description(Some("Answers with the kubeconfig of a binding that is made and has not ended."))
        .parameter(query("service_id", "A hint.", false, text("kyma")))
        .parameter(query("plan_id", "A hint.", false, text("aws")));
    let responses = ResponsesBuilder::new()
        .response("200", success::<Binding>("The binding, with the parameters it was made with."))
        .response("400", refusal(400, "An id can't be used."))
        .response(
            "404",
            refusal(404, "There is no such binding of that instance, it has expired, it is still being made or being deleted, or it was refused: \
                the description says which."),
        );
    ids(operation).responses(responses)
}

fn unbind() -> OperationBuilder {
    let operation = OperationBuilder::new()
        .summary(Some("Delete a binding"))
        .description(Some("Answers when the kubeconfig's token is refused by the managed cluster and nothing of the binding is left."))
        .parameter(query("service_id", "Id of the service.", true, text("kyma")))
        .parameter(query("plan_id", "Id of the plan.", true, text("aws")))
        .parameter(accepts_incomplete());
    let responses = ResponsesBuilder::new()
        .response("200", success::<Empty>("It is gone."))
        .response("202", accepted("It takes longer, and goes on."))
        .response("400", refusal(400, "An id can't be used, or `service_id` or `plan_id` is missing."))
        .response("410", success::<Empty>("There is no such binding of that instance."));
    ids(operation).responses(responses)
}

fn last_operation() -> OperationBuilder {
    let operation = OperationBuilder::new()
        .summary(Some("Ask how far an operation is"))
        .parameter(query(
            "operation",
            "What the 202 named.",
            false,
            text("bind-6f7ce4f2-6a1b-4e7c-9b0a-5f6c1f0f9d11-0a1b2c3d"),
        ))
        .parameter(query("service_id", "A hint.", false, text("kyma")))
        .parameter(query("plan_id", "A hint.", false, text("aws")));
    let state = answer::<LastOperation>("How far it is.").header_ref("Retry-After", header_ref("RetryAfter"));
    let responses = ResponsesBuilder::new()
        .response("200", state.build())
        .response("400", refusal(400, "An id can't be used, or `operation` is none of this binding."))
        .response(
            "404",
            refusal(404, "There is no such binding of that instance, and no operation was named."),
        )
        .response("410", success::<Empty>("The binding was deleted and is gone."));
    ids(operation).responses(responses)
}

fn catalog() -> OperationBuilder {
    let responses = ResponsesBuilder::new()
        .response("200", success::<Catalog>("The services and their plans."))
        .response("400", refusal(400, "`Authorization` is given more than once."))
        .response("404", refusal(404, "This operator has no catalog."));
    OperationBuilder::new()
        .summary(Some("List services and plans"))
        .description(Some("Served where the operator has a catalog (`--catalog`)."))
        .responses(responses)
}

/// Adds what all operations share.
fn common(operation: OperationBuilder) -> OperationBuilder {
    let operation = ["Version", "RequestIdentity", "OriginatingIdentity"]
        .into_iter()
        .fold(operation, |operation, name| operation.parameter_ref(parameter_ref(name)));
    COMMON.iter().fold(operation, |operation, (status, name, _)| {
        operation.response(status.to_string(), Ref::from_response_name(*name))
    })
}

fn ids(operation: OperationBuilder) -> OperationBuilder {
    operation.parameter_ref(parameter_ref("InstanceId")).parameter_ref(parameter_ref("BindingId"))
}

fn parameters() -> [(&'static str, Parameter); 6] {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let version = text().pattern(Some(r"^2\.[0-9]{1,4}$")).default(Some(json!("2.17")));
    let printable = || text().pattern(Some("^[!-~]([ -~]*[!-~])?$")).max_length(Some(256));
    let region = text().pattern(Some("^[-A-Za-z0-9_.]*[-A-Za-z0-9_][-A-Za-z0-9_.]*$"));
    let instance = text().min_length(Some(1)).max_length(Some(INSTANCE_ID_MAX));
    let instance = instance.pattern(Some("^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"));
    let binding = text().min_length(Some(1)).max_length(Some(BINDING_ID_MAX));
    let binding = binding.pattern(Some(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"));
    let version_says = "Version of the API that the client speaks.";
    let request_says = "Names the request; echoed, logged and kept with the binding.";
    let originator_says = "Who is behind the request: a platform's name and base64 of a JSON object. Kept with the \
        binding where its context says nothing; a malformed one is ignored.";
    [
        ("Version", header("X-Broker-API-Version", version_says, true, version)),
        ("RequestIdentity", header(REQUEST_IDENTITY, request_says, false, printable())),
        (
            "OriginatingIdentity",
            header("X-Broker-API-Originating-Identity", originator_says, false, printable()),
        ),
        (
            "Region",
            path_parameter(
                "region",
                "Any one segment of letters, digits, `-`, `_` and `.`, but not of dots alone.",
                region,
                "cf-eu10",
            ),
        ),
        ("InstanceId", path_parameter("instance_id", "Id of the instance.", instance, "my-instance")),
        (
            "BindingId",
            path_parameter("binding_id", "Id of the binding; globally unique.", binding, "my-binding"),
        ),
    ]
}

fn bind_body() -> RequestBody {
    let example = json!({"service_id": "kyma", "plan_id": "aws", "parameters": {"expiration_seconds": 600}});
    let content = ContentBuilder::new().schema(Some(bodies::bind())).example(Some(example));
    RequestBodyBuilder::new()
        .description(Some("The wish, or the binding that it takes over from; at most 64 KiB."))
        .content(JSON, content.build())
        .required(Some(Required::True))
        .build()
}

fn success<T: ToSchema>(meaning: &str) -> Response {
    answer::<T>(meaning).build()
}

fn accepted(meaning: &str) -> Response {
    answer::<Accepted>(meaning).header_ref("Retry-After", header_ref("RetryAfter")).build()
}

fn refusal(status: u16, meaning: &str) -> Response {
    let response = answer::<Refusal>(meaning);
    match status {
        401 => response.header("WWW-Authenticate", told("Which credentials are accepted.")),
        405 => response.header("Allow", told("The methods that this path has.")),
        415 => response.header("Accept-Encoding", told("Always `identity`.")),
        429 | 503 => response.header_ref("Retry-After", header_ref("RetryAfter")),
        _ => response,
    }
    .build()
}

fn answer<T: ToSchema>(meaning: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name())));
    ResponseBuilder::new()
        .description(meaning)
        .content(JSON, content.build())
        .header_ref(REQUEST_IDENTITY, header_ref("RequestIdentity"))
        .header_ref("Cache-Control", header_ref("CacheControl"))
        .header_ref("X-Content-Type-Options", header_ref("ContentTypeOptions"))
}

fn told(meaning: &str) -> Header {
    described(meaning, ObjectBuilder::new().schema_type(Type::String))
}

fn described(meaning: &str, schema: ObjectBuilder) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(meaning)).build()
}

fn header_ref(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

fn parameter_ref(name: &str) -> Ref {
    Ref::new(format!("#/components/parameters/{name}"))
}

fn accepts_incomplete() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::Boolean).default(Some(json!(false)));
    query("accepts_incomplete", "Whether 202 is welcome when it takes longer.", false, schema)
}

fn text(example: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).examples([json!(example)])
}

fn query(name: &str, meaning: &str, required: bool, schema: ObjectBuilder) -> Parameter {
    parameter(ParameterIn::Query, name, meaning, required, schema)
}

fn header(name: &str, meaning: &str, required: bool, schema: ObjectBuilder) -> Parameter {
    parameter(ParameterIn::Header, name, meaning, required, schema)
}

fn path_parameter(name: &str, meaning: &str, schema: ObjectBuilder, example: &str) -> Parameter {
    parameter(ParameterIn::Path, name, meaning, true, schema.examples([json!(example)]))
}

fn parameter(
    place: ParameterIn,
    name: &str,
    meaning: &str,
    required: bool,
    schema: ObjectBuilder,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .description(Some(meaning))
        .required(if required { Required::True } else { Required::False })
        .schema(Some(schema))
        .build()
}
