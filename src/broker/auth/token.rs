//! A token, judged (RFC 7515, RFC 7519, RFC 8725). Nothing in it is believed before its signature, and
//! it names no key of its own: `jku`, `x5u` and `jwk` are not even read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::jwks::Keys;
use super::{MAX_NAME, Principal, Scheme};
use crate::api::text;

/// Longest token, bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// By how much clocks may differ, seconds.
const LEEWAY: f64 = 30.0;

/// What a token must say.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Its `iss`.
    pub issuer: String,
    /// In its `aud`.
    pub audience: String,
    /// In its `scope` or `scp`.
    pub scope: String,
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No JWT.
    #[error("it must be a signed JWT")]
    Malformed,
    /// An extension that must be understood, and isn't.
    #[error("it must not have critical extensions")]
    Critical,
    /// Another token in it (RFC 7519, section 5.2).
    #[error("it must hold claims and not another token: no cty JWT")]
    Nested,
    /// Packed claims, which only encrypted tokens may have (RFC 7516, section 4.1.3).
    #[error("its claims must not be compressed: no zip")]
    Compressed,
    /// No such key.
    #[error("its key must be one of the issuer's present keys")]
    Key,
    /// Another algorithm than the key's.
    #[error("its algorithm must be that of the key")]
    Algorithm,
    /// Somebody else's.
    #[error("its signature must be right")]
    Signature,
    /// A claim is missing or of a wrong type.
    #[error(
        "it must have exp, aud, iss and sub, they and nbf must be of the right types, and sub must name somebody"
    )]
    Claims,
    /// Too late.
    #[error("it must not be expired")]
    Expired,
    /// Too early.
    #[error("it must be valid already")]
    NotYet,
    /// Another issuer.
    #[error("its issuer must be the one that is configured")]
    Issuer,
    /// For somebody else.
    #[error("its audience must be this service's")]
    Audience,
}

impl Fault {
    /// Its word in logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Critical => "critical",
            Self::Nested => "nested",
            Self::Compressed => "compressed",
            Self::Key => "key",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<Value>,
    cty: Option<String>,
    #[serde(default, deserialize_with = "present")]
    zip: Option<Value>,
}

/// What is there, also if it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Claims {
    iss: Value,
    sub: Value,
    aud: Value,
    exp: Value,
    nbf: Option<Value>,
    scope: Option<Value>,
    scp: Option<Value>,
}

/// A token in its parts, of which nothing is proved.
pub struct Unproved<'a> {
    header: Header,
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
}

/// Whom a token is about, and whether it has the scope.
#[derive(Debug, PartialEq, Eq)]
pub struct Bearer {
    /// Its `sub`.
    pub principal: Principal,
    /// Whether it may do what is done here.
    pub in_scope: bool,
}

impl<'a> Unproved<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`Fault::Malformed`], or what its header says that can't be served.
    pub fn parse(token: &'a str) -> Result<Self, Fault> {
        if token.len() > MAX_TOKEN {
            return Err(Fault::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Fault::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(Fault::Malformed)?;
        if claims.contains('.') {
            return Err(Fault::Malformed);
        }
        let header: Header = decode(header).ok_or(Fault::Malformed)?;
        // RFC 7515, section 4.1.11: what is in it must be understood, and nothing is.
        if header.crit.is_some() {
            return Err(Fault::Critical);
        }
        // A media type, whose application/ may be left out (RFC 7515, section 4.1.10).
        let nested = |kind: &str| ["jwt", "application/jwt"].iter().any(|jwt| kind.eq_ignore_ascii_case(jwt));
        if header.cty.as_deref().is_some_and(nested) {
            return Err(Fault::Nested);
        }
        if header.zip.is_some() {
            return Err(Fault::Compressed);
        }
        Ok(Self { header, message, claims, signature })
    }

    /// The name of its key, as it says.
    pub fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Proves it with the issuer's keys, at `now` in seconds since 1970.
    ///
    /// # Errors
    /// The first [`Fault`] found.
    pub fn prove(&self, keys: &Keys, rules: &Rules, now: i64) -> Result<Bearer, Fault> {
        if !keys.has(self.key_id()) {
            return Err(Fault::Key);
        }
        let (key, algorithm) = keys.key(self.key_id(), &self.header.alg).ok_or(Fault::Algorithm)?;
        let right = jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, algorithm);
        if !right.unwrap_or(false) {
            return Err(Fault::Signature);
        }
        decode::<Claims>(self.claims).ok_or(Fault::Claims)?.check(rules, now)
    }
}

impl Claims {
    fn check(&self, rules: &Rules, now: i64) -> Result<Bearer, Fault> {
        #[allow(clippy::cast_precision_loss, reason = "exact for the next millions of years")]
        let now = now as f64;
        let time = |value: &Value| value.as_f64().ok_or(Fault::Claims);
        if now >= time(&self.exp)? + LEEWAY {
            return Err(Fault::Expired);
        }
        if let Some(nbf) = &self.nbf
            && now + LEEWAY < time(nbf)?
        {
            return Err(Fault::NotYet);
        }
        // An array is no issuer, whatever is in it (RFC 7519, section 4.1.1).
        if self.iss.as_str().ok_or(Fault::Claims)? != rules.issuer {
            return Err(Fault::Issuer);
        }
        let audiences = texts(&self.aud).ok_or(Fault::Claims)?;
        if !audiences.contains(&rules.audience.as_str()) {
            return Err(Fault::Audience);
        }
        let name = self.sub.as_str().ok_or(Fault::Claims)?;
        if name.trim().is_empty() || name.len() > MAX_NAME || !text::is_plain(name) {
            return Err(Fault::Claims);
        }
        // RFC 8693, section 4.2: words in a text; elsewhere a list of them.
        let in_scope = [&self.scope, &self.scp]
            .into_iter()
            .flatten()
            .filter_map(texts)
            .flatten()
            .any(|text| text.split(' ').any(|word| word == rules.scope));
        let principal = Principal { scheme: Scheme::Jwt, name: name.to_owned() };
        Ok(Bearer { principal, in_scope })
    }
}

/// A text, or a list of nothing but texts.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(all) => all.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Members that are read must not be there twice: who wins would be a matter of taste.
fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests;
