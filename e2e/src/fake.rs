//! Servers that are no managed clusters, though their kubeconfigs are in order: each is dead in a
//! way of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::cluster::install_crypto_provider;
use crate::kubeconfig::{Credentials, render};
use crate::pki::{Identity, Pki};

/// How a server is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Nobody listens.
    Refused,
    /// Connections are taken and nothing follows.
    BlackHole,
    /// What follows is no TLS.
    Garbage,
    /// Every request gets this HTTP status.
    Status(u16),
    /// Every request gets a good answer, much too late.
    Slow(Duration),
    /// Nobody should trust its certificate.
    Certificate(Flaw),
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is another server's.
    OtherName,
    /// Another authority than the kubeconfig's has signed it.
    OtherAuthority,
    /// It is one of an authority.
    Authority,
    /// It is not for servers.
    ClientsOnly,
}

impl Flaw {
    fn put_into(self, params: &mut CertificateParams) {
        let now = OffsetDateTime::now_utc();
        match self {
            Self::Expired => params.not_after = now - Duration::from_mins(1),
            Self::NotYetValid => params.not_before = now + Duration::from_hours(1),
            Self::OtherName => params.subject_alt_names.clear(),
            Self::OtherAuthority => {}
            Self::Authority => params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            Self::ClientsOnly => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

/// A dead server; it ends when it is dropped.
pub struct Fake {
    kubeconfig: String,
    task: Option<JoinHandle<()>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Fake {
    /// Starts one on a free port of the loopback interface.
    ///
    /// # Errors
    /// When there is no port or no certificate to be had.
    pub async fn start(death: Death) -> Result<Self> {
        install_crypto_provider();
        let pki = Pki::generate("fake")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let kubeconfig = render("fake", &url, pki.ca_pem(), &Credentials::Token("a-token-for-a-fake"));
        if death == Death::Refused {
            return Ok(Self { kubeconfig, task: None });
        }
        let acceptor = match death {
            Death::Certificate(Flaw::OtherAuthority) => acceptor(&Pki::generate("another")?)?,
            Death::Certificate(flaw) => acceptor_with(&pki.server_with(|params| flaw.put_into(params))?)?,
            _ => acceptor(&pki)?,
        };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, acceptor.clone(), death));
            }
        });
        Ok(Self { kubeconfig, task: Some(task) })
    }

    /// The kubeconfig that leads to it.
    #[must_use]
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }
}

/// What speaks TLS for a server on the loopback interface.
///
/// # Errors
/// When there is no certificate to be had.
pub fn acceptor(pki: &Pki) -> Result<TlsAcceptor> {
    acceptor_with(&pki.server()?)
}

fn acceptor_with(identity: &Identity) -> Result<TlsAcceptor> {
    let chain =
        CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    Ok(TlsAcceptor::from(Arc::new(config.context("the server's certificate is refused")?)))
}

async fn serve(mut stream: TcpStream, acceptor: TlsAcceptor, death: Death) {
    match death {
        Death::Refused => {}
        Death::BlackHole => std::future::pending().await,
        Death::Garbage => {
            let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n").await;
        }
        Death::Certificate(_) => {
            // Whoever trusts it after all sees a connection that ends.
            let _ = acceptor.accept(stream).await;
        }
        Death::Status(_) | Death::Slow(_) => {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |_: Request<Incoming>| async move {
                let status = match death {
                    Death::Status(status) => StatusCode::from_u16(status).unwrap_or_default(),
                    _ => StatusCode::OK,
                };
                if let Death::Slow(late) = death {
                    tokio::time::sleep(late).await;
                }
                let body = r#"{"kind":"Status","message":"text of a stranger"}"#.to_owned();
                let mut response = Response::new(body);
                *response.status_mut() = status;
                if status == StatusCode::TOO_MANY_REQUESTS {
                    response.headers_mut().insert(http::header::RETRY_AFTER, 86_400.into());
                }
                Ok::<_, Infallible>(response)
            });
            // Whoever hangs up first has seen enough.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    }
}
