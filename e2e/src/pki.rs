//! The certificates and keys of one cluster.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey as _,
};
use rustls::pki_types::PrivatePkcs1KeyDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;

/// How long the certificates of a test cluster are valid.
const VALIDITY: Duration = Duration::from_hours(24);
/// The object identifier of `organizationName`.
const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];

/// What can go wrong while keys and certificates are made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The certificate library refused.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A client certificate can hold two groups here, no more.
    #[error("a client certificate holds at most 2 groups, not {0}")]
    TooManyGroups(usize),
    /// Not what it should be.
    #[error("a key or certificate of another form than expected")]
    Form,
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub cert_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: String,
}

/// The certificate authority of a cluster, which signs server and client certificates, and the
/// key pair that signs service account tokens.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    service_accounts: KeyPair,
}

impl Pki {
    /// Makes new keys; nothing is shared with another cluster.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when the library cannot make keys or sign.
    pub fn generate(cluster: &str) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(&format!("{cluster} test authority"), &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), ca_pem, service_accounts: KeyPair::generate()? })
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The private key that signs service account tokens, PEM.
    #[must_use]
    pub fn service_account_key_pem(&self) -> String {
        self.service_accounts.serialize_pem()
    }

    /// The public key that service account tokens are checked with, PEM.
    #[must_use]
    pub fn service_account_public_pem(&self) -> String {
        self.service_accounts.public_key_pem()
    }

    /// A certificate for a server on the loopback interface.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when the library cannot make a key or sign.
    pub fn server(&self) -> Result<Identity, PkiError> {
        self.server_at(&[])
    }

    /// The same with further addresses.
    ///
    /// # Errors
    /// As [`Self::server`].
    pub fn server_at(&self, addresses: &[&str]) -> Result<Identity, PkiError> {
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"];
        let names: Vec<_> = names.iter().chain(addresses).map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = name("kube-apiserver", &[])?;
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    /// The same as [`Self::server`], changed in a way that makes it no good.
    ///
    /// # Errors
    /// As [`Self::server`].
    pub fn server_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        params.distinguished_name = name("kube-apiserver", &[])?;
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth, change)
    }

    /// A client certificate: the API server takes `cn` as the user and `organizations`, two at
    /// most, as the groups. Every call makes a new key, and is valid for a day.
    ///
    /// # Errors
    /// [`PkiError::TooManyGroups`], or [`PkiError::Certificate`] when signing fails.
    pub fn client(&self, cn: &str, organizations: &[&str]) -> Result<Identity, PkiError> {
        self.sign(params(cn, organizations)?, ExtendedKeyUsagePurpose::ClientAuth, |_| {})
    }

    /// A client certificate of X.509's version 1, which has no extensions: what `openssl x509 -req` makes
    /// where it is told of none.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn client_of_version_1(&self, cn: &str, organizations: &[&str]) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = params(cn, organizations)?.signed_by(&key, &self.issuer)?;
        let [signed, algorithm, _] = der::items(certificate.der()).try_into().map_err(|_| PkiError::Form)?;
        // Without version and extensions.
        let rest = der::items(signed).into_iter().filter(|item| ![0xa0, 0xa3].contains(&item[0]));
        let signed = der::tagged(der::SEQUENCE, &rest.collect::<Vec<_>>().concat());
        let signature = [&[0], self.issuer.key().sign(&signed)?.as_slice()].concat();
        let signature = der::tagged(der::BIT_STRING, &signature);
        let whole = der::tagged(der::SEQUENCE, &[signed.as_slice(), algorithm, &signature].concat());
        Ok(Identity { cert_pem: der::pem("CERTIFICATE", &whole), key_pem: key.serialize_pem() })
    }

    /// A client certificate for an RSA key (PKCS#1) that was made elsewhere, of any length.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn client_for(
        &self,
        rsa_key_pem: &str,
        cn: &str,
        organizations: &[&str],
    ) -> Result<Identity, PkiError> {
        let key = PrivatePkcs1KeyDer::from_pem_slice(rsa_key_pem.as_bytes()).map_err(|_| PkiError::Form)?;
        let [_, modulus, exponent, ..] = der::items(key.secret_pkcs1_der())[..] else {
            return Err(PkiError::Form);
        };
        let public = RsaPublicKey(der::tagged(der::SEQUENCE, &[modulus, exponent].concat()));
        let certificate = params(cn, organizations)?.signed_by(&public, &self.issuer)?;
        Ok(Identity { cert_pem: certificate.pem(), key_pem: rsa_key_pem.to_owned() })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Identity, PkiError> {
        set_validity(&mut params);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// One whose private half isn't needed.
struct RsaPublicKey(Vec<u8>);

impl PublicKeyData for RsaPublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

/// As much of DER as it takes to put certificates together otherwise than the library does.
mod der {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const BIT_STRING: u8 = 0x03;

    /// The items of a sequence, each with its tag; none of what isn't one.
    pub(super) fn items(sequence: &[u8]) -> Vec<&[u8]> {
        let Some((_, mut rest)) = content(sequence).map(|(head, end)| (head, &sequence[head..end])) else {
            return Vec::new();
        };
        let mut items = Vec::new();
        while let Some((_, end)) = content(rest) {
            items.push(&rest[..end]);
            rest = &rest[end..];
        }
        items
    }

    /// Where the content of the first item begins and ends.
    fn content(der: &[u8]) -> Option<(usize, usize)> {
        let first = usize::from(*der.get(1)?);
        let (head, length) = match first.checked_sub(0x80) {
            None => (2, first),
            Some(bytes) => {
                let length = der.get(2..2 + bytes)?;
                (2 + bytes, length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
            }
        };
        (head + length <= der.len()).then_some((head, head + length))
    }

    pub(super) fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
        let mut der = vec![tag];
        if content.len() >= 0x80 {
            der.push(0x80 | u8::try_from(significant.len()).unwrap_or_default());
        }
        der.extend_from_slice(significant);
        der.extend_from_slice(content);
        der
    }

    pub(super) fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }
}

fn params(cn: &str, organizations: &[&str]) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(cn, organizations)?;
    set_validity(&mut params);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    // From an hour ago on: a clock that steps back must not make a test cluster unusable.
    params.not_before = now - Duration::from_hours(1);
    params.not_after = now + VALIDITY;
}

fn name(cn: &str, organizations: &[&str]) -> Result<DistinguishedName, PkiError> {
    let mut name = DistinguishedName::new();
    // The library's name is a map: one value per attribute type. The same attribute named by
    // its number is another key with the same encoding, hence a second value and not a third.
    let kinds = [DnType::OrganizationName, DnType::CustomDnType(ORGANIZATION.to_vec())];
    if organizations.len() > kinds.len() {
        return Err(PkiError::TooManyGroups(organizations.len()));
    }
    for (kind, organization) in kinds.into_iter().zip(organizations) {
        name.push(kind, *organization);
    }
    name.push(DnType::CommonName, cn);
    Ok(name)
}
