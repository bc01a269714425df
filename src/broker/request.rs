//! What a request says, checked.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Query;
use axum::http::{HeaderMap, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::LengthLimitError;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::ids::Ids;
use super::message;
use super::operation::Operation;
use crate::api::names::BindingId;
use crate::api::text;
use crate::broker::error::Problem;

/// Largest body, bytes.
const MAX_BODY: usize = 64 * 1024;
/// Longest wait for a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest value of a spec field that only informs, characters.
const MAX_INFO: usize = 256;

/// Header with the version of the API (OSB 2.17, "API Version Header").
pub const VERSION: &str = "x-broker-api-version";
/// Header that names the request (OSB 2.17, "Request Identity").
pub const REQUEST_IDENTITY: &str = "x-broker-api-request-identity";
/// Header that says who is behind it (OSB 2.17, "Originating Identity").
const ORIGINATING_IDENTITY: &str = "x-broker-api-originating-identity";

/// Bounds of a lifetime, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// When none is asked for.
    pub default: i64,
    /// Shortest.
    pub min: i64,
    /// Longest.
    pub max: i64,
}

/// Whether the version header is one that is served.
///
/// # Errors
/// [`Problem::Version`] when it is missing, not `MAJOR.MINOR` or not 2.x.
pub fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    let number = |text: &str| !text.is_empty() && text.len() <= 4 && text.bytes().all(|c| c.is_ascii_digit());
    let version = headers.get(VERSION).and_then(|v| v.to_str().ok()).and_then(|v| v.split_once('.'));
    match version {
        Some(("2", minor)) if number(minor) => Ok(()),
        _ => Err(Problem::Version),
    }
}

/// The query's fields that mean something; each request uses those that are its own.
#[derive(Debug, Deserialize)]
pub struct Asked {
    service_id: Option<String>,
    plan_id: Option<String>,
    accepts_incomplete: Option<String>,
    operation: Option<String>,
}

impl Asked {
    /// Reads a query.
    ///
    /// # Errors
    /// [`Problem::Query`] when it can't be read.
    pub fn read(uri: &Uri) -> Result<Self, Problem> {
        Query::try_from_uri(uri).map(|query| query.0).map_err(|_| Problem::Query)
    }

    /// Whether an answer may come before the end (OSB 2.17, "Asynchronous Operations").
    ///
    /// # Errors
    /// [`Problem::Incomplete`] when it is neither said nor denied.
    pub fn incomplete(&self) -> Result<bool, Problem> {
        match self.accepts_incomplete.as_deref() {
            // Empty is missing, where a field is optional.
            None | Some("" | "false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::Incomplete),
        }
    }

    /// Whether both ids are there, as a DELETE must have them.
    ///
    /// # Errors
    /// [`Problem::Missing`] for the first that isn't.
    pub fn check_ids(&self) -> Result<(), Problem> {
        required("service_id", self.service_id.as_deref())?;
        required("plan_id", self.plan_id.as_deref())?;
        Ok(())
    }

    /// The operation of that binding that is asked for, if one is named.
    ///
    /// # Errors
    /// [`Problem::Operation`] when it can't be one of its.
    pub fn operation(&self, ids: &Ids) -> Result<Option<Operation>, Problem> {
        let said = self.operation.as_deref().filter(|text| !text.is_empty());
        said.map(|text| Operation::parse(text, ids)).transpose()
    }
}

/// What kind of binding is wished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// One with this lifetime in seconds, within the bounds.
    Lifetime(i64),
    /// One as the named other is (OSB 2.17, "Binding Rotation").
    Successor(BindingId),
}

/// What a bind asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct BindRequest {
    /// Its `service_id`; a successor may leave it to its predecessor.
    pub service_id: Option<String>,
    /// Its `plan_id`; likewise.
    pub plan_id: Option<String>,
    /// What is wished.
    pub wish: Wish,
    /// Who asked, if it is said.
    pub created_by: Option<String>,
    /// The request's identity, if it is said.
    pub request_id: Option<String>,
}

impl BindRequest {
    /// Reads a body, no more of it than is allowed, and checks it.
    ///
    /// # Errors
    /// The [`Problem`] with the first thing that is wrong.
    pub async fn read(headers: &HeaderMap, body: Body, lifetimes: Lifetimes) -> Result<Self, Problem> {
        message::check_encoding(headers)?;
        let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY)).await;
        let bytes = read.map_err(|_| Problem::BodyTooSlow)?.map_err(|error| {
            let too_large = error.into_inner().is::<LengthLimitError>();
            if too_large { Problem::BodyTooLarge } else { Problem::BodyNotAnObject }
        })?;
        Self::parse(headers, &bytes, lifetimes)
    }

    /// Checks a body.
    ///
    /// # Errors
    /// The [`Problem`] with the first thing that is wrong.
    pub fn parse(headers: &HeaderMap, body: &[u8], lifetimes: Lifetimes) -> Result<Self, Problem> {
        let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Problem::BodyNotAnObject)?;
        let predecessor = predecessor(&body)?;
        let id = |key: &'static str| match required(key, body.get(key).and_then(Value::as_str)) {
            Err(_) if predecessor.is_some() => Ok(None),
            other => other.map(Some),
        };
        Ok(Self {
            service_id: id("service_id")?,
            plan_id: id("plan_id")?,
            // What it says of its parameters itself doesn't count: they are the predecessor's.
            wish: match predecessor.clone() {
                Some(predecessor) => Wish::Successor(predecessor),
                None => Wish::Lifetime(seconds(&body, lifetimes)?),
            },
            created_by: created_by(&body, headers).as_deref().map(short),
            request_id: identity(headers).map(str::to_owned),
        })
    }
}

fn predecessor(body: &Map<String, Value>) -> Result<Option<BindingId>, Problem> {
    match body.get("predecessor_binding_id") {
        None | Some(Value::Null) => Ok(None),
        // As where a field is optional elsewhere: clients leave out what is empty, or don't.
        Some(Value::String(id)) if id.is_empty() => Ok(None),
        // No binding has an id that can't be one.
        Some(id) => {
            id.as_str().and_then(|id| BindingId::parse(id).ok()).map(Some).ok_or(Problem::Predecessor)
        }
    }
}

fn required(name: &'static str, value: Option<&str>) -> Result<String, Problem> {
    value.map(short).filter(|v| !v.is_empty()).ok_or(Problem::Missing(name))
}

/// `null` and 0 count as missing; the value must be an integer in JSON's sense, no string and no
/// fraction.
fn seconds(body: &Map<String, Value>, lifetimes: Lifetimes) -> Result<i64, Problem> {
    let Lifetimes { default, min, max } = lifetimes;
    let value = match body.get("parameters") {
        None | Some(Value::Null) => None,
        Some(Value::Object(parameters)) => parameters.get("expiration_seconds"),
        Some(_) => return Err(Problem::BodyNotAnObject),
    };
    match value {
        None | Some(Value::Null) => Ok(default),
        Some(value) => match value.as_i64() {
            Some(0) => Ok(default),
            Some(seconds) if (min..=max).contains(&seconds) => Ok(seconds),
            _ => Err(Problem::Expiration { min, max }),
        },
    }
}

/// The context's e-mail and origin, else the originating identity as far as it can be read.
fn created_by(body: &Map<String, Value>, headers: &HeaderMap) -> Option<String> {
    let context = body.get("context");
    let said = |key: &str| context?.get(key)?.as_str().filter(|v| !v.is_empty());
    let parts: Vec<_> = [said("email"), said("origin")].into_iter().flatten().collect();
    if !parts.is_empty() {
        return Some(parts.join(" "));
    }
    let header = header_text(headers, ORIGINATING_IDENTITY)?;
    let decoded = header.split_once(' ').and_then(|(platform, encoded)| {
        let json: Value = serde_json::from_slice(&STANDARD.decode(encoded.trim()).ok()?).ok()?;
        json.is_object().then(|| format!("{platform} {json}"))
    });
    if decoded.is_none() {
        tracing::warn!(
            request_id = identity(headers),
            "X-Broker-API-Originating-Identity is not 'platform base64(json)'; ignored"
        );
    }
    decoded
}

/// The request's identity, where it is one that can be shown: at most 256 printable characters.
pub fn identity(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(REQUEST_IDENTITY)?.to_str().ok()?;
    let legal = (1..=MAX_INFO).contains(&text.len()) && !text.contains(char::is_control);
    legal.then_some(text)
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().filter(|v| !v.is_empty()).map(str::to_owned)
}

/// What the API server takes as text that only informs.
fn short(text: &str) -> String {
    text::shown(text, MAX_INFO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::InstanceId;

    const LIFETIMES: Lifetimes = Lifetimes { default: 600, min: 600, max: 7200 };

    fn parse(body: &str) -> Result<BindRequest, Problem> {
        BindRequest::parse(&HeaderMap::new(), body.as_bytes(), LIFETIMES)
    }

    fn with_seconds(value: &str) -> Result<i64, Problem> {
        let body = format!(
            r#"{{"service_id":"s","plan_id":"p","parameters":{{"expiration_seconds":{value},"x":1}}}}"#
        );
        parse(&body).map(|r| match r.wish {
            Wish::Lifetime(seconds) => seconds,
            Wish::Successor(_) => panic!("no predecessor was named"),
        })
    }

    #[test]
    fn lifetimes_are_integers_within_the_bounds() {
        for (value, expected) in [("600", 600), ("7200", 7200), ("0", 600), ("null", 600), ("601", 601)] {
            assert_eq!(with_seconds(value), Ok(expected));
        }
        for value in ["599", "7201", "600.5", "\"600\"", "true", "-1", "[]", "99999999999999999999", "6e2"] {
            assert_eq!(with_seconds(value), Err(Problem::Expiration { min: 600, max: 7200 }), "{value}");
        }
    }

    #[test]
    fn bodies_are_objects_with_both_ids() {
        for body in ["", "[]", "1", "{", r#"{"service_id":"s","plan_id":"p","parameters":[]}"#] {
            assert_eq!(parse(body), Err(Problem::BodyNotAnObject), "{body}");
        }
        assert_eq!(parse(r#"{"plan_id":"p"}"#), Err(Problem::Missing("service_id")));
        assert_eq!(parse(r#"{"service_id":"s","plan_id":""}"#), Err(Problem::Missing("plan_id")));
        let request = parse(r#"{"service_id":"s","plan_id":"p","unknown":{},"bind_resource":{}}"#).unwrap();
        assert_eq!((request.wish, request.created_by), (Wish::Lifetime(600), None));
    }

    #[test]
    fn a_successor_needs_nothing_but_its_predecessor() {
        let request =
            parse(r#"{"predecessor_binding_id":"a","parameters":{"expiration_seconds":1}}"#).unwrap();
        assert_eq!(request.wish, Wish::Successor(BindingId::parse("a").unwrap()));
        assert_eq!((request.service_id, request.plan_id), (None, None));
        for nobody in ["\"\"", "null"] {
            let body = format!(r#"{{"service_id":"s","plan_id":"p","predecessor_binding_id":{nobody}}}"#);
            assert_eq!(parse(&body).unwrap().wish, Wish::Lifetime(600), "{nobody}");
            let body = format!(r#"{{"plan_id":"p","predecessor_binding_id":{nobody}}}"#);
            assert_eq!(parse(&body), Err(Problem::Missing("service_id")), "{nobody}");
        }
        for bad in ["\"A\"", "\" \"", "1", "false", "{}"] {
            let body = format!(r#"{{"service_id":"s","plan_id":"p","predecessor_binding_id":{bad}}}"#);
            assert_eq!(parse(&body), Err(Problem::Predecessor), "{bad}");
        }
    }

    #[test]
    fn queries_are_read_or_refused() {
        let asked = |query: &str| Asked::read(&format!("/x?{query}").parse().unwrap());
        assert_eq!(asked("accepts_incomplete=true").unwrap().incomplete(), Ok(true));
        assert_eq!(asked("other=%20").unwrap().incomplete(), Ok(false));
        assert_eq!(asked("accepts_incomplete=yes").unwrap().incomplete(), Err(Problem::Incomplete));
        let ids = Ids { instance: InstanceId::parse("i").unwrap(), binding: BindingId::parse("b").unwrap() };
        assert_eq!(asked("operation=x").unwrap().operation(&ids), Err(Problem::Operation));
        assert_eq!(asked("operation=").unwrap().operation(&ids), Ok(None));
        assert_eq!(asked("accepts_incomplete=").unwrap().incomplete(), Ok(false));
        assert_eq!(asked("service_id=s&plan_id=").unwrap().check_ids(), Err(Problem::Missing("plan_id")));
        assert_eq!(asked("plan_id=a&plan_id=b").unwrap_err(), Problem::Query);
    }

    #[test]
    fn the_originator_is_the_context_or_the_header() {
        let body = br#"{"service_id":"s","plan_id":"p","context":{"email":"a@b","origin":"x"}}"#;
        let request = BindRequest::parse(&HeaderMap::new(), body, LIFETIMES).unwrap();
        assert_eq!(request.created_by.as_deref(), Some("a@b x"));
        let by_header = |value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGINATING_IDENTITY, value.parse().unwrap());
            BindRequest::parse(&headers, br#"{"service_id":"s","plan_id":"p"}"#, LIFETIMES)
                .unwrap()
                .created_by
        };
        let encoded = STANDARD.encode(r#"{"user":"u"}"#);
        assert_eq!(by_header(format!("cf {encoded}")).as_deref(), Some(r#"cf {"user":"u"}"#));
        assert_eq!(by_header("nonsense".into()), None);
        let odd = STANDARD.encode("{\"user\":\"\u{9b}2J\u{202e}u\"}");
        assert_eq!(
            by_header(format!("cf {odd}")).as_deref(),
            Some(r#"cf {"user":"2Ju"}"#),
            "nothing for terminals"
        );
    }

    #[test]
    fn only_version_two_is_served() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(VERSION, value.parse().unwrap());
            check_version(&headers).is_ok()
        };
        assert!(check("2.14") && check("2.17") && check("2.0"));
        for bad in ["", "2", "3.0", "1.9", "2.x", "2.", "v2.1", "2.14.1"] {
            assert!(!check(bad), "{bad}");
        }
        assert_eq!(check_version(&HeaderMap::new()), Err(Problem::Version));
    }
}
