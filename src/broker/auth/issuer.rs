//! Fetching an issuer's keys (OIDC Discovery 1.0): over HTTPS, from the issuer itself.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::jwks::{JwksError, Keys};
use crate::support::reload::Current;

/// Largest answer, bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Longest wait for both answers together.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why keys could not be fetched: in our own words, never the issuer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No answer.
    #[error("the issuer can't be reached over HTTPS with a certificate that is trusted")]
    Unreachable,
    /// Too late.
    #[error("the issuer did not answer within 5 s")]
    TimedOut,
    /// Another status than 200; redirects are not followed.
    #[error("the issuer answered with HTTP {0} instead of 200")]
    Status(u16),
    /// No end in sight.
    #[error("the issuer's answer is longer than 256 KiB or broke off")]
    Answer,
    /// No discovery document.
    #[error("the issuer's discovery document must be JSON with issuer and jwks_uri")]
    Discovery,
    /// Somebody else's.
    #[error("the issuer's discovery document must name the issuer exactly as --jwt-issuer does")]
    OtherIssuer,
    /// Elsewhere.
    #[error(
        "the issuer's jwks_uri must be https, on the issuer's own host and port, without user and fragment"
    )]
    ForeignKeys,
    /// No keys.
    #[error("the issuer's keys can't be used: {0}")]
    Keys(#[from] JwksError),
}

/// What is wrong with a file of authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must hold certificates of authorities as PEM")]
pub struct AuthoritiesError;

/// Whom to trust: the system's authorities, and those of a file.
///
/// # Errors
/// [`AuthoritiesError`] when there is a file and nothing in it can be used.
pub fn trust(file: Option<&[u8]>) -> Result<ClientConfig, AuthoritiesError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = file {
        let more = CertificateDer::pem_slice_iter(file).collect::<Result<Vec<_>, _>>();
        let more = more.ok().filter(|more| !more.is_empty()).ok_or(AuthoritiesError)?;
        for certificate in more {
            roots.add(certificate).map_err(|_| AuthoritiesError)?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|_| AuthoritiesError)?.with_root_certificates(roots).with_no_client_auth())
}

/// Whether an issuer may have that name: https, without user, query and fragment (OIDC Discovery 1.0,
/// section 3).
#[must_use]
pub fn is_issuer(url: &str) -> bool {
    origin(url).is_some() && !url.contains('?')
}

/// Host and port of an https URL without user and fragment; `None` if it is something else.
fn origin(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let plain = uri.scheme_str() == Some("https")
        && !authority.as_str().contains('@')
        && !authority.host().is_empty()
        && !url.contains('#');
    plain.then(|| (authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(443)))
}

/// Fetches the keys of an issuer.
///
/// # Errors
/// The first [`FetchError`].
pub async fn fetch(issuer: String, trust: Arc<Current<ClientConfig>>) -> Result<Keys, FetchError> {
    let both = async {
        let document =
            get(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')), &trust)
                .await?;
        let keys = get(&keys_url(&issuer, &document)?, &trust).await?;
        Ok(Keys::parse(&keys)?)
    };
    tokio::time::timeout(TIMEOUT, both).await.map_err(|_| FetchError::TimedOut)?
}

fn keys_url(issuer: &str, document: &[u8]) -> Result<String, FetchError> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
        jwks_uri: String,
    }
    let document: Discovery = serde_json::from_slice(document).map_err(|_| FetchError::Discovery)?;
    if document.issuer != issuer {
        return Err(FetchError::OtherIssuer);
    }
    let same = origin(&document.jwks_uri).is_some_and(|keys| origin(issuer) == Some(keys));
    if same { Ok(document.jwks_uri) } else { Err(FetchError::ForeignKeys) }
}

async fn get(url: &str, trust: &Current<ClientConfig>) -> Result<Bytes, FetchError> {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trust.get().as_ref().clone())
        .https_only()
        .enable_http1()
        .build();
    // It follows no redirect, knows no proxy, and keeps no connection until the next time.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let request = Request::get(url).header(http::header::ACCEPT, "application/json").body(Body::empty());
    let request = request.map_err(|_| FetchError::Unreachable)?;
    let answer = client.request(request).await.map_err(|_| FetchError::Unreachable)?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    Ok(body.map_err(|_| FetchError::Answer)?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_plain_https() {
        assert_eq!(origin("https://Issuer.example/a"), Some(("issuer.example".into(), 443)));
        assert_eq!(origin("https://issuer.example:8443"), Some(("issuer.example".into(), 8443)));
        for bad in [
            "http://issuer.example",
            "issuer.example",
            "https://a@issuer.example",
            "https://i#f",
            "https://i?q#f",
            "",
        ] {
            assert_eq!(origin(bad), None, "{bad}");
            assert!(!is_issuer(bad), "{bad}");
        }
        assert!(is_issuer("https://issuer.example/a") && !is_issuer("https://issuer.example/a?q"));
    }

    #[test]
    fn keys_come_from_the_issuer_alone() {
        let issuer = "https://issuer.example/tenant";
        let url = |says: &str, keys: &str| {
            let document = serde_json::json!({"issuer": says, "jwks_uri": keys});
            keys_url(issuer, document.to_string().as_bytes())
        };
        assert!(url(issuer, "https://issuer.example/keys").is_ok());
        assert!(url(issuer, "https://issuer.example:443/keys").is_ok());
        // Some issuers have keys for each of their policies.
        let by_policy = "https://issuer.example/keys?p=policy";
        assert_eq!(url(issuer, by_policy).as_deref(), Ok(by_policy));
        for other in ["https://issuer.example/tenant/", "https://issuer.example", ""] {
            assert_eq!(url(other, "https://issuer.example/keys"), Err(FetchError::OtherIssuer));
        }
        for foreign in [
            "http://issuer.example/keys",
            "https://evil.example/keys",
            "https://issuer.example:444/keys",
            "https://issuer.example@evil.example/keys",
            "https://issuer.example.evil.example/keys",
            "https://user@issuer.example/keys",
            "https://issuer.example/keys#part",
            "https://evil.example?p=issuer.example/keys",
            "/keys",
            "",
        ] {
            assert_eq!(url(issuer, foreign), Err(FetchError::ForeignKeys), "{foreign}");
        }
        assert_eq!(keys_url(issuer, b"<html>"), Err(FetchError::Discovery));
    }

    #[test]
    fn authorities_are_added_and_must_be_some() {
        assert!(trust(None).is_ok());
        assert_eq!(trust(Some(b"nothing")).err(), Some(AuthoritiesError));
        let one = rcgen::generate_simple_self_signed(vec!["issuer.example".to_owned()]).unwrap();
        assert!(trust(Some(one.cert.pem().as_bytes())).is_ok());
    }
}
