//! The certificates and keys of one cluster.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
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
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate: the API server takes `cn` as the user and `organizations`, two at
    /// most, as the groups. Every call makes a new key, and is valid for a day.
    ///
    /// # Errors
    /// [`PkiError::TooManyGroups`], or [`PkiError::Certificate`] when signing fails.
    pub fn client(&self, cn: &str, organizations: &[&str]) -> Result<Identity, PkiError> {
        self.sign(params(cn, organizations)?, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<Identity, PkiError> {
        set_validity(&mut params);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
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
