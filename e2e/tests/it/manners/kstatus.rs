//! The rules of kstatus for a kind that it doesn't know, written down anew from its description.

use serde_json::Value;

/// What kstatus says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    InProgress,
    Failed,
    Current,
    Terminating,
}

/// The first rule that fits.
pub fn kstatus(object: &Value) -> Status {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return Status::Terminating;
    }
    let observed = &object["status"]["observedGeneration"];
    if !observed.is_null() && *observed != object["metadata"]["generation"] {
        return Status::InProgress;
    }
    let condition = |kind: &str| {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.clone().find(|c| c["type"] == kind).and_then(|c| c["status"].as_str())
    };
    if condition("Reconciling") == Some("True") {
        return Status::InProgress;
    }
    if condition("Stalled") == Some("True") {
        return Status::Failed;
    }
    match condition("Ready") {
        Some("False" | "Unknown") => Status::InProgress,
        // Without such a condition, what exists is current.
        Some(_) | None => Status::Current,
    }
}
