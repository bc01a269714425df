//! Where a managed cluster's server may be. Pure.
//!
//! A kubeconfig names a host, and whoever owns the name decides where that is, each time anew. So it
//! is the address that is judged, when it is connected to. Private networks are no exception: clusters
//! may be reached there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Why nothing is connected to, in our own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This machine, or pod.
    #[error("a loopback address")]
    Loopback,
    /// The same link; the cloud's metadata services are there.
    #[error("a link-local or metadata address")]
    LinkLocal,
    /// No address of a host: Linux takes it for this machine.
    #[error("an unspecified or reserved address")]
    Unspecified,
    /// Many hosts, or all.
    #[error("a multicast or broadcast address")]
    Multicast,
    /// The cluster that this software lives in.
    #[error("the control plane's own address")]
    ControlPlane,
}

/// A network, or names, whose servers may be anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    /// All names that end so; it begins with a dot.
    Suffix(String),
    /// This name.
    Name(String),
    /// All addresses that begin with as many bits of this one.
    Network(IpAddr, u8),
}

/// What `--managed-server-allow` says: names and networks, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList(Vec<Allowed>);

/// What to judge by.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    allowed: Vec<Allowed>,
    control_plane: Option<(String, u16)>,
}

impl FromStr for AllowList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(allowed).collect::<Result<_, _>>().map(Self)
    }
}

fn allowed(text: &str) -> Result<Allowed, String> {
    let wrong = || {
        format!(
            "{text:?} must be a name such as api.example.com, a suffix such as .example.com, or a network such as 10.0.0.0/8"
        )
    };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| wrong())?)),
        None => (text, None),
    };
    if let Ok(address) = address.parse::<IpAddr>() {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(most);
        return (prefix <= most).then_some(Allowed::Network(address, prefix)).ok_or_else(wrong);
    }
    let name = text.to_ascii_lowercase();
    let labels = name.strip_prefix('.').unwrap_or(&name);
    let legal = |label: &str| {
        !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    // What ends in a number is an address that was mistyped.
    let numeric = labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    if prefix.is_some() || numeric || !labels.split('.').all(legal) {
        return Err(wrong());
    }
    Ok(if name.starts_with('.') { Allowed::Suffix(name) } else { Allowed::Name(name) })
}

impl Policy {
    /// What is allowed beside what everybody may, and host and port of the control plane.
    #[must_use]
    pub fn new(lists: &[AllowList], control_plane: Option<(String, u16)>) -> Self {
        let allowed = lists.iter().flat_map(|list| list.0.clone()).collect();
        let control_plane = control_plane.map(|(host, port)| (plain(&host), port));
        Self { allowed, control_plane }
    }

    /// Host and port of the control plane.
    #[must_use]
    pub fn control_plane(&self) -> Option<&(String, u16)> {
        self.control_plane.as_ref()
    }

    /// Judges an address that `host` has at this moment, where the control plane has those.
    ///
    /// # Errors
    /// When nothing may be connected to there.
    pub fn judge(&self, host: &str, address: SocketAddr, control_plane: &[IpAddr]) -> Result<(), Refused> {
        let (host, ip) = (plain(host), embedded(address.ip()));
        if self.allowed.iter().any(|allowed| allowed.covers(&host, ip)) {
            return Ok(());
        }
        if let Some((name, port)) = &self.control_plane
            && *port == address.port()
            && (*name == host || control_plane.iter().any(|theirs| embedded(*theirs) == ip))
        {
            return Err(Refused::ControlPlane);
        }
        of_no_host(ip).map_or(Ok(()), Err)
    }
}

impl Allowed {
    fn covers(&self, host: &str, ip: IpAddr) -> bool {
        match self {
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Name(name) => host == name,
            Self::Network(network, prefix) => match (network, ip) {
                (IpAddr::V4(network), IpAddr::V4(ip)) => {
                    let rest = 32 - u32::from(*prefix);
                    (network.to_bits() ^ ip.to_bits()).checked_shr(rest).unwrap_or(0) == 0
                }
                (IpAddr::V6(network), IpAddr::V6(ip)) => {
                    let rest = 128 - u32::from(*prefix);
                    (network.to_bits() ^ ip.to_bits()).checked_shr(rest).unwrap_or(0) == 0
                }
                _ => false,
            },
        }
    }
}

/// A host in the form in which it is compared: names end with or without a dot.
fn plain(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    host.strip_suffix('.').map(str::to_owned).unwrap_or(host)
}

/// The IPv4 address that is meant by an IPv6 address that stands for one: mapped, compatible, or
/// translated (RFC 4291, RFC 6052).
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let last = || IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(v6.to_bits() & 0xffff_ffff).unwrap_or(0)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => last(),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => last(),
        _ => ip,
    }
}

/// What no managed cluster has for an address.
fn of_no_host(ip: IpAddr) -> Option<Refused> {
    /// The metadata service of AWS by IPv6.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match ip {
        _ if ip.is_loopback() => Some(Refused::Loopback),
        IpAddr::V4(ip) if ip.is_link_local() => Some(Refused::LinkLocal),
        IpAddr::V6(ip) if ip.is_unicast_link_local() || ip == METADATA => Some(Refused::LinkLocal),
        IpAddr::V4(ip) if ip.octets()[0] == 0 => Some(Refused::Unspecified),
        IpAddr::V4(ip) if ip.is_broadcast() => Some(Refused::Multicast),
        IpAddr::V4(ip) if ip.octets()[0] >= 240 => Some(Refused::Unspecified),
        _ if ip.is_unspecified() => Some(Refused::Unspecified),
        _ if ip.is_multicast() => Some(Refused::Multicast),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(allow: &str, host: &str, ip: &str) -> Result<(), Refused> {
        let control = Some(("kubernetes.default.svc".to_owned(), 443));
        let policy = Policy::new(&[allow.parse().unwrap()], control);
        policy.judge(host, SocketAddr::new(ip.parse().unwrap(), 443), &["10.96.0.1".parse().unwrap()])
    }

    #[test]
    fn an_address_of_no_managed_cluster_is_refused_in_every_spelling() {
        for (ip, refused) in [
            ("127.0.0.1", Refused::Loopback),
            ("127.9.9.9", Refused::Loopback),
            ("::1", Refused::Loopback),
            ("::ffff:127.0.0.1", Refused::Loopback),
            ("::127.0.0.1", Refused::Loopback),
            ("64:ff9b::7f00:1", Refused::Loopback),
            ("169.254.169.254", Refused::LinkLocal),
            ("::ffff:169.254.169.254", Refused::LinkLocal),
            ("64:ff9b::a9fe:a9fe", Refused::LinkLocal),
            ("fe80::1", Refused::LinkLocal),
            ("fd00:ec2::254", Refused::LinkLocal),
            ("0.0.0.0", Refused::Unspecified),
            ("0.1.2.3", Refused::Unspecified),
            ("::", Refused::Unspecified),
            ("240.0.0.1", Refused::Unspecified),
            ("224.0.0.1", Refused::Multicast),
            ("255.255.255.255", Refused::Multicast),
            ("ff02::1", Refused::Multicast),
            ("10.96.0.1", Refused::ControlPlane),
            ("::ffff:10.96.0.1", Refused::ControlPlane),
        ] {
            assert_eq!(judge("", "api.example.com", ip), Err(refused), "{ip}");
        }
        assert_eq!(judge("", "Kubernetes.Default.Svc.", "10.0.0.7"), Err(Refused::ControlPlane));
    }

    #[test]
    fn all_else_may_be_connected_to_private_networks_too() {
        for ip in ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2001:db8::1"]
        {
            assert_eq!(judge("", "api.example.com", ip), Ok(()), "{ip}");
        }
        let policy = Policy::new(&[], Some(("10.96.0.1".to_owned(), 443)));
        let other_port = "10.96.0.1:6443".parse().unwrap();
        assert_eq!(policy.judge("10.96.0.1", other_port, &[]), Ok(()), "another port is another server");
    }

    #[test]
    fn what_is_allowed_is_allowed_and_nothing_beside_it() {
        let host = "api.c1.example.com";
        for (allow, ip, fits) in [
            ("127.0.0.0/8", "127.0.0.1", true),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
            ("127.0.0.0/8", "::1", false),
            ("127.0.0.2", "127.0.0.1", false),
            ("169.254.0.0/17, ::1", "169.254.169.254", false),
            ("169.254.0.0/17, ::1", "::1", true),
            ("0.0.0.0/0", "10.96.0.1", true),
            (".example.com", "127.0.0.1", true),
            (".Example.Com", "127.0.0.1", true),
            ("example.com", "127.0.0.1", false),
            (".c1.example.com,x", "127.0.0.1", true),
            (".1.example.com", "127.0.0.1", false),
            (host, "127.0.0.1", true),
        ] {
            assert_eq!(judge(allow, host, ip).is_ok(), fits, "{allow} {ip}");
        }
        assert!(judge(".example.com", ".example.com", "127.0.0.1").is_err(), "a suffix alone is no name");
    }

    #[test]
    fn what_is_no_name_and_no_network_is_told_so() {
        for text in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "a/8",
            "*.example.com",
            ".",
            "a..b",
            "ä.example",
            "https://a",
            "10.0.0.256",
        ] {
            let message = text.parse::<AllowList>().unwrap_err();
            assert!(message.contains(text) && message.contains("10.0.0.0/8"), "{message}");
        }
        assert_eq!("".parse(), Ok(AllowList::default()));
    }
}
