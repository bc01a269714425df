//! How rows are written down.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Body, Broker, Row};

pub const IDS: &str = "service_id=s&plan_id=p";

pub fn row(what: &'static str, method: Method, path: String, status: u16, answer: Body) -> Row {
    Row {
        what,
        broker: Broker::Plain,
        method,
        path,
        headers: Vec::new(),
        body: None,
        status,
        answer,
        with: Vec::new(),
        saved: None,
    }
}

impl Row {
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    pub fn to(mut self, broker: Broker) -> Self {
        self.broker = broker;
        self
    }

    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.with.push((name, value));
        self
    }

    pub fn save(mut self, name: &'static str) -> Self {
        self.saved = Some(name);
        self
    }
}

/// The names have a prefix of their own, because other tests share the managed cluster.
pub fn at(instance: &str, binding: &str) -> String {
    format!("/v2/service_instances/i-{instance}/service_bindings/c-{binding}")
}

pub fn ids() -> Value {
    json!({"service_id": "s", "plan_id": "p"})
}

pub fn asking(seconds: &Value) -> Value {
    json!({"service_id": "s", "plan_id": "p", "parameters": {"expiration_seconds": seconds, "other": 1}})
}

pub fn put(what: &'static str, instance: &str, binding: &str, status: u16, answer: Body) -> Row {
    row(what, Method::PUT, at(instance, binding), status, answer).json(&ids())
}

pub fn get(what: &'static str, instance: &str, binding: &str, status: u16, answer: Body) -> Row {
    row(what, Method::GET, at(instance, binding), status, answer)
}

pub fn delete(what: &'static str, instance: &str, binding: &str, status: u16, answer: Body) -> Row {
    row(what, Method::DELETE, format!("{}?{IDS}", at(instance, binding)), status, answer)
}

pub fn poll(what: &'static str, binding: (&str, &str), query: &str, status: u16, answer: Body) -> Row {
    let path = format!("{}/last_operation{query}", at(binding.0, binding.1));
    row(what, Method::GET, path, status, answer)
}
