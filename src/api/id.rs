//! Names and UIDs in few bytes: Kubernetes makes UUIDs of UIDs, and platforms of the names of their bindings, but both
//! may be other text.

use std::fmt;

use uuid::Uuid;

use crate::support::codec::uuid;

/// What tells one object from the others: its name, or its UID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// As they are.
    Uuid(Uuid),
    /// As they might be.
    Other(Box<str>),
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        uuid(text.as_bytes()).map_or_else(|| Self::Other(text.into()), Self::Uuid)
    }
}

impl From<&Id> for Id {
    fn from(id: &Id) -> Self {
        id.clone()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.hyphenated().fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_written_as_it_was() {
        for text in ["6f1d9c0e-8a35-4b7c-9d2e-1f0a5b6c7d8e", "6F1D9C0E-8A35-4B7C-9D2E-1F0A5B6C7D8E", "u1", ""]
        {
            assert_eq!(Id::from(text).to_string(), text);
        }
    }
}
