//! The certificate of the API's listener.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, ServerConfig};

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
    fn both_protocols_are_offered() {
        let (certificate, key) = pair();
        let config = parse(&[certificate, key]).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
}
