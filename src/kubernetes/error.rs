//! Why the control plane did not do what it was asked for, each with what would be right. No text of a server.

use std::error::Error as StdError;
use std::io;

use kube::core::Status;

/// Why a question to the control plane has no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The time is up.
    #[error("no answer in time; its API server must be well, and nothing on the way to it may drop packets")]
    Silent,
    /// Its name is not known.
    #[error("the name of its server can't be resolved; the kubeconfig must have a name that DNS knows here")]
    NotResolved,
    /// Nobody listens.
    #[error("connection refused; its API server must run, and the kubeconfig must have its address and port")]
    ConnectionRefused,
    /// TLS failed.
    #[error(
        "no TLS connection; the kubeconfig must have the certificate authority of its API server, and a name that is in \
         the server's certificate"
    )]
    Tls,
    /// No connection, or no HTTP over it.
    #[error(
        "no connection; the kubeconfig must have the address of an API server that can be reached from here"
    )]
    Unreachable,
    /// Our credentials are not known.
    #[error("it does not accept the credentials (HTTP 401); the kubeconfig or token must be renewed")]
    Unauthorized,
    /// There is no such namespace.
    #[error("the namespace does not exist (HTTP 404); create it, or let the flag name the right one")]
    NamespaceMissing,
    /// The namespace is being deleted.
    #[error(
        "the namespace is being deleted (HTTP 403); create it again when it is gone, or let the flag name another"
    )]
    NamespaceTerminating,
    /// It refuses.
    #[error("it refused with HTTP {0}; 403 is about missing rights, 5xx about the API server itself")]
    Refused(u16),
}

impl Trouble {
    /// What an error of kube's stands for.
    #[must_use]
    pub fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status),
            other => Self::of_connection(other),
        }
    }

    fn of_status(status: &Status) -> Self {
        let details = status.details.as_ref();
        let terminating = |cause: &kube::core::response::StatusCause| cause.reason == "NamespaceTerminating";
        match status.code {
            401 => Self::Unauthorized,
            404 if details.is_some_and(|details| details.kind == "namespaces") => Self::NamespaceMissing,
            403 if details.is_some_and(|details| details.causes.iter().any(terminating)) => {
                Self::NamespaceTerminating
            }
            code => Self::Refused(code),
        }
    }

    fn of_connection(error: &(dyn StdError + 'static)) -> Self {
        let mut source = Some(error);
        let mut found = Self::Unreachable;
        while let Some(error) = source {
            if error.is::<rustls::Error>() {
                return Self::Tls;
            }
            // The connector's error for it has no public type.
            if error.to_string() == "dns error" {
                return Self::NotResolved;
            }
            source = error.source();
            if let Some(io) = error.downcast_ref::<io::Error>() {
                match io.kind() {
                    io::ErrorKind::TimedOut => return Self::Silent,
                    io::ErrorKind::ConnectionRefused => return Self::ConnectionRefused,
                    // rustls reports its errors wrapped into an io error of this kind.
                    io::ErrorKind::InvalidData => found = Self::Tls,
                    _ => {}
                }
                // io::Error hides a wrapped error from `source`.
                if let Some(inner) = io.get_ref() {
                    source = Some(inner);
                }
            }
        }
        found
    }

    /// The word for it in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Silent => "timeout",
            Self::NotResolved => "not_resolved",
            Self::ConnectionRefused => "connection_refused",
            Self::Tls => "tls",
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::NamespaceMissing | Self::NamespaceTerminating => "namespace_missing",
            Self::Refused(403) => "forbidden",
            Self::Refused(404) => "not_found",
            Self::Refused(409) => "conflict",
            Self::Refused(429) => "too_many_requests",
            Self::Refused(500..) => "server_error",
            Self::Refused(_) => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::{Api, Client, Config};
    use serde_json::{Value, json};

    use super::*;

    fn api(status: Value) -> Trouble {
        Trouble::of(&kube::Error::Api(Box::new(serde_json::from_value(status).unwrap())))
    }

    #[test]
    fn a_status_is_told_by_its_code_and_by_what_it_is_about() {
        assert_eq!(api(json!({"code": 401})), Trouble::Unauthorized);
        assert_eq!(api(json!({"code": 403})), Trouble::Refused(403));
        assert_eq!(api(json!({"code": 404, "details": {"kind": "leases"}})), Trouble::Refused(404));
        assert_eq!(api(json!({"code": 404, "details": {"kind": "namespaces"}})), Trouble::NamespaceMissing);
        let causes = json!([{"reason": "NamespaceTerminating"}]);
        assert_eq!(api(json!({"code": 403, "details": {"causes": causes}})), Trouble::NamespaceTerminating);
        assert_eq!(api(json!({"code": 503})), Trouble::Refused(503));
    }

    /// What a client says of that server.
    async fn of(server: &str) -> Trouble {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_from(Config::new(server.parse::<Uri>().unwrap())).unwrap();
        Trouble::of(&Api::<Namespace>::all(client).get("x").await.unwrap_err())
    }

    #[tokio::test]
    async fn no_answer_is_told_by_what_is_in_the_way() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(b"no TLS at all\n");
            }
        });
        assert_eq!(of(&format!("https://127.0.0.1:{port}")).await, Trouble::Tls);
        assert_eq!(of("https://nowhere.invalid").await, Trouble::NotResolved);
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert_eq!(of(&format!("https://127.0.0.1:{free}")).await, Trouble::ConnectionRefused);
    }

    #[test]
    fn labels_are_few() {
        let of = |code| Trouble::Refused(code).label();
        assert_eq!(
            [403, 404, 409, 429, 418, 500, 599].map(of),
            [
                "forbidden",
                "not_found",
                "conflict",
                "too_many_requests",
                "refused",
                "server_error",
                "server_error"
            ]
        );
    }
}
