//! Whether a request is meant for this machine by a name that only this machine has.
//!
//! A page from elsewhere, in a browser on this machine, can make its own name lead to a loopback
//! address (DNS rebinding). What it can't do is send another `Host` than that name.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

/// Whether all that the request says of its host is a loopback name or address.
pub fn is_local(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut named = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let authority = uri.authority().map(Authority::as_str);
    let first = authority.or_else(|| named.next());
    first.is_some_and(is_loopback) && named.all(is_loopback)
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(uri: &str, hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        is_local(&headers, &uri.parse().unwrap())
    }

    #[test]
    fn only_loopback_names_are_local() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "127.9.9.9", "[::1]", "[::1]:8080"] {
            assert!(local("/", &[host]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "evil.example:80",
            "10.0.0.1",
            "0.0.0.0",
            "[::]:80",
            "localhost@evil.example",
            "evil@localhost",
            "127.0.0.1.evil.example",
            "127.1",
            "local host",
        ] {
            assert!(!local("/", &[host]), "{host}");
        }
    }

    #[test]
    fn one_foreign_word_is_enough() {
        assert!(!local("/", &[]));
        assert!(!local("/", &["localhost", "evil.example"]));
        assert!(local("https://localhost:1/", &[]), "as HTTP/2 says it");
        assert!(!local("https://evil.example/", &["localhost"]));
        assert!(!local("https://localhost/", &["evil.example"]));
    }
}
