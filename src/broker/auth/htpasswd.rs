//! Users and the bcrypt hashes of their passwords.

use std::collections::HashMap;
use std::hint::black_box;

use crate::api::text;
use crate::support::secret::{ExposeSecret as _, SecretString};

/// Costs that are accepted; above, one check takes seconds.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;
/// Characters of salt and hash behind the cost.
const TAIL: usize = 53;

/// What is wrong with a file of users. Never quotes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HtpasswdError {
    /// It is binary.
    #[error("it must be UTF-8 text")]
    Text,
    /// Nobody could log in.
    #[error("it has no user; `htpasswd -B` writes one line user:hash for each")]
    Empty,
    /// Not two parts.
    #[error("line {0} must be user:hash, without spaces around them")]
    Line(usize),
    /// Another hash.
    #[error("the hash in line {0} must be bcrypt, as `htpasswd -B` makes it")]
    NotBcrypt(usize),
    /// A cost that would be one to us.
    #[error("the bcrypt cost in line {0} must be 4 to 14")]
    Cost(usize),
    /// Which of them counts?
    #[error("the user in line {0} has a line before; give each user one line")]
    Twice(usize),
}

/// All users.
pub struct Users {
    hashes: HashMap<String, (u32, SecretString)>,
    most: u32,
}

impl Users {
    /// Reads the lines of a file; empty ones and those that begin with # say nothing. There may be no
    /// users: then nobody is let in.
    ///
    /// # Errors
    /// The first [`HtpasswdError`], with the number of the line.
    pub fn parse(content: &[u8]) -> Result<Self, HtpasswdError> {
        let content = std::str::from_utf8(content).map_err(|_| HtpasswdError::Text)?;
        let mut hashes = HashMap::new();
        for (line, number) in content.lines().zip(1..) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line.split_once(':').ok_or(HtpasswdError::Line(number))?;
            let odd = |c: char| c.is_whitespace() || text::is_unseen(c);
            if user.is_empty() || user.len() > super::MAX_NAME || user.contains(odd) || hash.contains(odd) {
                return Err(HtpasswdError::Line(number));
            }
            let cost = cost(hash).ok_or(HtpasswdError::NotBcrypt(number))?;
            if !COSTS.contains(&cost) {
                return Err(HtpasswdError::Cost(number));
            }
            if hashes.insert(user.to_owned(), (cost, hash.to_owned().into())).is_some() {
                return Err(HtpasswdError::Twice(number));
            }
        }
        let most = hashes.values().map(|(cost, _)| *cost).max().unwrap_or(*COSTS.start());
        Ok(Self { hashes, most })
    }

    /// Whether there are users.
    ///
    /// # Errors
    /// [`HtpasswdError::Empty`]
    pub fn check_some(&self) -> Result<(), HtpasswdError> {
        if self.hashes.is_empty() { Err(HtpasswdError::Empty) } else { Ok(()) }
    }

    /// Whether that is the user's password. Takes the same work for each user, and for one that
    /// doesn't exist: as much as the dearest hash. Takes milliseconds to seconds of a processor.
    pub fn verify(&self, user: &str, password: &SecretString) -> bool {
        let check = |hash: &str| black_box(bcrypt::verify(password.expose_secret(), hash).unwrap_or(false));
        let Some((cost, hash)) = self.hashes.get(user) else {
            check(&nobody(self.most));
            return false;
        };
        let right = check(hash.expose_secret());
        // 2^cost, and 2^cost + 2^(cost+1) + … + 2^(most-1) more, is 2^most.
        for cost in *cost..self.most {
            check(&nobody(cost));
        }
        right
    }
}

/// The cost of a bcrypt hash; `None` if it is none.
fn cost(hash: &str) -> Option<u32> {
    let rest = ["$2y$", "$2b$", "$2a$"].iter().find_map(|version| hash.strip_prefix(version))?;
    let (cost, tail) = rest.split_once('$')?;
    let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'.' || c == b'/';
    if cost.len() != 2 || tail.len() != TAIL || !tail.bytes().all(legal) {
        return None;
    }
    hash.parse::<bcrypt::HashParts>().ok().map(|parts| parts.get_cost())
}

/// A hash of nobody's password.
fn nobody(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(TAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(password: &str, cost: u32) -> String {
        bcrypt::hash(password, cost).unwrap()
    }

    fn error(text: &str) -> HtpasswdError {
        Users::parse(text.as_bytes()).err().unwrap()
    }

    #[test]
    fn several_users_have_a_password_each() {
        let text =
            format!("# team\n\nanna:{}\nbert:{}\n", hash("a", 4), hash("b", 5).replace("$2b$", "$2y$"));
        let users = Users::parse(text.as_bytes()).unwrap();
        let verify = |user, password: &str| users.verify(user, &password.to_owned().into());
        assert!(verify("anna", "a") && verify("bert", "b"));
        for (user, password) in [("anna", "b"), ("bert", "a"), ("anna", ""), ("carl", "a"), ("Anna", "a")] {
            assert!(!verify(user, password), "{user} {password}");
        }
    }

    #[test]
    fn other_hashes_are_refused_with_their_line_and_without_their_text() {
        let good = hash("a", 4);
        for (line, expected) in [
            ("carl:$apr1$salt$secrethash", HtpasswdError::NotBcrypt(2)),
            ("carl:{SHA}secrethash=", HtpasswdError::NotBcrypt(2)),
            ("carl:secrethash", HtpasswdError::NotBcrypt(2)),
            (&format!("carl:{}", &good[..59]), HtpasswdError::NotBcrypt(2)),
            (&format!("carl:{}", good.replace("$2b$", "$2x$")), HtpasswdError::NotBcrypt(2)),
            (&format!("carl:{}", good.replace("$04$", "$15$")), HtpasswdError::Cost(2)),
            (&format!("carl:{good} "), HtpasswdError::Line(2)),
            (&format!("ca\u{202e}rl:{good}"), HtpasswdError::Line(2)),
            ("secrethash", HtpasswdError::Line(2)),
            (&format!(":{good}"), HtpasswdError::Line(2)),
            (&format!("anna:{good}"), HtpasswdError::Twice(2)),
        ] {
            let error = error(&format!("anna:{good}\n{line}\n"));
            assert_eq!(error, expected, "{line}");
            assert!(error.to_string().contains("line 2") && !error.to_string().contains("secrethash"));
        }
        assert_eq!(Users::parse(&[0xff]).err(), Some(HtpasswdError::Text));
    }

    #[test]
    fn of_no_users_nobody_is_right() {
        let users = Users::parse(b"\n# nobody\n").unwrap();
        assert_eq!(users.check_some(), Err(HtpasswdError::Empty));
        assert!(!users.verify("anna", &String::new().into()));
        let some = Users::parse(format!("anna:{}", hash("a", 4)).as_bytes()).unwrap();
        assert_eq!(some.check_some(), Ok(()));
    }

    #[test]
    fn the_hash_of_nobody_costs_what_it_says() {
        assert_eq!(cost(&nobody(4)), Some(4));
        assert_eq!(cost(&nobody(14)), Some(14));
        assert_eq!(bcrypt::verify("", &nobody(4)).ok(), Some(false), "it is computed, and wrong");
    }
}
