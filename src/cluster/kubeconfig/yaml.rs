//! YAML as it stands, of which only what is used is judged. A kubeconfig may have anything where its current
//! context doesn't lead, and kubectl takes no offence either.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

use super::refusal::Refusal;
use crate::support::secret::{ExposeSecret as _, SecretString};

/// Most that aliases may add to what is read, in nodes.
const MAX_ALIASED: usize = 20_000;

/// A value; all text could be a secret.
pub(super) enum Node {
    /// Null, or not there.
    Absent,
    Boolean(bool),
    Number,
    Text(SecretString),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

static ABSENT: Node = Node::Absent;

/// Reads YAML, or JSON, which is YAML as well.
pub(super) fn read(text: &str) -> Result<Node, Refusal> {
    let mut options = serde_saphyr::options! {
        // As kubectl has it.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = MAX_ALIASED;
    // A parser's message quotes source lines, and these hold keys: it ends here. Empty documents are none.
    let mut documents: Vec<Node> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|_| Refusal::Unreadable)?;
    match (documents.pop(), documents.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Ok(Node::Absent),
        (Some(_), false) => Err(Refusal::Documents),
    }
}

impl Node {
    /// A field of a map; the last, if it is there more than once.
    pub(super) fn get(&self, key: &str) -> &Self {
        let Self::Map(fields) = self else { return &ABSENT };
        fields.iter().rev().find(|(name, _)| name == key).map_or(&ABSENT, |(_, node)| node)
    }

    /// The names of a map's fields.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let fields = if let Self::Map(fields) = self { fields.as_slice() } else { &[] };
        fields.iter().map(|(name, _)| name.as_str())
    }

    /// The items of a list, which may be absent.
    pub(super) fn items(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            Self::Absent => Some(&[]),
            _ => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Absent, or empty, which is the same for whoever writes kubeconfigs (Go's `omitempty`).
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Boolean(_) | Self::Number => false,
            Self::Text(text) => text.expose_secret().is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Map(fields) => fields.is_empty(),
        }
    }

    /// Text that is there and not empty.
    pub(super) fn text(&self, field: &'static str) -> Result<Option<&SecretString>, Refusal> {
        Ok(self.name(field)?.filter(|text| !text.expose_secret().is_empty()))
    }

    /// Text that is there.
    pub(super) fn name(&self, field: &'static str) -> Result<Option<&SecretString>, Refusal> {
        match self {
            Self::Text(text) => Ok(Some(text)),
            Self::Absent => Ok(None),
            Self::Boolean(_) | Self::Number | Self::List(_) | Self::Map(_) => Err(Refusal::NotText(field)),
        }
    }

    /// Whether it is this text.
    pub(super) fn is(&self, expected: &str) -> bool {
        matches!(self, Self::Text(text) if text.expose_secret() == expected)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Absent)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Absent)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Boolean(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = fields.next_key()? {
            // Nobody looks there, and it may be large.
            let value = if key == "extensions" {
                fields.next_value::<IgnoredAny>().map(|_| Node::Absent)?
            } else {
                fields.next_value()?
            };
            map.push((key, value));
        }
        Ok(Node::Map(map))
    }
}
