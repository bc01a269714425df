//! Why somebody isn't let in, as it is answered.

use super::token::Fault;

/// What would have let somebody in, in our own words, without the credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// Nothing was given.
    #[error("credentials must be given in the header Authorization")]
    Missing,
    /// Something else was.
    #[error("the scheme of the header Authorization must be one that WWW-Authenticate names")]
    NotOffered,
    /// It can't be read.
    #[error("the header Authorization must be in the form of its scheme")]
    Malformed,
    /// It is wrong.
    #[error("user and password must be right")]
    Password,
    /// More of it than is compared.
    #[error("the password must be at most 72 bytes long: bcrypt compares no more")]
    LongPassword,
    /// It isn't good.
    #[error("the token can't be used: {0}")]
    Token(Fault),
}
