//! The public keys of an issuer (RFC 7517), and what each may be used for.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Most keys that are read.
const MAX_KEYS: usize = 100;

/// What is wrong with a set of keys. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Something else.
    #[error("it must be a JSON object with a list of keys (RFC 7517)")]
    NotASet,
    /// Nothing to verify with.
    #[error("it must hold at least one public key for signatures: RSA, EC on P-256 or P-384, or Ed25519")]
    NoKey,
}

/// A key, and the only algorithm that it is used with.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    public: DecodingKey,
}

/// All keys of an issuer that can be used.
pub struct Keys(Vec<Key>);

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a set. Keys that can't be used are passed over (RFC 7517, section 5); if none is left, no
    /// token is good: that is how an issuer withdraws them all.
    ///
    /// # Errors
    /// [`JwksError::NotASet`]
    pub fn parse(content: &[u8]) -> Result<Self, JwksError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(content).map_err(|_| JwksError::NotASet)?;
        let jwks = set.keys.into_iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value(key).ok());
        Ok(Self(jwks.filter_map(usable).collect()))
    }

    /// Whether there are keys.
    ///
    /// # Errors
    /// [`JwksError::NoKey`]
    pub fn check_some(&self) -> Result<(), JwksError> {
        if self.0.is_empty() { Err(JwksError::NoKey) } else { Ok(()) }
    }

    /// Whether there is a key of that name; without a name, whether there is no doubt which is meant.
    #[must_use]
    pub fn has(&self, id: Option<&str>) -> bool {
        self.find(id).next().is_some()
    }

    /// The key for a token that names a key and an algorithm, with the key's own algorithm: that of
    /// the token must be the same, and decides nothing.
    #[must_use]
    pub fn key(&self, id: Option<&str>, algorithm: &str) -> Option<(&DecodingKey, Algorithm)> {
        let named: Option<Algorithm> = algorithm.parse().ok();
        let mut fitting = self.find(id).filter(|key| Some(key.algorithm) == named);
        fitting.next().map(|key| (&key.public, key.algorithm))
    }

    fn find(&self, id: Option<&str>) -> impl Iterator<Item = &Key> {
        let alone = self.0.len() == 1;
        self.0.iter().filter(move |key| if id.is_some() { key.id.as_deref() == id } else { alone })
    }
}

/// The key with the algorithm that it names; if it names none, with the one that its kind is for.
fn usable(jwk: Jwk) -> Option<Key> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let for_signatures = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !for_signatures {
        return None;
    }
    let (x, y) = (jwk.x.as_deref(), jwk.y.as_deref());
    let (allowed, key): (&[Algorithm], _) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => (
            &[RS256, RS384, RS512, PS256, PS384, PS512],
            DecodingKey::from_rsa_components(jwk.n.as_deref()?, jwk.e.as_deref()?),
        ),
        ("EC", Some("P-256")) => (&[ES256], DecodingKey::from_ec_components(x?, y?)),
        ("EC", Some("P-384")) => (&[ES384], DecodingKey::from_ec_components(x?, y?)),
        ("OKP", Some("Ed25519")) => (&[EdDSA], DecodingKey::from_ed_components(x?)),
        _ => return None,
    };
    let algorithm = match jwk.alg.as_deref() {
        None => *allowed.first()?,
        Some(named) => *allowed.iter().find(|algorithm| named.parse().as_ref() == Ok(*algorithm))?,
    };
    Some(Key { id: jwk.kid, algorithm, public: key.ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(set: &Value) -> Option<JwksError> {
        Keys::parse(set.to_string().as_bytes()).err()
    }

    fn set(keys: &[Value]) -> Keys {
        Keys::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
    }

    fn rsa(more: &Value) -> Value {
        let mut key = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    #[test]
    fn the_key_decides_on_the_algorithm() {
        let keys = set(&[
            rsa(&json!({"kid": "plain"})),
            rsa(&json!({"kid": "pss", "alg": "PS384", "use": "sig", "key_ops": ["verify"]})),
            json!({"kid": "p256", "kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}),
            json!({"kid": "p384", "kty": "EC", "crv": "P-384", "alg": "ES384", "x": "AQAB", "y": "AQAB"}),
            json!({"kid": "ed", "kty": "OKP", "crv": "Ed25519", "x": "AQAB"}),
        ]);
        for (kid, only) in
            [("plain", "RS256"), ("pss", "PS384"), ("p256", "ES256"), ("p384", "ES384"), ("ed", "EdDSA")]
        {
            for algorithm in
                ["RS256", "RS512", "PS256", "PS384", "ES256", "ES384", "EdDSA", "HS256", "none", "None", ""]
            {
                assert_eq!(keys.key(Some(kid), algorithm).is_some(), algorithm == only, "{kid} {algorithm}");
            }
        }
    }

    #[test]
    fn keys_for_anything_else_are_passed_over() {
        let other = [
            json!({"kty": "oct", "k": "AQAB", "alg": "HS256"}),
            json!({"kty": "oct", "k": "AQAB"}),
            rsa(&json!({"alg": "HS256"})),
            rsa(&json!({"alg": "none"})),
            rsa(&json!({"alg": "ES256"})),
            rsa(&json!({"alg": "RSA-OAEP"})),
            rsa(&json!({"use": "enc"})),
            rsa(&json!({"key_ops": ["sign"]})),
            json!({"kty": "RSA", "n": "AQAB"}),
            json!({"kty": "EC", "crv": "secp256k1", "x": "AQAB", "y": "AQAB"}),
            json!({"kty": "EC", "crv": "P-256", "alg": "ES384", "x": "AQAB", "y": "AQAB"}),
            json!({"kty": "OKP", "crv": "X25519", "x": "AQAB"}),
            json!("key"),
        ];
        assert_eq!(set(&other).check_some(), Err(JwksError::NoKey));
        assert_eq!(set(&[]).check_some(), Err(JwksError::NoKey));
        let mut with_good = other.to_vec();
        with_good.push(rsa(&json!({"kid": "good"})));
        let keys = set(&with_good);
        assert!(keys.has(Some("good")) && keys.check_some().is_ok());
        for not_a_set in [json!([]), json!({}), json!({"keys": {}}), json!(null)] {
            assert_eq!(error(&not_a_set), Some(JwksError::NotASet));
        }
    }

    #[test]
    fn without_a_name_only_a_key_that_is_alone_is_meant() {
        let (one, two) = (rsa(&json!({"kid": "1"})), rsa(&json!({"kid": "2"})));
        assert!(set(std::slice::from_ref(&one)).has(None));
        let both = set(&[one, two]);
        assert!(!both.has(None) && both.has(Some("1")) && !both.has(Some("3")));
    }
}
