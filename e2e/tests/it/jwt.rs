//! Who is let in with a token.

use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::issuer::{Issuer, Manners, message};
use e2e::osb::Answer;
use e2e::stage::SOON;
use e2e::{Operator, Stage, eventually};
use jiff::Timestamp;
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::auth::htpasswd;
use crate::mounted::Mounted;
use crate::world::{program, stage};

/// Name of a mounted file.
const FILE: &str = "file";

async fn with_issuer(stage: &Stage<'_>, issuer: &Issuer, more: &[&str]) -> Operator {
    let args = ["--auth", "jwt", "--jwt-issuer", issuer.url(), "--jwt-audience", "kyma-bindings"];
    stage.operator(program(), &[&args, more].concat()).await.unwrap()
}

/// Claims that are good for a minute, with some others in their place; null takes one away.
pub fn claims(issuer: &Issuer, others: &Value) -> Value {
    let now = Timestamp::now().as_second();
    let mut claims = json!({"iss": issuer.url(), "sub": "platform-1", "aud": ["kyma-bindings", "others"],
        "iat": now, "nbf": now, "exp": now + 60, "scope": "other broker:write"});
    for (name, value) in others.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn good(issuer: &Issuer) -> String {
    issuer.token(&issuer.header(), &claims(issuer, &json!({}))).unwrap()
}

async fn fetch(operator: &Operator, instance: &str, token: &str) -> Answer {
    let osb = operator.osb().with_authorization(&format!("Bearer {token}"));
    osb.fetch(instance, "jwt-1").await.unwrap()
}

/// Waits until a token is answered with that status.
async fn becomes(operator: &Operator, instance: &str, token: &str, status: u16) {
    eventually(&format!("status {status}"), SOON, async || {
        let answer = fetch(operator, instance, token).await;
        if answer.status == status { Ok(()) } else { Err(anyhow!("{} {}", answer.status, answer.body)) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn only_good_tokens_of_the_issuer_are_let_in() {
    let (stage, instance) = stage("jwt").await;
    let issuer = Issuer::start().await.unwrap();
    let ca = Mounted::new(&[(FILE, issuer.ca_pem())]);
    let operator = with_issuer(&stage, &issuer, &["--jwt-ca-file", &ca.path(FILE)]).await;
    becomes(&operator, &instance, &good(&issuer), 404).await;

    let now = Timestamp::now().as_second();
    let header = issuer.header();
    let with = |others: Value| issuer.token(&header, &claims(&issuer, &others)).unwrap();
    let changed_header = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        issuer.token(&header, &claims(&issuer, &json!({}))).unwrap()
    };
    let unsigned = message(&json!({"alg": "none"}), &claims(&issuer, &json!({})));
    let hmac = message(&json!({"alg": "HS256", "kid": "key-1"}), &claims(&issuer, &json!({})));
    let hmac_of = |secret: &[u8]| {
        let signature = sign(hmac.as_bytes(), &EncodingKey::from_secret(secret), Algorithm::HS256).unwrap();
        format!("{hmac}.{signature}")
    };
    let stranger = Issuer::start().await.unwrap();
    let mut changed: Vec<_> = good(&issuer).split('.').map(str::to_owned).collect();
    changed[1] = URL_SAFE_NO_PAD.encode(claims(&issuer, &json!({"sub": "somebody-else"})).to_string());
    let refused = [
        ("expired", with(json!({"exp": now - 31})), "expired"),
        ("not yet valid", with(json!({"nbf": now + 50})), "valid already"),
        ("wrong audience", with(json!({"aud": "others"})), "audience"),
        ("no audience", with(json!({"aud": null})), "must have exp"),
        ("wrong issuer", with(json!({"iss": "https://other.example"})), "issuer"),
        ("an array as issuer", with(json!({"iss": [issuer.url()]})), "right types"),
        ("no subject", with(json!({"sub": null})), "must have exp"),
        ("no end", with(json!({"exp": null})), "must have exp"),
        ("unknown kid", changed_header("kid", json!("key-9")), "present keys"),
        ("unknown crit", changed_header("crit", json!(["http://example.com/UNDEFINED"])), "critical"),
        ("another algorithm", changed_header("alg", json!("ES384")), "algorithm"),
        ("alg none", format!("{unsigned}."), "algorithm"),
        ("HS256 with the public key", hmac_of(&issuer.public_key()), "algorithm"),
        ("HS256 with the published keys", hmac_of(issuer.jwks().to_string().as_bytes()), "algorithm"),
        ("another issuer's key", stranger.token(&header, &claims(&issuer, &json!({}))).unwrap(), "signature"),
        (
            "its own key",
            {
                let mut header = header.clone();
                header["jwk"] = stranger.jwks()["keys"][0].clone();
                header["jku"] = json!(format!("{}/oauth2/certs", stranger.url()));
                stranger.token(&header, &claims(&issuer, &json!({}))).unwrap()
            },
            "signature",
        ),
        ("other claims", changed.join("."), "signature"),
        ("nonsense", "nonsense".to_owned(), "signed JWT"),
    ];
    for (what, token, word) in &refused {
        let answer = fetch(&operator, &instance, token).await;
        assert_eq!(answer.status, 401, "{what}");
        assert!(answer.description().contains(word), "{what}: {}", answer.description());
        let challenge = "Bearer realm=\"kyma-bindings\", error=\"invalid_token\"";
        assert_eq!(answer.headers["www-authenticate"], challenge, "{what}");
    }
    assert_eq!(stranger.asked(), 0, "a token doesn't say where keys are");
    for scope in
        [json!({"scope": "broker:read"}), json!({"scope": null}), json!({"scope": ["x"], "scp": "y"})]
    {
        let answer = fetch(&operator, &instance, &with(scope.clone())).await;
        assert_eq!(answer.status, 403, "{scope}");
        let challenge =
            "Bearer realm=\"kyma-bindings\", error=\"insufficient_scope\", scope=\"broker:write\"";
        assert_eq!(answer.headers["www-authenticate"], challenge);
    }
    for scope in
        [json!({}), json!({"scope": null, "scp": ["broker:write"]}), json!({"scope": ["broker:write"]})]
    {
        assert_eq!(fetch(&operator, &instance, &with(scope.clone())).await.status, 404, "{scope}: let in");
    }
    let platform = operator.osb().with_authorization(&format!("Bearer {}", good(&issuer)));
    assert_eq!(platform.bound(&instance, "jwt-1").await.unwrap().status, 201);

    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    for (reason, count) in [("signature", 3), ("expired", 1), ("key", 1), ("scope", 3)] {
        let line = format!(
            "kyma_bindings_authentication_failures_total{{scheme=\"jwt\",reason=\"{reason}\"}} {count}"
        );
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    operator.terminate().await.unwrap();
    let log = operator.log();
    for (what, token, _) in &refused {
        for part in token.split('.').filter(|part| part.len() > 40) {
            assert!(!log.contains(part) && !metrics.contains(part), "{what}: a part is in the log");
        }
    }
}

#[tokio::test]
async fn a_key_rotated_at_the_issuer_is_found_and_the_old_one_forgotten() {
    let (stage, instance) = stage("turned").await;
    let issuer = Issuer::start().await.unwrap();
    let ca = Mounted::new(&[(FILE, issuer.ca_pem())]);
    let operator = with_issuer(&stage, &issuer, &["--jwt-ca-file", &ca.path(FILE)]).await;
    let old = good(&issuer);
    becomes(&operator, &instance, &old, 404).await;
    issuer.rotate("key-2").unwrap();
    becomes(&operator, &instance, &good(&issuer), 404).await;
    assert_eq!(fetch(&operator, &instance, &old).await.status, 401);
    let unknown =
        issuer.token(&json!({"alg": "ES256", "kid": "key-9"}), &claims(&issuer, &json!({}))).unwrap();
    let before = issuer.asked();
    let many = futures::future::join_all((0..50).map(|_| fetch(&operator, &instance, &unknown))).await;
    assert!(many.iter().all(|answer| answer.status == 401));
    assert!(issuer.asked() <= before + 1, "it is asked once in a while, whatever tokens name");
    // What is known is good enough while the issuer is down.
    issuer.behave(Manners::Status(500));
    assert_eq!(fetch(&operator, &instance, &unknown).await.status, 401);
    assert_eq!(fetch(&operator, &instance, &good(&issuer)).await.status, 404);
}

#[tokio::test]
async fn keys_come_from_the_issuer_itself_or_not_at_all() {
    let (stage, instance) = stage("jwt-manners").await;
    let issuer = Issuer::start().await.unwrap();
    let ca = Mounted::new(&[(FILE, issuer.ca_pem())]);
    let trusted = ca.path(FILE);
    let (trusting, strange) = (vec!["--jwt-ca-file", trusted.as_str()], vec![]);
    for (manners, args, word) in [
        (Manners::Good, &strange, "with a certificate that is trusted"),
        (Manners::OtherIssuer, &trusting, "exactly as --jwt-issuer does"),
        (Manners::ForeignKeys, &trusting, "on the issuer's own host and port"),
        (Manners::Redirect, &trusting, "HTTP 302 instead of 200"),
        (Manners::Endless, &trusting, "longer than 256 KiB"),
        (Manners::Status(503), &trusting, "HTTP 503 instead of 200"),
    ] {
        issuer.behave(manners);
        let operator = with_issuer(&stage, &issuer, args).await;
        let answer = fetch(&operator, &instance, &good(&issuer)).await;
        assert_eq!(answer.status, 503, "{manners:?}");
        assert!(answer.headers.contains_key("retry-after"));
        assert!(answer.description().contains("no token can be checked"), "{}", answer.description());
        assert!(operator.log().contains(word), "{manners:?}: {word} is not in the log");
        if manners == Manners::Status(503) {
            issuer.behave(Manners::Good);
            becomes(&operator, &instance, &good(&issuer), 404).await;
        }
    }
}

#[tokio::test]
async fn keys_of_a_file_are_read_again_and_passwords_go_beside_tokens() {
    let (stage, instance) = stage("jwks").await;
    let issuer = Issuer::start().await.unwrap();
    let mut keys = Mounted::new(&[(FILE, &issuer.jwks().to_string())]);
    let users = Mounted::new(&[(FILE, &htpasswd(&[("anna", "right")]))]);
    let (keys_file, users_file) = (keys.path(FILE), users.path(FILE));
    let more = [
        "--jwt-jwks-file",
        &keys_file,
        "--auth",
        "basic",
        "--htpasswd-file",
        &users_file,
        "--allow-basic-without-tls",
    ];
    let operator = with_issuer(&stage, &issuer, &more).await;
    let old = good(&issuer);
    assert_eq!(fetch(&operator, &instance, &old).await.status, 404, "let in");
    assert_eq!(
        operator.osb().with_basic("anna", "right").fetch(&instance, "jwks-1").await.unwrap().status,
        404
    );
    let refused = operator.osb().fetch(&instance, "jwks-1").await.unwrap();
    let ways: Vec<_> = refused.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(refused.status, 401);
    assert_eq!(ways, ["Basic realm=\"kyma-bindings\", charset=\"UTF-8\"", "Bearer realm=\"kyma-bindings\""]);

    issuer.rotate("key-2").unwrap();
    keys.swap(&[(FILE, &issuer.jwks().to_string())]);
    becomes(&operator, &instance, &good(&issuer), 404).await;
    assert_eq!(fetch(&operator, &instance, &old).await.status, 401);
    assert_eq!(issuer.asked(), 0, "nothing is fetched");

    keys.swap(&[(FILE, &json!({"keys": []}).to_string())]);
    becomes(&operator, &instance, &good(&issuer), 401).await;
}

#[tokio::test]
async fn an_issuer_that_withdraws_all_keys_is_believed() {
    let (stage, instance) = stage("withdrawn").await;
    let issuer = Issuer::start().await.unwrap();
    let ca = Mounted::new(&[(FILE, issuer.ca_pem())]);
    let operator = with_issuer(&stage, &issuer, &["--jwt-ca-file", &ca.path(FILE)]).await;
    becomes(&operator, &instance, &good(&issuer), 404).await;
    issuer.behave(Manners::NoKeys);
    let mut header = issuer.header();
    header["kid"] = json!("key-9");
    let unknown = issuer.token(&header, &claims(&issuer, &json!({}))).unwrap();
    eventually("no key to be believed", SOON, async || {
        // Another name of a key has them fetched before it is time.
        assert_eq!(fetch(&operator, &instance, &unknown).await.status, 401);
        match fetch(&operator, &instance, &good(&issuer)).await.status {
            401 => Ok(()),
            other => Err(anyhow!("{other}")),
        }
    })
    .await
    .unwrap();
}
