//! Where the access of a binding was made. It is written beside the kubeconfig, onto the Secret: the status
//! is output, which whoever may edit it can forge, and marks in a managed cluster can be taken off there.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::names::ACCESS;
use crate::cluster::Uids;
use crate::support::codec::{pack, unpack};

/// What was made, where, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The runtime.
    pub runtime_id: String,
    /// UID of its `kube-system`.
    pub cluster_id: String,
    /// When the kubeconfig ends.
    pub expires_at: Timestamp,
    /// The objects.
    pub uids: Uids,
}

impl Record {
    /// The annotation that says it.
    ///
    /// # Errors
    /// Never: all of it is text.
    pub fn annotations(&self) -> Result<BTreeMap<String, String>, serde_json::Error> {
        Ok([(ACCESS.to_owned(), serde_json::to_string(self)?)].into())
    }

    /// What the annotations say, if they say it in our form.
    #[must_use]
    pub fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        serde_json::from_str(annotations.get(ACCESS)?).ok()
    }
}

/// A record as it is remembered: of each binding there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered(Arc<[u8]>);

/// What all of them say.
static ALIKE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let uids = Uids::all_named("");
    let typical = Record {
        runtime_id: String::new(),
        cluster_id: String::new(),
        expires_at: Timestamp::UNIX_EPOCH,
        uids,
    };
    serde_json::to_vec(&typical).unwrap_or_default()
});

impl Remembered {
    /// Remembers a record.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        pack(record, &ALIKE).map(|packed| Self(packed.into()))
    }

    /// The record.
    #[must_use]
    pub fn get(&self) -> Option<Record> {
        unpack(&self.0, &ALIKE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nothing_else() {
        let record = Record {
            runtime_id: "r".into(),
            cluster_id: "c".into(),
            expires_at: Timestamp::UNIX_EPOCH,
            uids: Uids::default(),
        };
        let mut written = record.annotations().unwrap();
        assert_eq!(Remembered::of(&record).and_then(|remembered| remembered.get()).as_ref(), Some(&record));
        assert_eq!(Record::read(&written), Some(record));
        for odd in ["", "null", "[]", r#"{"runtimeId": 1}"#, &"x".repeat(200_000)] {
            written.insert(ACCESS.into(), odd.to_owned());
            assert_eq!(Record::read(&written), None);
        }
    }
}
