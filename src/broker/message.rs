//! What must hold of every message, whatever it asks for (RFC 9110, RFC 9112): two programs on its way must
//! not read two things in it.

use std::net::Ipv6Addr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, Version, header};

use crate::broker::error::Problem;

/// Longest name of a content coding that is repeated to whoever sent it, bytes.
const MAX_CODING: usize = 32;

/// Whether a message says clearly whom it is for, and where its body ends.
///
/// # Errors
/// [`Problem::MalformedHost`] (RFC 9112, section 3.2) or [`Problem::TransferEncoding`] (section 6.1).
pub fn check(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter().map(|host| host.to_str().is_ok_and(is_host));
    let named = match (hosts.next(), hosts.next()) {
        // HTTP/2 has a field of its own for it, HTTP/1.0 none at all.
        (None, _) => version != Version::HTTP_11,
        (Some(legal), None) => legal,
        (Some(_), Some(_)) => false,
    };
    if !named || !uri.authority().map(Authority::as_str).is_none_or(is_host) {
        return Err(Problem::MalformedHost);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        // Whoever is in front may have undone another coding, or not.
        _ => Err(Problem::TransferEncoding),
    }
}

/// Whether a body comes as it is.
///
/// # Errors
/// [`Problem::ContentEncoding`] with what it is encoded by, as far as that has a name.
pub fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let fields = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut codings = Vec::new();
    for coding in fields.flat_map(|field| field.to_str().unwrap_or("?").split(',')).map(str::trim) {
        let named = coding.len() <= MAX_CODING && coding.bytes().all(is_token);
        if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
            codings.push(if named { coding } else { "an unknown one" });
        }
    }
    if codings.is_empty() { Ok(()) } else { Err(Problem::ContentEncoding(codings.join(", "))) }
}

/// A host and, if wished, a port (RFC 9110, section 7.2), without which no https URL can be.
fn is_host(text: &str) -> bool {
    let (legal, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let Some((address, port)) = bracketed.split_once(']') else { return false };
        (address.parse::<Ipv6Addr>().is_ok(), port)
    } else {
        let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        (!name.is_empty() && is_name(name), port)
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let no_port = port.is_empty() || port == ":";
    legal
        && (no_port
            || port.starts_with(':')
                && digits.bytes().all(|c| c.is_ascii_digit())
                && digits.parse::<u16>().is_ok())
}

/// A registered name or an IPv4 address (RFC 3986, section 3.2.2).
fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&c);
    let mut parts = name.split('%');
    parts.next().is_some_and(|first| first.bytes().all(plain))
        && parts.all(|part| {
            let (hex, rest) = part.as_bytes().split_at(part.len().min(2));
            hex.len() == 2 && hex.iter().all(u8::is_ascii_hexdigit) && rest.iter().copied().all(plain)
        })
}

/// RFC 9110, section 5.6.2.
fn is_token(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &header::HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    fn hosts(version: Version, uri: &str, hosts: &[&str]) -> Result<(), Problem> {
        check(version, &uri.parse().unwrap(), &headers(&header::HOST, hosts))
    }

    #[test]
    fn a_message_names_one_host() {
        let good = [
            "h",
            "kyma.example.com",
            "kyma.example.com:443",
            "h:",
            "10.0.0.1:80",
            "[::1]",
            "[::1]:8080",
            "%41b",
        ];
        for host in good {
            assert_eq!(hosts(Version::HTTP_11, "/", &[host]), Ok(()), "{host}");
            assert_eq!(hosts(Version::HTTP_11, "http://other/", &[host]), Ok(()), "{host}");
        }
        for host in [
            "", ":80", "a b", "a/b", "a@b", "h:x", "h:70000", "h:80:80", "h:+80", "[::1", "[x]", "::1",
            "[::1]80", "%4", "%zz", "h\u{e4}",
        ] {
            assert_eq!(hosts(Version::HTTP_11, "/", &[host]), Err(Problem::MalformedHost), "{host}");
            assert_eq!(hosts(Version::HTTP_2, "https://h/", &[host]), Err(Problem::MalformedHost), "{host}");
        }
        assert_eq!(hosts(Version::HTTP_11, "/", &["h", "h"]), Err(Problem::MalformedHost));
        assert_eq!(hosts(Version::HTTP_11, "/", &[]), Err(Problem::MalformedHost));
        assert_eq!(hosts(Version::HTTP_11, "http://h/", &[]), Err(Problem::MalformedHost));
        assert_eq!(hosts(Version::HTTP_11, "http://u@h/", &["h"]), Err(Problem::MalformedHost));
        assert_eq!(hosts(Version::HTTP_10, "/", &[]), Ok(()));
        assert_eq!(hosts(Version::HTTP_2, "https://h/", &[]), Ok(()));
        assert_eq!(hosts(Version::HTTP_2, "https://u@h/", &[]), Err(Problem::MalformedHost));
    }

    #[test]
    fn a_body_is_in_chunks_or_as_long_as_it_says() {
        let check = |values: &[&str]| {
            let mut headers = headers(&header::TRANSFER_ENCODING, values);
            headers.insert(header::HOST, "h".parse().unwrap());
            super::check(Version::HTTP_11, &Uri::from_static("/"), &headers)
        };
        for good in [&[][..], &["chunked"], &["Chunked"]] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for bad in [
            &["gzip, chunked"][..],
            &["gzip", "chunked"],
            &["chunked", "chunked"],
            &["chunked, chunked"],
            &["identity"],
            &[""],
        ] {
            assert_eq!(check(bad), Err(Problem::TransferEncoding), "{bad:?}");
        }
    }

    #[test]
    fn what_a_body_is_encoded_by_is_named() {
        let check = |values: &[&str]| check_encoding(&headers(&header::CONTENT_ENCODING, values));
        for good in [&[][..], &[""], &["identity"], &["Identity, identity"]] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for (values, named) in [
            (&["gzip"][..], "gzip"),
            (&["identity, gzip", "br"], "gzip, br"),
            (&["<b>"], "an unknown one"),
            (&["g\u{e4}"], "an unknown one"),
            (&["x".repeat(33).as_str()], "an unknown one"),
        ] {
            assert_eq!(check(values), Err(Problem::ContentEncoding(named.to_owned())), "{values:?}");
        }
    }
}
