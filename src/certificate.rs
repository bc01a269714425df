//! When a certificate ends. All that is read of one: whether it is good is for TLS to say.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Tags of X.690 that are met on the way.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of the first certificate in a PEM file; `None` when that can't be read.
#[must_use]
pub fn ends(pem: &[u8]) -> Option<Timestamp> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate, _) = next(&certificate)?;
    let (_, fields, _) = next(certificate)?;
    // Version (where there is one), serial number, algorithm, issuer, validity.
    let (tag, _, behind) = next(fields)?;
    let mut fields = if tag == VERSION { next(behind)?.2 } else { behind };
    for _ in 0..2 {
        fields = next(fields)?.2;
    }
    let (SEQUENCE, validity, _) = next(fields)? else { return None };
    let (_, _, after) = next(validity)?;
    let (tag, text, _) = next(after)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// Tag and content of the first element, and what is behind it.
fn next(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(b, _)| b.len() <= 4)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

/// The two forms of RFC 5280 (4.1.2.5), both in UTC.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let text = match tag {
        // Two digits of a year before 2050.
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    #[test]
    fn the_end_is_read_in_both_forms() {
        let key = KeyPair::generate().unwrap();
        for (year, end) in [(2031, "2031-02-03T00:00:00Z"), (2071, "2071-02-03T00:00:00Z")] {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 2, 3);
            let pem = params.self_signed(&key).unwrap().pem();
            assert_eq!(ends(pem.as_bytes()), Some(end.parse().unwrap()));
        }
    }

    #[test]
    fn anything_else_has_no_end() {
        assert_eq!(ends(b""), None);
        assert_eq!(ends(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"), None);
        assert_eq!(next(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(next(&[SEQUENCE, 0xff, 1]), None);
        assert_eq!(time(UTC_TIME, "9"), None);
    }
}
