//! How the playground's operator lets its players in.

use anyhow::Result;

use crate::apiserver::write_private;
use crate::{Operator, Osb, WorkDir};

/// The user of the playground.
const USER: &str = "player";
/// Cost of the password's hash.
const COST: u32 = 10;

/// How requests are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Auth {
    /// Not at all; it listens on a loopback address
    None,
    /// By a user with a password that is made for this run
    Basic,
}

/// What an operator is told, and what its clients must know.
pub struct Access {
    /// Arguments of the operator.
    pub args: Vec<String>,
    password: Option<String>,
}

impl Access {
    /// Makes what that way needs, in `dir`.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn new(auth: Auth, dir: &WorkDir) -> Result<Self> {
        if auth == Auth::None {
            return Ok(Self { args: Vec::new(), password: None });
        }
        let password = format!("{:032x}", rand::random::<u128>());
        let file = dir.path().join("htpasswd");
        write_private(&file, &format!("{USER}:{}\n", bcrypt::hash(&password, COST)?))?;
        let file = file.display().to_string();
        let args = ["--auth", "basic", "--htpasswd-file", &file, "--allow-basic-without-tls"];
        Ok(Self { args: args.map(str::to_owned).to_vec(), password: Some(password) })
    }

    /// A client that is let in.
    #[must_use]
    pub fn osb(&self, operator: &Operator) -> Osb {
        match &self.password {
            Some(password) => operator.osb().with_basic(USER, password),
            None => operator.osb(),
        }
    }

    /// The beginning of a line with curl.
    #[must_use]
    pub fn curl(&self) -> String {
        let user = self.password.as_ref().map(|password| format!(" -u {USER}:{password}"));
        format!("curl -sS -i -w '\\n'{}", user.unwrap_or_default())
    }
}
