//! Names of asynchronous operations (OSB 2.17, "Asynchronous Operations"). One is made of what is
//! done and the binding's UID, so any replica understands it, and repeated requests get the same.

use std::fmt;

use super::answer::Accepted;
use super::problem::Problem;

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
    /// Reads what a client sends back.
    ///
    /// # Errors
    /// [`Problem::Operation`] unless it has the form of one.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let (kind, uid) = text.split_once('-').ok_or(Problem::Operation)?;
        let legal = uid.len() == UID && uid.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-');
        match kind {
            "bind" if legal => Ok(Self::Bind(uid.to_owned())),
            "unbind" if legal => Ok(Self::Unbind(uid.to_owned())),
            _ => Err(Problem::Operation),
        }
    }

    /// The body of a 202.
    #[must_use]
    pub fn accepted(&self) -> Accepted {
        Accepted { operation: self.to_string() }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(uid) => write!(f, "bind-{uid}"),
            Self::Unbind(uid) => write!(f, "unbind-{uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_survives_the_way_to_the_client_and_back() {
        let uid = "6f7ce4f2-6a1b-4e7c-9b0a-000000000000";
        for operation in [Operation::Bind(uid.into()), Operation::Unbind(uid.into())] {
            assert_eq!(Operation::parse(&operation.to_string()), Ok(operation));
        }
        for bad in ["", "bind", "bind-", "bind-1", &format!("other-{uid}"), &format!("bind-{uid}0"), uid] {
            assert_eq!(Operation::parse(bad), Err(Problem::Operation), "{bad}");
        }
    }
}
