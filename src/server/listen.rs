//! The addresses that are listened on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as Socket};

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen as take_connections, socket_with};
use tokio::net::TcpListener;

/// Connections that wait to be accepted, as of tokio's own listeners.
const WAITING: i32 = 1024;

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} as {flag} says")]
pub struct ListenError {
    flag: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Listens on an address that a flag named. `[::]` means all addresses of the host, by IPv4 and IPv6, and those by
/// IPv4 alone where the kernel has no IPv6. Every other address is taken as it is.
///
/// # Errors
/// When the address isn't ours or is taken.
pub async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    let listener = match address.ip() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => on_all(address.port(), by_both),
        _ => TcpListener::bind(address).await,
    };
    listener.map_err(|source| ListenError { flag, address, source })
}

fn on_all(port: u16, by_both: impl FnOnce(SocketAddr) -> io::Result<Socket>) -> io::Result<TcpListener> {
    let socket = match by_both((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if lacks_ipv6(&error) => {
            tracing::warn!("this host has no IPv6: listening by IPv4 alone");
            Socket::bind((Ipv4Addr::UNSPECIFIED, port))?
        }
        tried => tried?,
    };
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Whatever the host's default is, which a sysctl can change.
fn by_both(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_ipv6_v6only(&socket, false)?;
    // A restart finds connections of the process before that are not forgotten yet.
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    take_connections(&socket, WAITING)?;
    Ok(socket.into())
}

/// Whether a listener failed for want of IPv6: no such sockets, or no such addresses.
fn lacks_ipv6(error: &io::Error) -> bool {
    let lacking = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| lacking.iter().any(|lack| lack.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    async fn reaches(host: impl Into<IpAddr>, listener: &TcpListener) -> bool {
        let address = (host.into(), listener.local_addr().unwrap().port());
        TcpStream::connect(address).await.is_ok()
    }

    #[tokio::test]
    async fn the_default_is_reached_by_ipv4_and_by_ipv6() {
        let listener = listen("--listen", "[::]:0".parse().unwrap()).await.unwrap();
        assert!(reaches(Ipv4Addr::LOCALHOST, &listener).await);
        if Socket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            assert!(reaches(Ipv6Addr::LOCALHOST, &listener).await);
        }
    }

    #[tokio::test]
    async fn without_ipv6_it_is_reached_by_ipv4() {
        for lack in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let listener = on_all(0, |_| Err(lack.into())).unwrap();
            assert!(reaches(Ipv4Addr::LOCALHOST, &listener).await);
            assert!(!reaches(Ipv6Addr::LOCALHOST, &listener).await);
        }
    }

    #[tokio::test]
    async fn another_failure_is_one() {
        let taken = listen("--listen", "[::]:0".parse().unwrap()).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        for address in [format!("[::]:{port}"), format!("127.0.0.1:{port}"), "[2001:db8::1]:0".to_owned()] {
            let error = listen("--listen", address.parse().unwrap()).await.unwrap_err();
            assert_eq!(error.to_string(), format!("cannot listen on {address} as --listen says"));
        }
    }
}
