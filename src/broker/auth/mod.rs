//! Who asks? Decided by the headers alone, before a byte of the body is read.

mod basic;
mod bearer;
mod host;
mod htpasswd;
mod issuer;
mod jwks;
mod keys;
pub mod refused;
mod remembered;
mod token;

use std::sync::{Arc, OnceLock};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::request::identity;
use crate::broker::error::Problem;
use crate::telemetry::metrics::Metrics;

pub use crate::broker::auth::bearer::Jwt;
pub use basic::{Basic, Directory};
pub use issuer::{is_issuer, trust};
pub use jwks::Keys;
pub use token::Rules;

use refused::Unauthenticated;
use token::Fault;

/// Longest name of a principal, bytes.
const MAX_NAME: usize = 256;

/// How somebody was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Not at all.
    None,
    /// By user and password.
    Basic,
    /// By a token.
    Jwt,
}

impl Scheme {
    /// Its word in logs and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::Jwt => "jwt",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// How we know.
    pub scheme: Scheme,
    /// The name; at most 256 bytes, and none that people can't see.
    pub name: String,
}

/// Where whoever looks at a request from outside finds out who asks, once that is known.
#[derive(Debug, Clone, Default)]
pub struct Asker(pub Arc<OnceLock<Principal>>);

/// Why somebody isn't let in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Denial {
    /// A page in a browser on this machine, it seems.
    Host,
    /// More than one `Authorization`.
    Repeated,
    /// No `Authorization`.
    Missing,
    /// A scheme that isn't offered.
    NotOffered,
    /// Not in the form of its scheme.
    Malformed(Scheme),
    /// An unknown user, or a wrong password.
    Password,
    /// A password longer than bcrypt reads.
    LongPassword,
    /// Too many others are being checked.
    Busy,
    /// A token that isn't good.
    Token(Fault),
    /// A good one, for something else.
    Scope(Principal),
    /// There is nothing to check a token with.
    NoKeys,
}

impl Denial {
    /// Labels of its metric, and words of its log line: the scheme, and the reason.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Host => ("none", "host"),
            Self::Repeated => ("unknown", "repeated"),
            Self::Missing => ("unknown", "missing"),
            Self::NotOffered => ("unknown", "not_offered"),
            Self::Malformed(scheme) => (scheme.word(), "malformed"),
            Self::Password => ("basic", "password"),
            Self::LongPassword => ("basic", "too_long"),
            Self::Busy => ("basic", "busy"),
            Self::Token(fault) => ("jwt", fault.word()),
            Self::Scope(_) => ("jwt", "scope"),
            Self::NoKeys => ("jwt", "no_keys"),
        }
    }

    fn problem(&self) -> Problem {
        match self {
            Self::Host => Problem::Host,
            Self::Repeated => Problem::RepeatedAuthorization,
            Self::Missing => Problem::Unauthenticated(Unauthenticated::Missing),
            Self::NotOffered => Problem::Unauthenticated(Unauthenticated::NotOffered),
            Self::Malformed(_) => Problem::Unauthenticated(Unauthenticated::Malformed),
            Self::Password => Problem::Unauthenticated(Unauthenticated::Password),
            Self::LongPassword => Problem::Unauthenticated(Unauthenticated::LongPassword),
            Self::Token(fault) => Problem::Unauthenticated(Unauthenticated::Token(*fault)),
            Self::Busy => Problem::Overloaded,
            Self::Scope(_) => Problem::Scope,
            Self::NoKeys => Problem::NoKeys,
        }
    }
}

/// Who is let in.
enum Doors {
    /// Everybody, or everybody who names this machine.
    Open { only_local: bool },
    /// Who has credentials of one of these kinds.
    Closed { basic: Option<Basic>, jwt: Option<Jwt> },
}

/// Lets requests in, or not.
pub struct Authenticator {
    doors: Doors,
    metrics: Arc<Metrics>,
}

impl Authenticator {
    /// Lets everybody in; with `only_local`, everybody who asks for this machine by a loopback name,
    /// which a page from elsewhere in a browser here can't.
    #[must_use]
    pub fn open(only_local: bool, metrics: Arc<Metrics>) -> Self {
        Self { doors: Doors::Open { only_local }, metrics }
    }

    /// Lets those in who prove who they are.
    #[must_use]
    pub fn closed(basic: Option<Basic>, jwt: Option<Jwt>, metrics: Arc<Metrics>) -> Self {
        Self { doors: Doors::Closed { basic, jwt }, metrics }
    }

    async fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<Principal, Denial> {
        let (basic, jwt) = match &self.doors {
            Doors::Open { only_local: true } if !host::is_local(headers, uri) => return Err(Denial::Host),
            Doors::Open { .. } => {
                return Ok(Principal { scheme: Scheme::None, name: "anonymous".to_owned() });
            }
            Doors::Closed { basic, jwt } => (basic, jwt),
        };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (scheme, credentials) = match (given.next(), given.next()) {
            (None, _) => return Err(Denial::Missing),
            (Some(_), Some(_)) => return Err(Denial::Repeated),
            (Some(value), None) => {
                let text = value.to_str().map_err(|_| Denial::NotOffered)?;
                text.split_once(' ').unwrap_or((text, ""))
            }
        };
        match (basic, jwt) {
            (Some(basic), _) if scheme.eq_ignore_ascii_case("basic") => basic.check(credentials.trim()).await,
            (_, Some(jwt)) if scheme.eq_ignore_ascii_case("bearer") => jwt.check(credentials.trim()).await,
            _ => Err(Denial::NotOffered),
        }
    }

    /// What is answered, with all ways to do better (RFC 9110, section 11.6.1; RFC 6750, section 3).
    fn refuse(&self, denial: Denial) -> Response {
        let mut response = denial.problem().into_response();
        let Doors::Closed { basic, jwt } = &self.doors else { return response };
        let mut challenges = Vec::new();
        let bearer = "Bearer realm=\"kyma-bindings\"";
        if response.status() == StatusCode::UNAUTHORIZED {
            if basic.is_some() {
                challenges.push("Basic realm=\"kyma-bindings\", charset=\"UTF-8\"".to_owned());
            }
            match denial {
                _ if jwt.is_none() => {}
                Denial::Token(_) => challenges.push(format!("{bearer}, error=\"invalid_token\"")),
                _ => challenges.push(bearer.to_owned()),
            }
        } else if let (Denial::Scope(principal), Some(jwt)) = (denial, jwt) {
            let scope = jwt.scope();
            challenges.push(format!("{bearer}, error=\"insufficient_scope\", scope=\"{scope}\""));
            response.extensions_mut().insert(principal);
        }
        let values = challenges.into_iter().filter_map(|challenge| HeaderValue::try_from(challenge).ok());
        for value in values {
            response.headers_mut().append(header::WWW_AUTHENTICATE, value);
        }
        response
    }
}

/// Around every route: lets the request in with its [`Principal`], or answers it.
pub async fn authenticate(State(auth): State<Arc<Authenticator>>, request: Request, next: Next) -> Response {
    match auth.check(request.headers(), request.uri()).await {
        Ok(principal) => {
            if let Some(Asker(asker)) = request.extensions().get() {
                // Set here alone, once a request.
                let _ = asker.set(principal);
            }
            next.run(request).await
        }
        Err(denial) => {
            let (scheme, reason) = denial.words();
            auth.metrics.auth_failure(scheme, reason);
            let request_id = identity(request.headers());
            tracing::warn!(scheme, reason, request_id, "a request was not authenticated");
            auth.refuse(denial)
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::support::reload::Current;

    fn closed() -> Authenticator {
        let file = format!("anna:{}\n", bcrypt::hash("right", 4).unwrap());
        let directory = Current::fixed(Directory::parse(file.as_bytes()).unwrap());
        Authenticator::closed(Some(Basic::new(directory)), None, Arc::default())
    }

    async fn check(auth: &Authenticator, authorization: &[&str]) -> Result<Principal, Denial> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        auth.check(&headers, &Uri::default()).await
    }

    #[tokio::test]
    async fn exactly_one_header_of_an_offered_scheme_is_read() {
        let auth = closed();
        let right = format!("Basic {}", STANDARD.encode("anna:right"));
        let anna = Principal { scheme: Scheme::Basic, name: "anna".to_owned() };
        assert_eq!(check(&auth, &[&right]).await, Ok(anna.clone()));
        assert_eq!(check(&auth, &[&right.replace("Basic ", "bAsIC  ")]).await, Ok(anna));
        for (headers, denial) in [
            (vec![], Denial::Missing),
            (vec![right.as_str(), right.as_str()], Denial::Repeated),
            (vec![&right[6..]], Denial::NotOffered),
            (vec!["Bearer abc"], Denial::NotOffered),
            (vec![""], Denial::NotOffered),
            (vec!["Basic"], Denial::Malformed(Scheme::Basic)),
        ] {
            assert_eq!(check(&auth, &headers).await, Err(denial), "{headers:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_names_the_ways_in() {
        let auth = closed();
        let refused = auth.refuse(Denial::Missing);
        assert_eq!(refused.status(), 401);
        assert_eq!(
            refused.headers()[header::WWW_AUTHENTICATE],
            "Basic realm=\"kyma-bindings\", charset=\"UTF-8\""
        );
        assert_eq!(auth.refuse(Denial::Repeated).status(), 400);
        assert_eq!(auth.refuse(Denial::Busy).status(), 429);
        assert_eq!(auth.refuse(Denial::Busy).headers().get(header::WWW_AUTHENTICATE), None);
    }

    #[tokio::test]
    async fn an_open_door_is_for_this_machine() {
        let auth = Authenticator::open(true, Arc::default());
        assert_eq!(check(&auth, &[]).await, Err(Denial::Host), "no host at all");
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
        assert_eq!(auth.check(&headers, &Uri::default()).await.unwrap().name, "anonymous");
        assert!(check(&Authenticator::open(false, Arc::default()), &[]).await.is_ok());
    }
}
