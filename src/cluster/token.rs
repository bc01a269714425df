//! Judging a token before it is handed on. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::support::secret::{ExposeSecret as _, SecretString};

/// Longest token that is handed on, bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// How much later than asked a token may end: clocks differ.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// Why a token is not handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// Not of the characters and parts of a JWT, or far too long.
    #[error("it is not a JSON Web Token")]
    NotAJwt,
    /// For somebody else.
    #[error("it is for another account")]
    OtherAccount,
    /// No readable expiry.
    #[error("it does not say when it ends")]
    NoExpiry,
    /// Over before it began.
    #[error("it has already ended")]
    AlreadyOver,
    /// It lives longer than it should.
    #[error("it lives longer than was asked")]
    TooLong,
    /// It ends with another object than its account.
    #[error("it is bound to another object (boundObjectRef), which was not asked for")]
    Bound,
    /// It is for another audience, most likely.
    #[error(
        "the cluster's API server does not accept it: does a mutating webhook or admission policy change its audience?"
    )]
    NotAccepted,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<i64>,
    #[serde(default)]
    aud: Audiences,
    #[serde(rename = "kubernetes.io", default)]
    kubernetes: Kubernetes,
}

/// RFC 7519, section 4.1.3.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    Many(Vec<String>),
    One(String),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// What a token may be bound to beside its account.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Kubernetes {
    pod: Option<IgnoredAny>,
    secret: Option<IgnoredAny>,
    node: Option<IgnoredAny>,
}

/// What a good token says.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    /// When it ends: whole seconds, UTC.
    pub ends: Timestamp,
    /// For whom it is. Nobody but its API server can say whether that is right: none was asked for, and the default is
    /// a setting of that server.
    pub audiences: Vec<String>,
}

/// Judges a token.
///
/// `granted` is the expiry that the answer stated; the earlier of it and the token's own counts.
/// `asked` is the wished lifetime in seconds, `subject` the account's full name.
///
/// # Errors
/// The first [`Defect`] found.
pub fn judge(
    token: &SecretString,
    granted: Timestamp,
    asked: i64,
    subject: &str,
    now: Timestamp,
) -> Result<Judged, Defect> {
    let token = token.expose_secret();
    let legal = |part: &str| {
        !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
    };
    let parts: Vec<&str> = token.splitn(4, '.').collect();
    let &[header, payload, signature] = parts.as_slice() else { return Err(Defect::NotAJwt) };
    if token.len() > MAX_TOKEN || ![header, payload, signature].into_iter().all(legal) {
        return Err(Defect::NotAJwt);
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Defect::NotAJwt)?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| Defect::NotAJwt)?;
    if claims.sub.as_deref() != Some(subject) {
        return Err(Defect::OtherAccount);
    }
    let Kubernetes { pod, secret, node } = claims.kubernetes;
    if pod.or(secret).or(node).is_some() {
        return Err(Defect::Bound);
    }
    let exp = claims.exp.and_then(|exp| Timestamp::from_second(exp).ok()).ok_or(Defect::NoExpiry)?;
    let latest = now + SignedDuration::from_secs(asked) + TOLERANCE;
    if exp.max(granted) > latest {
        return Err(Defect::TooLong);
    }
    let ends = exp.min(granted);
    if ends <= now {
        return Err(Defect::AlreadyOver);
    }
    let ends = Timestamp::from_second(ends.as_second()).map_err(|_| Defect::NoExpiry)?;
    let audiences = match claims.aud {
        Audiences::Many(audiences) => audiences,
        Audiences::One(audience) => vec![audience],
    };
    Ok(Judged { ends, audiences })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &str = "system:serviceaccount:kyma-system:kyma-binding-b";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn token(claims: &str) -> SecretString {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part("{}"), part(claims), part("x")).into()
    }

    fn judged(claims: &str, granted: i64) -> Result<Timestamp, Defect> {
        judge(&token(claims), at(granted), 600, SUBJECT, at(1000)).map(|judged| judged.ends)
    }

    fn claims(exp: i64) -> String {
        format!(r#"{{"sub":"{SUBJECT}","exp":{exp}}}"#)
    }

    #[test]
    fn the_earlier_expiry_counts() {
        assert_eq!(judged(&claims(1600), 1600), Ok(at(1600)));
        assert_eq!(judged(&claims(1500), 1600), Ok(at(1500)));
        assert_eq!(judged(&claims(1600), 1500), Ok(at(1500)));
        assert_eq!(judged(&claims(1660), 1660), Ok(at(1660)));
    }

    #[test]
    fn a_lie_about_the_lifetime_is_refused() {
        assert_eq!(judged(&claims(1661), 1600), Err(Defect::TooLong));
        assert_eq!(judged(&claims(1600), 32_503_680_000), Err(Defect::TooLong));
        assert_eq!(judged(&claims(1000), 1600), Err(Defect::AlreadyOver));
        assert_eq!(judged(&format!(r#"{{"sub":"{SUBJECT}"}}"#), 1600), Err(Defect::NoExpiry));
        assert_eq!(judged(&claims(i64::MAX), 1600), Err(Defect::NoExpiry));
    }

    #[test]
    fn a_token_for_another_account_is_refused() {
        assert_eq!(
            judged(r#"{"sub":"system:serviceaccount:kyma-system:x","exp":1600}"#, 1600),
            Err(Defect::OtherAccount)
        );
        assert_eq!(judged(r#"{"exp":1600}"#, 1600), Err(Defect::OtherAccount));
    }

    #[test]
    fn a_token_is_bound_to_its_account_alone() {
        let bound = |to: &str| format!(r#"{{"sub":"{SUBJECT}","exp":1600,"kubernetes.io":{{{to}}}}}"#);
        let account = r#""namespace":"kyma-system","serviceaccount":{"name":"kyma-binding-b","uid":"u"}"#;
        assert_eq!(judged(&bound(account), 1600), Ok(at(1600)));
        for kind in ["pod", "secret", "node"] {
            let bound = bound(&format!(r#"{account},"{kind}":{{"name":"x"}}"#));
            assert_eq!(judged(&bound, 1600), Err(Defect::Bound), "{kind}");
        }
    }

    #[test]
    fn audiences_are_read_in_both_forms() {
        for (said, expected) in [(r#"["a","b"]"#, vec!["a", "b"]), (r#""a""#, vec!["a"]), ("[]", vec![])] {
            let claims = format!(r#"{{"sub":"{SUBJECT}","exp":1600,"aud":{said}}}"#);
            let judged = judge(&token(&claims), at(1600), 600, SUBJECT, at(1000)).unwrap();
            assert_eq!(judged.audiences, expected);
        }
    }

    #[test]
    fn only_jwt_characters_pass() {
        let good = token(&claims(1600)).expose_secret().to_owned();
        for bad in [
            format!("{good}\n"),
            format!("{good}.x"),
            format!("{good}: |"),
            "a.b".into(),
            "a..c".into(),
            String::new(),
            format!("{good}{}", "x".repeat(MAX_TOKEN)),
        ] {
            assert_eq!(judge(&bad.into(), at(1600), 600, SUBJECT, at(1000)), Err(Defect::NotAJwt));
        }
    }
}
