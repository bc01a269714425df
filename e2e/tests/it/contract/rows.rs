//! The table. What each row is about is said in the words of the contract.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use super::ask::{IDS, asking, at, delete, get, ids, poll, put, row};
use super::{Body, Broker, Row};

/// All rows, in the order in which they are asked.
pub fn rows() -> Vec<Row> {
    let sections = [
        every_request(),
        access(),
        binds(),
        refusals(),
        rotations(),
        fetches(),
        asynchronous(),
        unbinds(),
        catalog(),
    ];
    sections.into_iter().flatten().collect()
}

fn every_request() -> Vec<Row> {
    let version = |what, value: &str| {
        get(what, "ready", "bound-1", 412, Body::Says("2.17")).header("x-broker-api-version", value)
    };
    let wrong_body = |what, body: &str| {
        row(what, Method::PUT, at("ready", "never-1"), 400, Body::Says("JSON object")).body(body)
    };
    let method = |what, path: String, allowed| {
        row(what, Method::POST, path, 405, Body::Says("Allow")).json(&ids()).with("allow", allowed)
    };
    let region = |what, name: &str| {
        row(what, Method::GET, format!("/oauth/{name}{}", at("ready", "bound-1")), 404, Body::Says("region"))
    };
    let who = STANDARD.encode(r#"{"user_id":"u"}"#);
    vec![
        version("no version", ""),
        version("a version that is not MAJOR.MINOR", "2"),
        version("a version that is not 2.x", "3.0"),
        get("the request's identity is echoed", "ready", "bound-1", 200, Body::Fetched)
            .header("x-broker-api-request-identity", "req-1")
            .with("x-broker-api-request-identity", "req-1"),
        get("it is echoed by errors, too", "ready", "never-1", 404, Body::Says("does not exist"))
            .header("x-broker-api-request-identity", "req-2")
            .with("x-broker-api-request-identity", "req-2"),
        put("the originating identity is kept", "ready", "originator-1", 201, Body::Credentials)
            .header("x-broker-api-originating-identity", format!("cf {who}")),
        put("a malformed originating identity is tolerated", "ready", "originator-1", 200, Body::Credentials)
            .header("x-broker-api-originating-identity", "nonsense"),
        put("a binding id that can't be a name", "ready", "UPPER", 400, Body::Says("1 to 240 characters")),
        put("a binding id that is too long", "ready", &"x".repeat(241), 400, Body::Says("binding_id")),
        put("an id that isn't UTF-8 once decoded", "ready", "%ff", 400, Body::Says("binding_id")),
        put("an instance id that isn't UTF-8", "%ff", "never-1", 400, Body::Says("instance_id")),
        put("an id with a slash once decoded", "ready", "a%2Fb", 400, Body::Says("binding_id")),
        put("an instance id that can't be a label", "a%20b", "never-1", 400, Body::Says("instance_id")),
        row("a path that leads nowhere", Method::GET, "/v2/nothing".into(), 404, Body::Says("nothing at")),
        method("a method that a binding doesn't have", at("ready", "bound-1"), "GET,HEAD,PUT,DELETE"),
        method(
            "one that the last operation doesn't have",
            at("ready", "bound-1") + "/last_operation",
            "GET,HEAD",
        ),
        method("one that the catalog doesn't have", "/v2/catalog".into(), "GET,HEAD"),
        row(
            "a doubled slash at the beginning",
            Method::GET,
            format!("/{}", at("ready", "never-1")),
            404,
            Body::Says("binding does not exist"),
        ),
        row(
            "slashes beyond that",
            Method::GET,
            format!("//{}", at("ready", "never-1")),
            404,
            Body::Says("nothing at"),
        ),
        region("a region of dots", "..."),
        region("a region with a slash once decoded", "a%2Fb"),
        region("a region that isn't UTF-8 once decoded", "%ff"),
        get("a Host that is none", "ready", "never-1", 400, Body::Says("Host")).header("host", "a@b"),
        put("a body that is packed", "ready", "never-1", 415, Body::Says("content encoding gzip"))
            .header("content-encoding", "gzip")
            .with("accept-encoding", "identity"),
        put("a body that says it isn't", "ready", "never-1", 400, Body::Says("JSON object"))
            .header("content-encoding", "identity")
            .body("no"),
        put("a body over 64 KiB", "ready", "never-1", 413, Body::Says("65536")).body(" ".repeat(65 * 1024)),
        get("a request line too long", "ready", &"x".repeat(9 * 1024), 414, Body::Says("8192")),
        get("a head too large", "ready", "bound-1", 431, Body::Says("32768"))
            .header("x-large", "v".repeat(33 * 1024)),
        wrong_body("a body that is not JSON", "{"),
        wrong_body("a body that is no object", "[]"),
        wrong_body("no body", ""),
        put("the control plane is silent", "ready", "never-1", 503, Body::Says("control plane"))
            .to(Broker::Severed),
        get("the control plane is silent for a fetch", "ready", "bound-1", 503, Body::Says("control plane"))
            .to(Broker::Severed),
        delete("and for an unbind", "ready", "bound-1", 503, Body::Says("control plane")).to(Broker::Severed),
    ]
}

fn access() -> Vec<Row> {
    let get = |what, status, answer| get(what, "ready", "never-1", status, answer).to(Broker::Closed);
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    let ways = "Basic realm=\"kyma-bindings\", charset=\"UTF-8\"";
    let nowhere =
        row("an unknown path comes before it", Method::GET, "/v2/x".into(), 404, Body::Says("nothing at"));
    let method = row("and so does a wrong method", Method::POST, at("ready", "x"), 405, Body::Says("Allow"));
    vec![
        get("no credentials", 401, Body::Says("Authorization")).with("www-authenticate", ways),
        get("they come before the version", 401, Body::Says("Authorization"))
            .with("www-authenticate", ways)
            .header("x-broker-api-version", ""),
        get("a wrong password", 401, Body::Says("must be right"))
            .with("www-authenticate", ways)
            .header("authorization", basic("anna:wrong")),
        get("a scheme that is not offered", 401, Body::Says("WWW-Authenticate"))
            .with("www-authenticate", ways)
            .header("authorization", "Digest x"),
        get("what is no token", 401, Body::Says("JWT"))
            .with("www-authenticate", "")
            .header("authorization", "Bearer x"),
        get("a token without the scope", 403, Body::Says("scope"))
            .with("www-authenticate", "")
            .header("authorization", "Bearer $scopeless"),
        get("a token with the scope", 404, Body::Says("does not exist"))
            .header("authorization", "Bearer $token"),
        get("credentials twice", 400, Body::Says("Authorization"))
            .header("authorization", basic("anna:right"))
            .header("authorization", basic("anna:right")),
        get("the right password", 404, Body::Says("does not exist"))
            .header("authorization", basic("anna:right")),
        nowhere.to(Broker::Closed),
        method.to(Broker::Closed).with("allow", "GET,HEAD,PUT,DELETE"),
        get("another host than this machine, where nobody is asked", 403, Body::Says("Host"))
            .to(Broker::Plain)
            .header("host", "kyma.example.com"),
        get("too many requests under way", 429, Body::Says("too many requests")).to(Broker::Busy),
    ]
}

fn binds() -> Vec<Row> {
    let prefix = |what, prefix: &str, status| {
        row(what, Method::PUT, format!("{prefix}{}", at("ready", "made-1")), status, Body::Credentials)
            .json(&ids())
    };
    let counts_as_missing =
        |what, value: Value| put(what, "ready", "made-1", 200, Body::Credentials).json(&asking(&value));
    let wrong = |what, value: Value| {
        put(what, "ready", "never-1", 400, Body::Says("between 600 and 7200")).json(&asking(&value))
    };
    let missing = |what, body: &Value, name| put(what, "ready", "never-1", 400, Body::Says(name)).json(body);
    let different = "binding already exists but with different parameters";
    let mut of_nobody = ids();
    of_nobody["predecessor_binding_id"] = json!("");
    vec![
        prefix("created by this request", "", 201),
        put("an empty predecessor is none", "ready", "made-1", 200, Body::Credentials).json(&of_nobody),
        prefix("same id and parameters, by /oauth", "/oauth", 200),
        prefix("same id and parameters, by /oauth/{region}", "/oauth/cf-eu10", 200),
        counts_as_missing("an expiration of null counts as missing", json!(null)),
        counts_as_missing("an expiration of 0 counts as missing", json!(0)),
        counts_as_missing("the default said aloud is the same", json!(600)),
        put("another expiration", "ready", "made-1", 409, Body::Says(different)).json(&asking(&json!(700))),
        put("another instance", "full", "made-1", 409, Body::Says("another instance")),
        put("expired but not yet removed", "ready", "expired-1", 201, Body::Credentials),
        put(
            "expired, and not to be removed now",
            "dying",
            "over-1",
            422,
            Body::Coded("ConcurrencyError", "deleted"),
        ),
        put("being deleted", "dying", "deleting-1", 422, Body::Coded("ConcurrencyError", "being deleted")),
        wrong("a fraction", json!(600.5)),
        wrong("a string", json!("600")),
        wrong("a truth", json!(true)),
        wrong("a number beyond 64 bits", json!(1e30)),
        put("an integer beyond 64 bits", "ready", "never-1", 400, Body::Says("between 600 and 7200")).body(
            r#"{"service_id":"s","plan_id":"p","parameters":{"expiration_seconds":99999999999999999999}}"#,
        ),
        wrong("below the minimum", json!(599)),
        wrong("above the maximum", json!(7201)),
        missing("service_id missing", &json!({"plan_id": "p"}), "service_id"),
        missing("plan_id empty", &json!({"service_id": "s", "plan_id": ""}), "plan_id"),
        put(
            "an odd accepts_incomplete",
            "ready",
            "never-1?accepts_incomplete=1",
            400,
            Body::Says("true or false"),
        ),
        delete("clean up", "ready", "made-1", 200, Body::Empty),
    ]
}

fn refusals() -> Vec<Row> {
    vec![
        put("unknown instance", "nobody", "never-1", 404, Body::Says("instance does not exist")),
        put("suspended instance", "suspended", "never-1", 404, Body::Says("instance does not exist")),
        put(
            "instance being provisioned",
            "provisioning",
            "never-1",
            400,
            Body::Says("creation is in progress"),
        ),
        put("provisioning failed", "failed", "never-1", 400, Body::Says("creation failed")),
        put(
            "plan not bindable",
            "trial",
            "never-1",
            422,
            Body::Coded("BindingNotSupported", "bindable plans: aws"),
        ),
        put(
            "over the limit",
            "full",
            "never-1",
            400,
            Body::Says("maximum number of non expired bindings reached: 4"),
        ),
        put(
            "something of our name isn't ours",
            "ready",
            "claimed-1",
            409,
            Body::Says("kyma-binding-c-claimed-1"),
        ),
        put("two Secrets claim the instance", "ambiguous", "never-1", 503, Body::Says("both claim")),
        put("a kubeconfig that isn't acceptable", "refused", "never-1", 503, Body::Says("kubeconfig")),
        put("not ready in time", "dead", "dead-1", 503, Body::Says("not ready yet")),
        delete("its orphan mitigation", "dead", "dead-1", 200, Body::Empty),
    ]
}

fn rotations() -> Vec<Row> {
    let successor = |what, status, answer, instance: &str, of: &str| {
        put(what, instance, "successor-1", status, answer)
            .json(&json!({"predecessor_binding_id": format!("c-{of}")}))
    };
    let refused = |what, instance: &str, of: &str| {
        successor(what, 400, Body::Says("predecessor_binding_id"), instance, of)
    };
    vec![
        refused("predecessor unknown", "full", "never-1"),
        refused("predecessor of another instance", "full", "bound-1"),
        refused("predecessor expired", "dying", "over-1"),
        refused("predecessor of no legal name", "full", "UPPER"),
        refused("predecessor that is itself", "full", "successor-1"),
        successor("a successor, at the limit", 201, Body::Credentials, "full", "full-1"),
        successor("the same again", 200, Body::Credentials, "full", "full-1"),
        successor("of another predecessor", 409, Body::Says("different parameters"), "full", "full-2"),
        put("a second successor needs a place", "full", "successor-2", 400, Body::Says("maximum number"))
            .json(&json!({"predecessor_binding_id": "c-full-1"})),
        get("the predecessor works on", "full", "full-1", 200, Body::Fetched),
    ]
}

fn fetches() -> Vec<Row> {
    let none = Body::Says("binding does not exist");
    vec![
        get("a binding", "ready", "bound-1", 200, Body::Fetched),
        get("with hints", "ready", &format!("bound-1?{IDS}"), 200, Body::Fetched),
        get("unknown binding", "ready", "never-1", 404, none),
        get("unknown instance", "nobody", "never-2", 404, none),
        get("expired", "dying", "over-1", 404, Body::Says("has expired")),
        get(
            "suspended instance",
            "suspended",
            "suspended-1",
            404,
            Body::Says("instance does not exist: it is suspended"),
        ),
        get("binding of another instance", "full", "bound-1", 404, Body::Says("another instance")),
        get("being deleted", "dying", "deleting-1", 404, Body::Says("being deleted")),
        get("rejected", "full", "rejected-1", 404, Body::Says("maximum number")),
    ]
}

fn asynchronous() -> Vec<Row> {
    let incomplete = "async-1?accepts_incomplete=true";
    vec![
        put("there in time after all", "ready", "quick-1?accepts_incomplete=true", 201, Body::Credentials),
        row(
            "an unbind that is done in time",
            Method::DELETE,
            format!("{}?{IDS}&accepts_incomplete=true", at("ready", "quick-1")),
            200,
            Body::Empty,
        ),
        put("not ready after a short wait", "dead", incomplete, 202, Body::Operation).save("bind"),
        put("repeated", "dead", incomplete, 202, Body::Operation).save("bind"),
        poll(
            "a bind in progress",
            ("dead", "async-1"),
            "?operation=$bind",
            200,
            Body::State("in progress", "managed cluster"),
        ),
        poll("without its operation", ("dead", "async-1"), "", 200, Body::State("in progress", "being made")),
        get("still being made", "dead", "async-1", 404, Body::Says("still being made: ")),
        poll(
            "an operation of no legal form",
            ("dead", "async-1"),
            "?operation=x",
            400,
            Body::Says("operation"),
        ),
        poll(
            "another binding's operation",
            ("ready", "bound-1"),
            "?operation=$bind",
            400,
            Body::Says("operation"),
        ),
        poll("a bind that succeeded", ("ready", "bound-1"), "", 200, Body::State("succeeded", "ready")),
        poll("a bind that failed", ("full", "rejected-1"), "", 200, Body::State("failed", "maximum number")),
        poll("a binding that never was", ("ready", "never-1"), "", 404, Body::Says("does not exist")),
        poll("another instance's", ("full", "bound-1"), "", 404, Body::Says("does not exist")),
        delete("still being made: halted and removed", "dead", "async-1", 200, Body::Empty),
        poll(
            "a bind that was removed",
            ("dead", "async-1"),
            "?operation=$bind",
            200,
            Body::State("failed", "bind again"),
        ),
        row(
            "an unbind that takes longer",
            Method::DELETE,
            format!("{}?{IDS}&accepts_incomplete=true", at("dying", "deleting-1")),
            202,
            Body::Operation,
        )
        .save("deleting"),
        poll(
            "an unbind in progress",
            ("dying", "deleting-1"),
            "?operation=$deleting",
            200,
            Body::State("in progress", "being removed"),
        ),
        delete("not removed within the time limit", "dying", "dying-1", 503, Body::Says("not removed yet")),
        poll(
            "another binding's unbind",
            ("ready", "bound-1"),
            "?operation=$deleting",
            400,
            Body::Says("operation"),
        ),
        poll("an unbind that is done", ("mended", "mended-1"), "?operation=$mended", 410, Body::Empty),
    ]
}

fn unbinds() -> Vec<Row> {
    let without = |what, query: &str, name| {
        row(what, Method::DELETE, format!("{}?{query}", at("ready", "bound-1")), 400, Body::Says(name))
    };
    vec![
        put("to be removed", "ready", "removed-1", 201, Body::Credentials),
        without("service_id missing", "plan_id=p", "service_id"),
        without("plan_id empty", "service_id=s&plan_id=", "plan_id"),
        without("the same name twice", "service_id=s&service_id=s&plan_id=p", "query"),
        delete("removed", "ready", "removed-1", 200, Body::Empty),
        delete("unknown binding", "ready", "removed-1", 410, Body::Empty),
        delete("binding of another instance", "full", "bound-1", 410, Body::Empty),
        delete("unknown instance", "nobody", "never-2", 410, Body::Empty),
        delete("an id that no binding can have", "ready", "UPPER", 400, Body::Says("lower case")),
        delete("an id that no instance can have", "-", "never-1", 400, Body::Says("instance_id")),
        delete("suspended instance", "suspended", "suspended-1", 200, Body::Empty),
        delete("once nothing of it is left", "suspended", "suspended-1", 410, Body::Empty),
    ]
}

fn catalog() -> Vec<Row> {
    let listed = json!({"service_id": "47c9dcbf-ff30-448e-ab36-d3bad66ba281",
        "plan_id": "361c511f-f939-4621-b228-d0fb79a1fe15"});
    let mut of_another = listed.clone();
    of_another["plan_id"] = json!("p");
    let bind = |what, status, answer| put(what, "ready", "listed-1", status, answer).to(Broker::WithCatalog);
    vec![
        row("no catalog", Method::GET, "/v2/catalog".into(), 404, Body::Says("--catalog")),
        row("the catalog", Method::GET, "/v2/catalog".into(), 200, Body::Catalog).to(Broker::WithCatalog),
        bind("a service that is not in the catalog", 400, Body::Says("service_id is not in the catalog")),
        bind("a plan that is not in the catalog", 400, Body::Says("plan_id is not in the catalog"))
            .json(&of_another),
        bind("listed ids", 201, Body::Credentials).json(&listed),
        delete("clean up", "ready", "listed-1", 200, Body::Empty).to(Broker::WithCatalog),
    ]
}
