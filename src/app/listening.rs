//! What the listener of the API needs, as the flags say: who is let in, and its certificate.

use std::sync::Arc;

use rustls::ServerConfig;

use super::RunError;
use crate::broker::auth::{self, Authenticator, Basic, Directory, Jwt, Keys, Rules};
use crate::cli::{Auth, ListenArgs, RunArgs};
use crate::server::tls;
use crate::support::clock;
use crate::support::reload::{self, Current};
use crate::telemetry::metrics::Metrics;

/// Who is let in, as the flags say.
pub(super) fn authenticator(args: &RunArgs, metrics: &Arc<Metrics>) -> Result<Authenticator, RunError> {
    let access = &args.access;
    if access.has(Auth::None) {
        tracing::warn!("requests are not authenticated: whoever reaches --listen gets keys of clusters");
        let only_local = args.listen.ip().is_loopback() && !access.allow_anonymous;
        return Ok(Authenticator::open(only_local, metrics.clone()));
    }
    let basic = match &access.htpasswd_file {
        Some(path) => {
            let files = vec![("--htpasswd-file", path.clone())];
            let users =
                reload::load_some(files, |file| Directory::parse(&file.concat()), Directory::check_some);
            Some(Basic::new(users?))
        }
        None => None,
    };
    let jwt = access.has(Auth::Jwt).then(|| jwt(access, metrics)).transpose()?;
    if access.tls_cert.is_none() {
        tracing::warn!("credentials are taken over plain HTTP: something in front must speak TLS");
    }
    Ok(Authenticator::closed(basic, jwt, metrics.clone()))
}

fn jwt(access: &ListenArgs, metrics: &Arc<Metrics>) -> Result<Jwt, RunError> {
    let rules = Rules {
        issuer: access.jwt_issuer.clone().unwrap_or_default(),
        audience: access.jwt_audience.clone().unwrap_or_default(),
        scope: access.jwt_scope.clone(),
    };
    if let Some(path) = &access.jwt_jwks_file {
        let files = vec![("--jwt-jwks-file", path.clone())];
        let keys = reload::load_some(files, |file| Keys::parse(&file.concat()), Keys::check_some);
        return Ok(Jwt::with_file(rules, keys?));
    }
    let files = access.jwt_ca_file.iter().map(|path| ("--jwt-ca-file", path.clone())).collect();
    let trust = reload::load(files, |file| auth::trust(file.first().map(Vec::as_slice)))?;
    Ok(Jwt::with_issuer(rules, trust, metrics.clone()))
}

/// The certificate and its key, if they are given, read again on change.
pub(super) fn certificate(
    access: &ListenArgs,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<Current<ServerConfig>>>, RunError> {
    let counted = metrics.clone();
    let parse = move |files: &[Vec<u8>]| {
        let config = tls::parse(files)?;
        let chain = files.first().map(Vec::as_slice).unwrap_or_default();
        if let Some(ends) = tls::ends(chain) {
            counted.certificate("api", ends);
        }
        // It is used all the same: an old certificate is better than a process that doesn't start.
        if let Some(lapse) = tls::lapse(chain, clock::now()) {
            tracing::warn!("--tls-cert: {lapse}; clients refuse the connection until it is renewed");
        }
        Ok::<_, tls::TlsError>(config)
    };
    Ok(access.tls_files().map(|files| reload::load(files, parse)).transpose()?)
}
