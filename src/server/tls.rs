//! The certificate of the API's listener.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The protocol that a client may choose besides HTTP/1.1 (RFC 7301, RFC 9113).
pub const HTTP_2: &[u8] = b"h2";

/// What is wrong with certificate or key. Never quotes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// No chain.
    #[error("it must hold the certificate, and those of its issuers behind it, as PEM")]
    Certificate,
    /// No key.
    #[error("--tls-key must hold one private key as PEM, without a password")]
    Key,
    /// Not a pair.
    #[error("--tls-key must hold the key of that certificate")]
    Mismatch,
    /// For whatever else.
    #[error("the certificate and its key must be RSA, ECDSA or Ed25519, and in order")]
    Unusable,
}

/// What a listener needs, from the content of the certificate's file and of the key's. TLS 1.2 and 1.3.
///
/// # Errors
/// The first [`TlsError`] found.
pub fn parse(contents: &[Vec<u8>]) -> Result<ServerConfig, TlsError> {
    let [certificate, key] = contents else { return Err(TlsError::Certificate) };
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| TlsError::Unusable)?;
    let config = config.with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|error| match error {
        Error::InconsistentKeys(_) => TlsError::Mismatch,
        _ => TlsError::Unusable,
    })?;
    config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Why a certificate is worth nothing at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lapse {
    /// Its time is over.
    #[error("the {0} has expired at {1}")]
    Expired(&'static str, Timestamp),
    /// Its time has not come.
    #[error("the {0} is not valid before {1}, by this machine's clock")]
    NotYet(&'static str, Timestamp),
}

/// The first certificate of a chain in PEM that is not valid now, if there is one.
#[must_use]
pub fn lapse(pem: &[u8], now: Timestamp) -> Option<Lapse> {
    let names = std::iter::once("certificate").chain(std::iter::repeat("certificate of an issuer in it"));
    names.zip(CertificateDer::pem_slice_iter(pem).flatten()).find_map(|(name, certificate)| {
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let validity = certificate.validity();
        let (begins, ends) = (at(validity.not_before)?, at(validity.not_after)?);
        match now {
            now if now > ends => Some(Lapse::Expired(name, ends)),
            now if now < begins => Some(Lapse::NotYet(name, begins)),
            _ => None,
        }
    })
}

/// When the first certificate of a PEM file ends; `None` when that can't be read.
#[must_use]
pub fn ends(pem: &[u8]) -> Option<Timestamp> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Whether a client that should shake hands speaks HTTP without TLS: a method begins with a letter, a record of TLS
/// doesn't.
///
/// # Errors
/// When it has gone, or says nothing more.
pub async fn is_plain_http(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0].is_ascii_alphabetic()),
    }
}

/// The answer to such a request, whatever it asks for.
const NO_TLS: &str =
    r#"{"description":"this port speaks HTTP over TLS; ask again with https:// instead of http://"}"#;
/// Most bytes of such a request that are read.
const MAX_PLAIN: u64 = 64 * 1024;

/// Tells a client that speaks HTTP without TLS what would be right, and reads on until it has taken that.
///
/// # Errors
/// When it has gone.
pub async fn refuse_plain_http(mut stream: TcpStream) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{NO_TLS}",
        NO_TLS.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // What is not read when a socket is closed resets the connection, and the answer may be lost.
    tokio::io::copy(&mut stream.take(MAX_PLAIN), &mut tokio::io::sink()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    fn pair() -> (Vec<u8>, Vec<u8>) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (cert.pem().into_bytes(), signing_key.serialize_pem().into_bytes())
    }

    #[test]
    fn a_pair_is_accepted_and_anything_else_said() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        let error = |certificate: &[u8], key: &[u8]| parse(&[certificate.to_vec(), key.to_vec()]).err();
        assert_eq!(error(&certificate, &key), None);
        assert_eq!(error(&certificate, &other), Some(TlsError::Mismatch));
        assert_eq!(error(&key, &key), Some(TlsError::Certificate));
        assert_eq!(error(b"", &key), Some(TlsError::Certificate));
        assert_eq!(error(&certificate, &certificate), Some(TlsError::Key));
        assert_eq!(error(&certificate, b"secret"), Some(TlsError::Key));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(error(nonsense.as_bytes(), &key), Some(TlsError::Unusable));
    }

    #[test]
    fn a_certificate_that_is_not_valid_now_is_told_whoever_it_is_of() {
        let key = rcgen::KeyPair::generate().unwrap();
        let of = |from, to| {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            (params.not_before, params.not_after) =
                (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
            params.self_signed(&key).unwrap().pem()
        };
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let said = |pem: String| lapse(pem.as_bytes(), now).map(|lapse| lapse.to_string());
        assert_eq!(said(of(2026, 2027)), None);
        let expired = "the certificate has expired at 2026-01-01T00:00:00Z";
        assert_eq!(said(of(2025, 2026)).as_deref(), Some(expired));
        let early = said(of(2027, 2028)).unwrap();
        assert!(early.starts_with("the certificate is not valid before 2027-01-01T00:00:00Z"), "{early}");
        let issuer = said(of(2026, 2027) + &of(2025, 2026)).unwrap();
        assert!(issuer.starts_with("the certificate of an issuer in it has expired"), "{issuer}");
        assert_eq!(said(String::new()), None);
    }

    #[test]
    fn both_protocols_are_offered() {
        let (certificate, key) = pair();
        let config = parse(&[certificate, key]).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn the_end_of_a_certificate_is_read_where_there_is_one() {
        let key = rcgen::KeyPair::generate().unwrap();
        // Before and after 2050 it is written in two ways (RFC 5280, 4.1.2.5).
        for (year, end) in [(2031, "2031-02-03T00:00:00Z"), (2071, "2071-02-03T00:00:00Z")] {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 2, 3);
            let pem = params.self_signed(&key).unwrap().pem();
            assert_eq!(ends(pem.as_bytes()), Some(end.parse().unwrap()));
        }
        assert_eq!(ends(b""), None);
        assert_eq!(ends(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"), None);
    }
}
