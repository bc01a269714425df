//! Names of asynchronous operations (OSB 2.17, "Asynchronous Operations"). One is made of what is
//! done and of which binding, so any replica understands it, and repeated requests get the same.

use aws_lc_rs::digest::{SHA256, digest};

use super::ids::Ids;
use crate::broker::error::Problem;
use crate::broker::response::Accepted;

/// Length of a UID, characters.
const UID: usize = 36;

/// What goes on after the answer 202; the UID says for which binding of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// It is being made.
    Bind(String),
    /// It is being removed.
    Unbind(String),
}

impl Operation {
    /// Reads what a client sends back about a binding.
    ///
    /// # Errors
    /// [`Problem::Operation`] unless it has the form of one of that binding's.
    pub fn parse(text: &str, ids: &Ids) -> Result<Self, Problem> {
        let (kind, rest) = text.split_once('-').ok_or(Problem::Operation)?;
        let (uid, mark) = rest.rsplit_once('-').ok_or(Problem::Operation)?;
        let uid_like = uid.len() == UID && uid.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-');
        match kind {
            _ if !uid_like || mark != self::mark(ids) => Err(Problem::Operation),
            "bind" => Ok(Self::Bind(uid.to_owned())),
            "unbind" => Ok(Self::Unbind(uid.to_owned())),
            _ => Err(Problem::Operation),
        }
    }

    /// UID of the binding that it is about.
    #[must_use]
    pub fn uid(&self) -> &str {
        let (Self::Bind(uid) | Self::Unbind(uid)) = self;
        uid
    }

    /// Its name.
    #[must_use]
    pub fn name(&self, ids: &Ids) -> String {
        let (kind, uid) = match self {
            Self::Bind(uid) => ("bind", uid),
            Self::Unbind(uid) => ("unbind", uid),
        };
        format!("{kind}-{uid}-{}", mark(ids))
    }

    /// The body of a 202.
    #[must_use]
    pub fn accepted(&self, ids: &Ids) -> Accepted {
        Accepted { operation: self.name(ids) }
    }
}

/// Tells one binding's operations from another's, also when the binding is gone.
fn mark(ids: &Ids) -> String {
    let digest = digest(&SHA256, format!("{}/{}", ids.instance, ids.binding).as_bytes());
    let start = digest.as_ref().first_chunk().copied().unwrap_or_default();
    format!("{:08x}", u32::from_be_bytes(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::{BindingId, InstanceId};

    fn ids(binding: &str) -> Ids {
        Ids { instance: InstanceId::parse("i").unwrap(), binding: BindingId::parse(binding).unwrap() }
    }

    #[test]
    fn an_operation_survives_the_way_to_the_client_and_back() {
        let uid = "6f7ce4f2-6a1b-4e7c-9b0a-000000000000";
        for operation in [Operation::Bind(uid.into()), Operation::Unbind(uid.into())] {
            let name = operation.name(&ids("b"));
            assert_eq!(Operation::parse(&name, &ids("b")), Ok(operation));
            assert_eq!(Operation::parse(&name, &ids("c")), Err(Problem::Operation), "another binding's");
        }
        let mark = mark(&ids("b"));
        for bad in ["", "bind", "bind-", "bind-1", uid, &format!("bind-{uid}"), &format!("x-{uid}-{mark}")] {
            assert_eq!(Operation::parse(bad, &ids("b")), Err(Problem::Operation), "{bad}");
        }
    }
}
