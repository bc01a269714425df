//! Why a call has no answer, in our own words: from the errors of the libraries below. Pure.

use std::error::Error as StdError;
use std::io::ErrorKind;

use http_body_util::LengthLimitError;
use rustls::{CertificateError, InvalidMessage};

use super::connect::{self, Unresolved};
use crate::cluster::error::{Failure, Misbehaviour, Tls, Unreachable};

/// The failure that an error stands for: the first cause in its chain that says enough.
pub(super) fn no_answer(error: &(dyn StdError + 'static)) -> Failure {
    let mut source = Some(error);
    let mut cause = Unreachable::NoConnection;
    while let Some(error) = source {
        if let Some(refused) = connect::refused(error) {
            return Failure::Address(refused);
        }
        if error.is::<Unresolved>() {
            return Failure::Unreachable(Unreachable::NoAddress);
        }
        if error.is::<LengthLimitError>() {
            return Failure::Misbehaves(Misbehaviour::TooLarge);
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Failure::Unreachable(Unreachable::Tls(tls(error)));
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>() {
            if hyper.is_incomplete_message() || hyper.is_closed() || hyper.is_canceled() {
                cause = Unreachable::Lost;
            } else if hyper.is_parse() {
                return Failure::Misbehaves(Misbehaviour::Form);
            }
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.kind() {
                ErrorKind::TimedOut => return Failure::TimedOut,
                ErrorKind::ConnectionRefused => return Failure::Unreachable(Unreachable::Refused),
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => cause = Unreachable::NoRoute,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
                    cause = Unreachable::Lost;
                }
                // rustls reports its errors wrapped into an io error of this kind.
                ErrorKind::InvalidData => cause = Unreachable::Tls(Tls::Other),
                _ => {}
            }
            // io::Error hides a wrapped error from `source`.
            if let Some(inner) = io.get_ref() {
                source = Some(inner);
                continue;
            }
        }
        source = error.source();
    }
    Failure::Unreachable(cause)
}

fn tls(error: &rustls::Error) -> Tls {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::AlertReceived(_) => Tls::Ended,
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge,
        ) => Tls::NoTls,
        _ => Tls::Other,
    }
}

fn certificate(error: &CertificateError) -> Tls {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Tls::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Tls::NotYetValid,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Tls::WrongName,
        // An authority that was made again has the name of the one before, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Tls::UnknownIssuer,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Tls::Purpose,
        CertificateError::Other(other)
            if matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)) =>
        {
            Tls::Authority
        }
        _ => Tls::Certificate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;
    use std::sync::Arc;
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        KeyUsagePurpose,
    };
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{OtherError, RootCertStore};

    #[test]
    fn a_cause_is_one_of_our_words() {
        let of = |error: Error| no_answer(&error);
        assert_eq!(of(ErrorKind::ConnectionRefused.into()), Failure::Unreachable(Unreachable::Refused));
        assert_eq!(of(ErrorKind::NetworkUnreachable.into()), Failure::Unreachable(Unreachable::NoRoute));
        assert_eq!(of(ErrorKind::TimedOut.into()), Failure::TimedOut);
        assert_eq!(of(Error::other("remote text")), Failure::Unreachable(Unreachable::NoConnection));
        assert_eq!(of(Error::other(Unresolved)), Failure::Unreachable(Unreachable::NoAddress));
        for (error, expected) in [
            (rustls::Error::HandshakeNotComplete, Tls::Other),
            (InvalidMessage::InvalidContentType.into(), Tls::NoTls),
            (rustls::Error::AlertReceived(rustls::AlertDescription::BadCertificate), Tls::Ended),
            (CertificateError::Other(OtherError(Arc::new(Unresolved))).into(), Tls::Certificate),
        ] {
            let wrapped = of(Error::new(ErrorKind::InvalidData, error));
            assert_eq!(wrapped, Failure::Unreachable(Unreachable::Tls(expected)));
        }
    }

    /// One day, around which certificates are valid.
    const NOW: u64 = 1_800_000_000;

    fn authority(name: &str) -> (Issuer<'static, KeyPair>, rcgen::Certificate) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        (Issuer::new(params, key), certificate)
    }

    /// What the verifier that connections use says of a certificate.
    fn judged(trusted: &rcgen::Certificate, shown: &rcgen::Certificate, now: u64) -> Option<Tls> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let name = ServerName::try_from("api.example.com").unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let error = verifier.verify_server_cert(shown.der(), &[], &name, &[], now).err()?;
        let Failure::Unreachable(Unreachable::Tls(cause)) = no_answer(&error) else { panic!("{error}") };
        Some(cause)
    }

    #[test]
    fn each_defect_of_a_certificate_has_its_own_words() {
        let (issuer, trusted) = authority("kubernetes");
        let server = |issuer: &Issuer<'_, KeyPair>, change: fn(&mut CertificateParams)| {
            let mut params = CertificateParams::new(vec!["api.example.com".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2027, 1, 1);
            params.not_after = rcgen::date_time_ymd(2027, 2, 1);
            change(&mut params);
            params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap()
        };
        let good = server(&issuer, |_| {});
        assert_eq!(judged(&trusted, &good, NOW), None);
        assert_eq!(judged(&trusted, &good, NOW + 90 * 86_400), Some(Tls::Expired));
        assert_eq!(judged(&trusted, &good, NOW - 90 * 86_400), Some(Tls::NotYetValid));
        let other = server(&issuer, |p| p.subject_alt_names.clear());
        assert_eq!(judged(&trusted, &other, NOW), Some(Tls::WrongName));
        for name in ["another", "kubernetes"] {
            let (stranger, _) = authority(name);
            assert_eq!(judged(&trusted, &server(&stranger, |_| {}), NOW), Some(Tls::UnknownIssuer), "{name}");
        }
        let authority = server(&issuer, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(judged(&trusted, &authority, NOW), Some(Tls::Authority));
        let client = server(&issuer, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        assert_eq!(judged(&trusted, &client, NOW), Some(Tls::Purpose));
    }
}
