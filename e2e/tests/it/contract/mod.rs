//! The HTTP contract, row by row, on real API servers.

mod ask;
mod given;
mod rows;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use e2e::Osb;
use e2e::osb::{Answer, answer};
use reqwest::Method;

use given::Given;
use rows::rows;

/// Which broker is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broker {
    /// The operator, without a catalog.
    Plain,
    /// One with the catalog in `examples/`.
    WithCatalog,
    /// One whose control plane does not answer.
    Severed,
    /// One that asks for a password or a token.
    Closed,
    /// One that has as many requests under way as it takes.
    Busy,
}

/// What an answer's body must be.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// A kubeconfig and when it ends.
    Credentials,
    /// The same, with the parameters.
    Fetched,
    /// A sentence with these words.
    Says(&'static str),
    /// OSB's code for the error, and a sentence with these words.
    Coded(&'static str, &'static str),
    /// The name of an operation.
    Operation,
    /// A state of an operation, and a sentence with these words.
    State(&'static str, &'static str),
    /// `{}`.
    Empty,
    /// A catalog.
    Catalog,
}

/// One row of the contract: a request and its answer.
pub struct Row {
    pub what: &'static str,
    pub broker: Broker,
    pub method: Method,
    /// Path and query; `$NAME`, here and in headers, stands for what was saved under that name.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<String>,
    pub status: u16,
    pub answer: Body,
    /// Headers of the answer; an empty value stands for any.
    pub with: Vec<(&'static str, &'static str)>,
    /// Under which name the operation in the answer is saved; one that is there must be the same.
    pub saved: Option<&'static str>,
}

impl Row {
    async fn ask(&self, osb: &Osb, saved: &HashMap<&'static str, String>) -> Answer {
        let filled = |text: &str| {
            saved.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
        };
        let mut request = osb.bare(self.method.clone(), &filled(&self.path));
        if !self.headers.iter().any(|(name, _)| *name == "x-broker-api-version") {
            request = request.header("x-broker-api-version", "2.17");
        }
        // An empty version stands for none.
        for (name, value) in self.headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, filled(value));
        }
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        answer(request).await.unwrap_or_else(|error| panic!("{}: {error:#}", self.what))
    }

    fn check(&self, answer: &Answer) {
        let what = format!("{}: {} {}", self.what, answer.status, answer.description());
        assert_eq!(answer.status, self.status, "{what}");
        assert_eq!(answer.headers["content-type"], "application/json", "{what}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{what}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{what}");
        let later =
            [202, 429, 503].contains(&self.status) || matches!(self.answer, Body::State("in progress", _));
        assert_eq!(answer.headers.contains_key("retry-after"), later, "{what}: Retry-After");
        for (name, value) in &self.with {
            let header = answer.headers.get(*name).unwrap_or_else(|| panic!("{what}: no {name}"));
            assert!(value.is_empty() || header == value, "{what}: {name} is {header:?}");
        }
        let body = &answer.body;
        let shows = matches!(self.answer, Body::Credentials | Body::Fetched);
        assert_eq!(body.get("credentials").is_some(), shows, "{what}: only PUT and GET show credentials");
        match self.answer {
            Body::Credentials | Body::Fetched => {
                assert!(answer.kubeconfig().unwrap().contains("current-context"), "{what}");
                for time in ["expires_at", "renew_before"] {
                    let text = body["metadata"][time].as_str().unwrap();
                    assert!(text.len() == "2026-01-31T12:00:00.0Z".len() && text.ends_with('Z'), "{text}");
                }
                let parameters = &body["parameters"]["expiration_seconds"];
                assert_eq!(parameters.is_i64(), matches!(self.answer, Body::Fetched), "{what}");
            }
            Body::Says(words) => {
                assert!(answer.description().contains(words), "{what}: should say {words}");
                assert!(body.get("error").is_none(), "{what}");
            }
            Body::Coded(code, words) => {
                assert_eq!(body["error"], code, "{what}");
                assert!(answer.description().contains(words), "{what}: should say {words}");
            }
            Body::Operation => assert!(body["operation"].is_string(), "{what}: {body}"),
            Body::State(state, words) => {
                assert_eq!(body["state"], state, "{what}");
                assert!(answer.description().contains(words), "{what}: should say {words}");
            }
            Body::Empty => assert_eq!(body.to_string(), "{}", "{what}"),
            Body::Catalog => {
                let plan = &body["services"][0]["plans"][0];
                assert_eq!(plan["binding_rotatable"], true, "{what}");
                assert_eq!(body["services"][0]["bindings_retrievable"], true, "{what}");
                let create = &plan["schemas"]["service_binding"]["create"]["parameters"];
                assert_eq!(create["properties"]["expiration_seconds"]["maximum"], 7200, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn every_row_of_the_contract_holds() {
    let given = Given::prepare().await;
    let mut saved = given.saved.clone();
    let (rows, mut broken) = (rows(), 0);
    for (number, row) in rows.iter().enumerate() {
        let answer = row.ask(&given.brokers[&row.broker], &saved).await;
        // All rows are asked, so that one run tells all that is wrong.
        let holds = catch_unwind(AssertUnwindSafe(|| row.check(&answer))).is_ok();
        broken += usize::from(!holds);
        if let Some(name) = row.saved {
            let operation = answer.body["operation"].as_str().unwrap().to_owned();
            let first = saved.entry(name).or_insert_with(|| operation.clone());
            assert_eq!(*first, operation, "{}: repeated requests get the same operation", row.what);
        }
        let mark = if holds { '✔' } else { '✗' };
        println!("{mark} {:3} {} {} → {}", number + 1, row.method, row.what, row.status);
    }
    assert_eq!(broken, 0, "rows that don't hold, of {}", rows.len());
    println!("{} rows", rows.len());
    given.check_what_is_left().await;
}
