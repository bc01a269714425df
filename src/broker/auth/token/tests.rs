use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer with one key on P-256.
struct Signer {
    key: EncodingKey,
    keys: Keys,
    public: Vec<u8>,
}

fn signer() -> Signer {
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new());
    let pkcs8 = pkcs8.unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
    let public = pair.public_key().as_ref().to_vec();
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": base64(&public[1..33]), "y": base64(&public[33..])});
    let keys = Keys::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    Signer { key: EncodingKey::from_ec_der(pkcs8.as_ref()), keys, public }
}

fn rules() -> Rules {
    Rules { issuer: "https://i".into(), audience: "us".into(), scope: "broker:write".into() }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k", "typ": "JWT"})
}

fn claims() -> Value {
    json!({"iss": "https://i", "sub": "anna", "aud": "us", "exp": NOW + 60, "scope": "a broker:write"})
}

fn with(mut value: Value, name: &str, member: Value) -> Value {
    value[name] = member;
    value
}

fn without(mut value: Value, name: &str) -> Value {
    value.as_object_mut().unwrap().remove(name);
    value
}

fn message(header: &str, claims: &str) -> String {
    format!("{}.{}", base64(header.as_bytes()), base64(claims.as_bytes()))
}

impl Signer {
    fn sign(&self, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        let signature = sign(message.as_bytes(), &self.key, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }

    fn judge(&self, token: &str) -> Result<Bearer, Fault> {
        Unproved::parse(token)?.prove(&self.keys, &rules(), NOW)
    }

    fn claims(&self, claims: &Value) -> Result<Bearer, Fault> {
        self.judge(&self.sign(&header().to_string(), &claims.to_string()))
    }

    fn header(&self, header: &Value) -> Result<Bearer, Fault> {
        self.judge(&self.sign(&header.to_string(), &claims().to_string()))
    }
}

#[test]
fn a_good_token_is_about_its_subject() {
    let bearer = signer().claims(&claims()).unwrap();
    assert_eq!(bearer.principal, Principal { scheme: Scheme::Jwt, name: "anna".into() });
    assert!(bearer.in_scope);
}

#[test]
fn times_have_a_leeway_of_thirty_seconds() {
    let signer = signer();
    let fault = |name: &str, value: Value| signer.claims(&with(claims(), name, value)).err();
    assert_eq!(fault("exp", json!(NOW - 29)), None);
    assert_eq!(fault("exp", json!(NOW - 30)), Some(Fault::Expired));
    assert_eq!(fault("exp", json!(NOW - 30 + 1)), None);
    assert_eq!(fault("exp", json!(1.5)), Some(Fault::Expired));
    assert_eq!(fault("nbf", json!(NOW + 30)), None);
    assert_eq!(fault("nbf", json!(NOW + 31)), Some(Fault::NotYet));
    for odd in [json!("1900000000"), json!([NOW]), json!(true)] {
        assert_eq!(fault("exp", odd.clone()), Some(Fault::Claims), "{odd}");
        assert_eq!(fault("nbf", odd.clone()), Some(Fault::Claims), "{odd}");
    }
}

#[test]
fn claims_must_be_there_and_right() {
    let signer = signer();
    for name in ["exp", "aud", "iss", "sub"] {
        assert_eq!(signer.claims(&without(claims(), name)), Err(Fault::Claims), "without {name}");
        assert_eq!(signer.claims(&with(claims(), name, Value::Null)), Err(Fault::Claims), "{name} null");
    }
    for (name, value, fault) in [
        ("iss", json!("https://i/"), Fault::Issuer),
        ("iss", json!("https://evil"), Fault::Issuer),
        ("iss", json!(["https://i"]), Fault::Claims),
        ("aud", json!("them"), Fault::Audience),
        ("aud", json!([]), Fault::Audience),
        ("aud", json!(["them", 1]), Fault::Claims),
        ("aud", json!({"us": true}), Fault::Claims),
        ("sub", json!(""), Fault::Claims),
        ("sub", json!(" "), Fault::Claims),
        ("sub", json!("\u{a0}\u{3000}"), Fault::Claims),
        ("sub", json!("\u{200b}"), Fault::Claims),
        ("sub", json!("a\u{202e}b"), Fault::Claims),
        ("sub", json!(7), Fault::Claims),
        ("sub", json!("a\nb"), Fault::Claims),
        ("sub", json!("a".repeat(257)), Fault::Claims),
    ] {
        assert_eq!(signer.claims(&with(claims(), name, value.clone())), Err(fault), "{name} {value}");
    }
    assert!(signer.claims(&with(claims(), "aud", json!(["them", "us"]))).is_ok());
}

#[test]
fn the_scope_is_a_word_of_a_text_or_a_list() {
    let signer = signer();
    let in_scope = |name: &str, value: Value| {
        signer.claims(&with(without(claims(), "scope"), name, value)).unwrap().in_scope
    };
    for good in [json!("broker:write"), json!("x broker:write y"), json!(["x", "broker:write"])] {
        assert!(in_scope("scope", good.clone()) && in_scope("scp", good.clone()), "{good}");
    }
    for bad in [
        json!("broker:writer"),
        json!("broker:read"),
        json!(""),
        json!([]),
        json!({"broker:write": 1}),
        json!(null),
    ] {
        assert!(!in_scope("scope", bad.clone()) && !in_scope("scp", bad.clone()), "{bad}");
    }
    assert!(!in_scope("roles", json!("broker:write")));
}

#[test]
fn the_header_decides_nothing() {
    let signer = signer();
    for algorithm in ["none", "None", "HS256", "ES384", "RS256", "EdDSA", ""] {
        let header = with(header(), "alg", json!(algorithm));
        assert_eq!(signer.header(&header), Err(Fault::Algorithm), "{algorithm}");
        // Without any signature, too.
        let bare = format!("{}.", message(&header.to_string(), &claims().to_string()));
        assert_eq!(signer.judge(&bare), Err(Fault::Algorithm), "{algorithm}");
    }
    assert_eq!(signer.header(&with(header(), "kid", json!("other"))), Err(Fault::Key));
    assert!(signer.header(&without(header(), "kid")).is_ok(), "there is only one");
    for critical in [json!(["exp"]), json!(["b64"]), json!([]), json!("x"), json!(null)] {
        assert_eq!(
            signer.header(&with(header(), "crit", critical.clone())),
            Err(Fault::Critical),
            "{critical}"
        );
    }
    let elsewhere = json!({"alg": "ES256", "kid": "k", "jku": "https://evil", "x5u": "https://evil", "jwk": {"kty": 1}, "x5c": 1});
    assert!(signer.header(&elsewhere).is_ok(), "they are not read");
}

#[test]
fn what_is_in_it_is_claims_as_they_are() {
    let signer = signer();
    for nested in ["JWT", "jwt", "application/JWT"] {
        assert_eq!(signer.header(&with(header(), "cty", json!(nested))), Err(Fault::Nested), "{nested}");
    }
    assert_eq!(signer.header(&with(header(), "cty", json!(["JWT"]))), Err(Fault::Malformed));
    for packed in [json!("DEF"), json!(""), json!(null)] {
        assert_eq!(signer.header(&with(header(), "zip", packed.clone())), Err(Fault::Compressed), "{packed}");
    }
    assert!(signer.header(&with(header(), "cty", json!("json"))).is_ok());
}

#[test]
fn a_key_of_its_own_does_not_help() {
    let (signer, stranger) = (signer(), self::signer());
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "k",
        "x": base64(&stranger.public[1..33]), "y": base64(&stranger.public[33..])});
    let token = stranger.sign(&with(header(), "jwk", jwk).to_string(), &claims().to_string());
    assert_eq!(signer.judge(&token), Err(Fault::Signature));
}

#[test]
fn the_public_key_is_no_secret() {
    let signer = signer();
    let message = message(&with(header(), "alg", json!("HS256")).to_string(), &claims().to_string());
    let signature = sign(message.as_bytes(), &EncodingKey::from_secret(&signer.public), Algorithm::HS256);
    assert_eq!(signer.judge(&format!("{message}.{}", signature.unwrap())), Err(Fault::Algorithm));
}

#[test]
fn what_is_changed_or_cut_is_refused() {
    let signer = signer();
    let token = signer.sign(&header().to_string(), &claims().to_string());
    let other = base64(with(claims(), "sub", json!("bert")).to_string().as_bytes());
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!(signer.judge(&format!("{}.{other}.{}", parts[0], parts[2])), Err(Fault::Signature));
    assert_eq!(signer.judge(&format!("{}.{}.", parts[0], parts[1])), Err(Fault::Signature));
    for cut in
        ["", ".", "..", "a.b.c", parts[0], &format!("{}.{}", parts[0], parts[1]), &format!("{token}.x")]
    {
        assert_eq!(signer.judge(cut), Err(Fault::Malformed), "{cut}");
    }
    let long =
        signer.sign(&header().to_string(), &with(claims(), "x", json!("x".repeat(20_000))).to_string());
    assert_eq!(signer.judge(&long), Err(Fault::Malformed));
    let twice = r#"{"iss":"https://evil","iss":"https://i","sub":"a","aud":"us","exp":1900000000}"#;
    assert_eq!(signer.judge(&signer.sign(&header().to_string(), twice)), Err(Fault::Claims));
}
