//! What the `*-data` of a kubeconfig hold: base64 of PEM of X.509 certificates and keys. Read as kubectl reads
//! them, and kept as what was read: nothing that stands beside goes any further.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::{Error as PemError, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Version;

use super::refusal::Refusal;
use crate::support::secret::{SecretString, Zeroizing};

pub(super) const AUTHORITY: &str = "certificate-authority-data";
pub(super) const CERTIFICATE: &str = "client-certificate-data";
pub(super) const KEY: &str = "client-key-data";
/// Characters of base64 in a line of PEM (RFC 7468).
const LINE: usize = 64;
/// RSA keys of fewer bits are refused by the TLS library.
const MIN_RSA_BITS: usize = 2048;

/// Bits beyond the last byte needn't be zero: Go looks at them as little.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// A client certificate with its key, as kube takes them: base64 of PEM.
pub(super) struct Identity {
    pub certificate: String,
    pub key: SecretString,
}

/// What a field has in base64, which may be broken into lines; `None` if that is nothing.
pub(super) fn decode(field: &'static str, text: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal> {
    let text: Zeroizing<String> = text.replace(['\r', '\n'], "").into();
    let bytes = LENIENT.decode(text.as_str()).map_err(|_| Refusal::NotBase64(field))?;
    Ok(Some(Zeroizing::new(bytes)).filter(|bytes| !bytes.is_empty()))
}

/// The authorities in PEM. As in Go, a block among others that can't be parsed doesn't count.
pub(super) fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let mut found = certificates(AUTHORITY, pem)?;
    let mut store = RootCertStore::empty();
    found.retain(|certificate| store.add(certificate.clone()).is_ok());
    if found.is_empty() { Err(Refusal::NotX509(AUTHORITY)) } else { Ok(found) }
}

fn certificates(field: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    if !has(pem, "-----BEGIN ") {
        return Err(Refusal::NotPem(field, "CERTIFICATE"));
    }
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
    if found.is_empty() { Err(Refusal::NoBlock(field, "CERTIFICATE")) } else { Ok(found) }
}

/// A certificate and its key, if they are a pair that a TLS client can use.
pub(super) fn identity(certificate: &[u8], key: &[u8]) -> Result<Identity, Refusal> {
    let chain = certificates(CERTIFICATE, certificate)?;
    let leaf = chain.first().ok_or(Refusal::NoBlock(CERTIFICATE, "CERTIFICATE"))?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|_| Refusal::NotX509(CERTIFICATE))?;
    if leaf.version() == X509Version::V1 {
        return Err(Refusal::Version1);
    }
    let short =
        matches!(leaf.public_key().parsed(), Ok(PublicKey::RSA(rsa)) if rsa.key_size() < MIN_RSA_BITS);
    let key = private_key(key)?;
    let (label, der) = match &key {
        PrivateKeyDer::Pkcs1(key) => ("RSA PRIVATE KEY", key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => ("EC PRIVATE KEY", key.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(key) => ("PRIVATE KEY", key.secret_pkcs8_der()),
        _ => return Err(Refusal::Key),
    };
    let identity = Identity {
        certificate: STANDARD.encode(to_pem(&chain)),
        key: STANDARD.encode(block(label, der).as_bytes()).into(),
    };
    match CertifiedKey::from_der(chain.clone(), key.clone_key(), &default_provider()) {
        Ok(_) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Refusal::OtherKey),
        Err(rustls::Error::InvalidCertificate(_)) => Err(Refusal::NotX509(CERTIFICATE)),
        Err(_) if short => Err(Refusal::ShortKey),
        Err(_) => Err(Refusal::Key),
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Refusal> {
    if has(pem, "-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(pem, "Proc-Type: 4,ENCRYPTED") {
        return Err(Refusal::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound if !has(pem, "-----BEGIN ") => Refusal::NotPem(KEY, "PRIVATE KEY"),
        _ => Refusal::NoBlock(KEY, "PRIVATE KEY"),
    })
}

fn has(pem: &[u8], text: &str) -> bool {
    pem.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Certificates as PEM, and nothing else.
pub(super) fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|certificate| block("CERTIFICATE", certificate).to_string()).collect()
}

fn block(label: &str, der: &[u8]) -> Zeroizing<String> {
    let mut pem = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}
