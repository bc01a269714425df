//! Flags of the API's listener: who is let in, and how.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::broker::auth::is_issuer;
use crate::support::reload::Files;

/// How requests are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// By user and password, from --htpasswd-file
    Basic,
    /// By a signed token of --jwt-issuer
    Jwt,
    /// Not at all; only where --listen is a loopback address, or with --allow-anonymous
    None,
}

/// Flags of the API's listener.
#[derive(Debug, Args)]
pub struct ListenArgs {
    /// How requests are authenticated; repeat it, or separate by commas, for several ways
    #[arg(long, env = "KYMA_BINDINGS_AUTH", value_delimiter = ',')]
    pub auth: Vec<Auth>,
    /// With --auth none: serve anybody, on whatever address
    #[arg(long, env = "KYMA_BINDINGS_ALLOW_ANONYMOUS")]
    pub allow_anonymous: bool,
    /// For --auth basic: users and bcrypt hashes, as `htpasswd -B` writes them; read again on change
    #[arg(long, env = "KYMA_BINDINGS_HTPASSWD_FILE", value_name = "PATH")]
    pub htpasswd_file: Option<PathBuf>,
    /// With --auth basic: take passwords over plain HTTP, because something in front speaks TLS
    #[arg(long, env = "KYMA_BINDINGS_ALLOW_BASIC_WITHOUT_TLS")]
    pub allow_basic_without_tls: bool,
    /// For --auth jwt: who issues the tokens, as their `iss` says; its keys are found by OIDC discovery
    #[arg(long, env = "KYMA_BINDINGS_JWT_ISSUER", value_parser = word, value_name = "URL")]
    pub jwt_issuer: Option<String>,
    /// For --auth jwt: whom the tokens are for, as their `aud` says
    #[arg(long, env = "KYMA_BINDINGS_JWT_AUDIENCE", value_parser = word, value_name = "AUDIENCE")]
    pub jwt_audience: Option<String>,
    /// For --auth jwt: what must be in `scope` or `scp` of the tokens
    #[arg(long, env = "KYMA_BINDINGS_JWT_SCOPE", default_value = "broker:write", value_parser = word, value_name = "SCOPE")]
    pub jwt_scope: String,
    /// For --auth jwt: the issuer's keys as a JWKS, instead of discovery; read again on change
    #[arg(long, env = "KYMA_BINDINGS_JWT_JWKS_FILE", value_name = "PATH")]
    pub jwt_jwks_file: Option<PathBuf>,
    /// For --auth jwt: authorities for the issuer's certificate besides the system's, as PEM; read again on change
    #[arg(long, env = "KYMA_BINDINGS_JWT_CA_FILE", value_name = "PATH")]
    pub jwt_ca_file: Option<PathBuf>,
    /// Certificate for --listen, and those of its issuers behind it, as PEM; read again on change
    #[arg(long, env = "KYMA_BINDINGS_TLS_CERT", value_name = "PATH")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, as PEM; read again on change
    #[arg(long, env = "KYMA_BINDINGS_TLS_KEY", value_name = "PATH")]
    pub tls_key: Option<PathBuf>,
    /// Most requests under way at once, 1 to 100000; further ones are answered with 429
    #[arg(long, env = "KYMA_BINDINGS_MAX_IN_FLIGHT", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "COUNT")]
    pub max_in_flight: u32,
}

impl ListenArgs {
    /// The files of certificate and key, if they are given.
    #[must_use]
    pub fn tls_files(&self) -> Option<Files> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(vec![("--tls-cert", cert), ("--tls-key", key)])
    }
}

/// Flags of the listener that are right alone but not together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenConfigError {
    /// Nobody said how requests are authenticated.
    #[error(
        "--auth must be given: basic, jwt, or none with --listen on a loopback address such as 127.0.0.1:8080"
    )]
    NoAuth,
    /// Who has no credentials would be let in, so why ask for any?
    #[error("--auth none must be the only one: it lets in who has no credentials")]
    NoneAndMore,
    /// Anybody could ask for keys.
    #[error(
        "--auth none is accepted only where --listen is a loopback address such as 127.0.0.1:8080, not {0}: \
         it would hand out clusters' keys to anybody; --allow-anonymous does so all the same"
    )]
    OpenToStrangers(SocketAddr),
    /// Flags that others need.
    #[error("{}", needs(.0))]
    Needs(Vec<(&'static str, &'static str)>),
    /// A flag that says nothing without another one.
    #[error("{0} has a meaning only with {1}; leave it out")]
    Idle(&'static str, &'static str),
    /// Keys come from a file.
    #[error(
        "--jwt-ca-file has no meaning with --jwt-jwks-file: nothing is fetched then; leave one of them out"
    )]
    NothingFetched,
    /// Where are the keys?
    #[error(
        "--jwt-issuer must be an https URL without user, query and fragment, such as https://issuer.example, or \
         --jwt-jwks-file must be given"
    )]
    IssuerUrl,
    /// Passwords for anybody on the way.
    #[error(
        "--auth basic takes passwords: give --tls-cert and --tls-key, or --allow-basic-without-tls if something in \
         front speaks TLS"
    )]
    BareBasic,
}

/// All that is missing, by what needs it.
fn needs(missing: &[(&'static str, &'static str)]) -> String {
    let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
    for (flag, with) in missing {
        match said.iter_mut().find(|(known, _)| known == with) {
            Some((_, flags)) => flags.push(flag),
            None => said.push((with, vec![flag])),
        }
    }
    let said =
        said.into_iter().map(|(with, flags)| format!("{} must be given with {with}", flags.join(" and ")));
    said.collect::<Vec<_>>().join("; ")
}

impl ListenArgs {
    /// Checks what one flag alone can't tell.
    ///
    /// # Errors
    /// The first [`ListenConfigError`] found.
    pub fn check(&self, listen: SocketAddr) -> Result<(), ListenConfigError> {
        use ListenConfigError::{
            BareBasic, Idle, IssuerUrl, Needs, NoAuth, NoneAndMore, NothingFetched, OpenToStrangers,
        };
        if self.auth.is_empty() {
            return Err(NoAuth);
        }
        let (none, basic) = (self.has(Auth::None), self.has(Auth::Basic));
        if none && self.auth.iter().any(|auth| *auth != Auth::None) {
            return Err(NoneAndMore);
        }
        if none && !listen.ip().is_loopback() && !self.allow_anonymous {
            return Err(OpenToStrangers(listen));
        }
        let jwt = self.has(Auth::Jwt);
        let idle = [
            (!jwt && self.jwt_issuer.is_some(), "--jwt-issuer", "--auth jwt"),
            (!jwt && self.jwt_audience.is_some(), "--jwt-audience", "--auth jwt"),
            (!jwt && self.jwt_jwks_file.is_some(), "--jwt-jwks-file", "--auth jwt"),
            (!jwt && self.jwt_ca_file.is_some(), "--jwt-ca-file", "--auth jwt"),
            (!none && self.allow_anonymous, "--allow-anonymous", "--auth none"),
            (!basic && self.htpasswd_file.is_some(), "--htpasswd-file", "--auth basic"),
            (!basic && self.allow_basic_without_tls, "--allow-basic-without-tls", "--auth basic"),
        ];
        if let Some((_, flag, with)) = idle.into_iter().find(|(idle, ..)| *idle) {
            return Err(Idle(flag, with));
        }
        let (cert, key) = (self.tls_cert.is_some(), self.tls_key.is_some());
        let needed = [
            (basic && self.htpasswd_file.is_none(), "--htpasswd-file", "--auth basic"),
            (jwt && self.jwt_issuer.is_none(), "--jwt-issuer", "--auth jwt"),
            (jwt && self.jwt_audience.is_none(), "--jwt-audience", "--auth jwt"),
            (cert && !key, "--tls-key", "--tls-cert"),
            (key && !cert, "--tls-cert", "--tls-key"),
        ];
        let needed = needed.into_iter().filter(|(needed, ..)| *needed);
        let needed: Vec<_> = needed.map(|(_, flag, with)| (flag, with)).collect();
        if !needed.is_empty() {
            return Err(Needs(needed));
        }
        if jwt && self.jwt_jwks_file.is_some() && self.jwt_ca_file.is_some() {
            return Err(NothingFetched);
        }
        if jwt && self.jwt_jwks_file.is_none() && !self.jwt_issuer.as_deref().is_some_and(is_issuer) {
            return Err(IssuerUrl);
        }
        if basic && self.tls_cert.is_none() && !self.allow_basic_without_tls {
            return Err(BareBasic);
        }
        Ok(())
    }

    /// Whether requests may be authenticated this way.
    #[must_use]
    pub fn has(&self, auth: Auth) -> bool {
        self.auth.contains(&auth)
    }
}

/// What may stand in a claim and in a challenge.
fn word(text: &str) -> Result<String, String> {
    let legal = |c: u8| c.is_ascii_graphic() && c != b'"' && c != b'\\';
    let good = !text.is_empty() && text.bytes().all(legal);
    good.then(|| text.to_owned()).ok_or_else(|| "must be printable, without spaces and quotes".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::Auth;
    use crate::cli::{Cli, Command};

    /// Flags separated by spaces, checked for that address.
    fn check(listen: &str, args: &str) -> Result<(), String> {
        let args = ["kyma-bindings", "run", "--listen", listen].into_iter().chain(args.split_whitespace());
        let cli = Cli::try_parse_from(args).map_err(|e| e.to_string())?;
        let Command::Run(args) = cli.command else { panic!("not run") };
        args.check().map_err(|e| e.to_string())
    }

    #[test]
    fn by_default_all_addresses_are_listened_on_and_what_is_said_last_counts() {
        let run = |args: &[&str]| {
            let cli = Cli::try_parse_from(["kyma-bindings", "run"].iter().chain(args)).unwrap();
            let Command::Run(run) = cli.command else { panic!("not run") };
            run
        };
        let default = run(&[]);
        assert_eq!(
            (default.listen.to_string(), default.admin_listen.to_string()),
            ("[::]:8080".into(), "[::]:9090".into())
        );
        let twice =
            run(&["--listen", "10.0.0.1:1", "--listen=127.0.0.1:2", "--auth=basic", "--auth=jwt,basic"]);
        assert_eq!(twice.listen.to_string(), "127.0.0.1:2");
        assert_eq!(twice.access.auth, [Auth::Basic, Auth::Jwt, Auth::Basic], "several add up");
        assert_eq!(
            run(&["--managed-server-allow=a", "--managed-server-allow=b"]).managed_server_allow.len(),
            2
        );
    }

    #[test]
    fn nobody_is_let_in_unasked() {
        for (listen, args, word) in [
            ("127.0.0.1:8080", "", "--auth must be given"),
            ("0.0.0.0:8080", "--auth none", "0.0.0.0:8080"),
            ("[::]:8080", "--auth none", "not [::]:8080"),
            ("[::ffff:127.0.0.1]:8080", "--auth none", "--listen is a loopback address"),
            ("10.0.0.1:8080", "--auth none", "10.0.0.1:8080"),
            ("127.0.0.1:8080", "--auth none,basic", "must be the only one"),
            ("0.0.0.0:8080", "--auth basic", "--htpasswd-file must be given with --auth basic"),
            ("127.0.0.1:8080", "--auth basic --htpasswd-file f", "--allow-basic-without-tls"),
            ("127.0.0.1:8080", "--auth jwt", "--jwt-issuer and --jwt-audience must be given with --auth jwt"),
            (
                "127.0.0.1:8080",
                "--auth jwt,basic --tls-cert f",
                "--htpasswd-file must be given with --auth basic; --jwt-issuer and --jwt-audience must be given with \
                 --auth jwt; --tls-key must be given with --tls-cert",
            ),
            ("127.0.0.1:8080", "--auth jwt --jwt-issuer https://i", "--jwt-audience must be given"),
            ("127.0.0.1:8080", "--auth jwt --jwt-audience us --jwt-issuer http://i", "must be an https URL"),
            (
                "127.0.0.1:8080",
                "--auth jwt --jwt-audience us --jwt-issuer https://i?q",
                "must be an https URL",
            ),
            (
                "127.0.0.1:8080",
                "--auth jwt --jwt-audience us --jwt-issuer i --jwt-jwks-file f --jwt-ca-file f",
                "nothing is fetched",
            ),
            ("127.0.0.1:8080", "--auth none --jwt-audience us", "only with --auth jwt"),
            ("127.0.0.1:8080", "--auth jwt --jwt-scope a\"b", "without spaces and quotes"),
            ("127.0.0.1:8080", "--auth none --tls-cert f", "--tls-key must be given with --tls-cert"),
            ("127.0.0.1:8080", "--auth none --tls-key f", "--tls-cert must be given with --tls-key"),
            ("127.0.0.1:8080", "--auth none --max-in-flight 0", "1..=100000"),
            ("127.0.0.1:8080", "--auth none --htpasswd-file f", "only with --auth basic"),
            ("127.0.0.1:8080", "--auth none --allow-basic-without-tls", "only with --auth basic"),
            (
                "127.0.0.1:8080",
                "--auth basic --htpasswd-file f --allow-basic-without-tls --allow-anonymous",
                "only with --auth none",
            ),
        ] {
            let message = check(listen, args).unwrap_err();
            assert!(message.contains(word), "{word} is not in: {message}");
        }
        for (listen, args) in [
            ("[::1]:8080", "--auth none"),
            ("127.0.0.1:8080", "--auth none"),
            ("0.0.0.0:8080", "--auth none --allow-anonymous"),
            ("0.0.0.0:8080", "--auth basic --htpasswd-file f --allow-basic-without-tls"),
            ("0.0.0.0:8080", "--auth basic --htpasswd-file f --tls-cert c --tls-key k"),
            ("0.0.0.0:8080", "--auth jwt --jwt-audience us --jwt-issuer https://i"),
            ("0.0.0.0:8080", "--auth jwt --jwt-audience us --jwt-issuer i --jwt-jwks-file f"),
            (
                "0.0.0.0:8080",
                "--auth jwt --auth basic --jwt-audience us --jwt-issuer https://i --htpasswd-file f --allow-basic-without-tls",
            ),
            ("0.0.0.0:8080", "--role controller"),
        ] {
            assert_eq!(check(listen, args), Ok(()), "{args}");
        }
    }
}
