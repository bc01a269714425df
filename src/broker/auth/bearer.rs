//! Bearer tokens (RFC 6750) of one issuer.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::ClientConfig;

use super::issuer::fetch;
use super::jwks::Keys;
use super::keys::KeyCache;
use super::token::{Rules, Unproved};
use super::{Denial, Principal};
use crate::support::reload::Current;
use crate::telemetry::metrics::Metrics;

/// Where keys come from.
enum Source {
    File(Arc<Current<Keys>>),
    Issuer(Arc<KeyCache>),
}

/// Authenticates by token.
pub struct Jwt {
    source: Source,
    rules: Rules,
}

impl Jwt {
    /// With the keys of a file.
    #[must_use]
    pub fn with_file(rules: Rules, keys: Arc<Current<Keys>>) -> Self {
        Self { source: Source::File(keys), rules }
    }

    /// With the keys that the issuer publishes; they are fetched from now on.
    #[must_use]
    pub fn with_issuer(rules: Rules, trust: Arc<Current<ClientConfig>>, metrics: Arc<Metrics>) -> Self {
        let issuer = rules.issuer.clone();
        let keys = KeyCache::new(Box::new(move || Box::pin(fetch(issuer.clone(), trust.clone()))), metrics);
        keys.keep();
        Self { source: Source::Issuer(keys), rules }
    }

    /// The scope that tokens must have.
    pub(super) fn scope(&self) -> &str {
        &self.rules.scope
    }

    /// Who says so?
    pub(super) async fn check(&self, token: &str) -> Result<Principal, Denial> {
        let token = Unproved::parse(token).map_err(Denial::Token)?;
        let keys = match &self.source {
            Source::File(keys) => keys.get(),
            Source::Issuer(cache) => cache.with(token.key_id()).await.ok_or(Denial::NoKeys)?,
        };
        let now = Timestamp::now().as_second();
        let bearer = token.prove(&keys, &self.rules, now).map_err(Denial::Token)?;
        if bearer.in_scope { Ok(bearer.principal) } else { Err(Denial::Scope(bearer.principal)) }
    }
}
